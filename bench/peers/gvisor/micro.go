package main

import (
	"flag"
	"fmt"
	"runtime"
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

// microFlags are what the trace-driven commands have in common.
type microFlags struct {
	live, ops, rounds int
	seed              uint
	args              map[string]string
}

func parseMicro(name string, args []string, extra func(*flag.FlagSet)) (*microFlags, error) {
	m := new(microFlags)
	fs := flag.NewFlagSet(name, flag.ExitOnError)
	fs.IntVar(&m.live, "live", 10000, "live ranges")
	fs.IntVar(&m.ops, "ops", 200000, "operations per round")
	fs.UintVar(&m.seed, "seed", 1, "seed of the trace")
	fs.IntVar(&m.rounds, "rounds", 5, "rounds, each on a new MemoryFile with the same trace")
	if extra != nil {
		extra(fs)
	}
	m.args = parse(fs, args)
	if m.live < 1 || m.ops < 1 || m.rounds < 1 || m.seed > 1<<32-1 {
		return nil, fmt.Errorf("-live, -ops and -rounds must be positive, -seed a 32-bit word")
	}
	return m, nil
}

func (m *microFlags) result(t *trace, s samples) result {
	return result{
		"args":      m.args,
		"traceHash": t.hash.String(),
		"samples":   s,
		"median":    s.medians(),
	}
}

// forRounds calls fn once per round with a new MemoryFile that holds the live ranges.
func (m *microFlags) forRounds(t *trace, s samples, fn func(mf *memoryFile, live []memmap.FileRange) error) error {
	for range m.rounds {
		mf, err := newMemoryFile(pgalloc.MemoryFileOpts{})
		if err != nil {
			return err
		}
		runtime.GC()
		start := time.Now()
		live, err := mf.fill(t.fill)
		if err != nil {
			return err
		}
		s.add("fillNsPerRange", nsPer(time.Since(start), m.live))
		if err := fn(mf, live); err != nil {
			return err
		}
		mf.destroy()
	}
	return nil
}

// runAlloc: DecRef of a random live range, then Allocate of another length into
// its slot. gVisor releases in the background, so a range that was just freed
// cannot be reused at once and placement depends on timing, unless -settle
// waits for the releaser between the two: then placement is first fit, the same
// everywhere, and resultHash covers the first page of every allocation.
func runAlloc(args []string) (result, error) {
	var settle bool
	m, err := parseMicro("alloc", args, func(fs *flag.FlagSet) {
		fs.BoolVar(&settle, "settle", false, "wait for the releaser after each DecRef (deterministic placement)")
	})
	if err != nil {
		return nil, err
	}
	t := makeTrace(m.live, m.ops, uint32(m.seed), true)
	s := make(samples)
	var hashes []string
	err = m.forRounds(t, s, func(mf *memoryFile, live []memmap.FileRange) error {
		h := newHash
		if settle {
			for _, fr := range live {
				h.add(uint32(fr.Start / pageSize))
			}
		}
		cpu := cpuTime()
		start := time.Now()
		var waited time.Duration
		for i, slot := range t.slot {
			mf.DecRef(live[slot])
			if settle {
				freed := time.Now()
				if err := mf.settle(); err != nil {
					return err
				}
				waited += time.Since(freed)
			}
			fr, err := mf.allocate(t.pages[i])
			if err != nil {
				return fmt.Errorf("operation %d: %w", i, err)
			}
			live[slot] = fr
			if settle {
				h.add(uint32(fr.Start / pageSize))
			}
		}
		if settle {
			s.add("nsPerPairWithoutWaits", nsPer(time.Since(start)-waited, m.ops))
		}
		s.add("nsPerPair", nsPer(time.Since(start), m.ops))
		if err := mf.settle(); err != nil {
			return err
		}
		s.add("nsPerPairSettled", nsPer(time.Since(start), m.ops))
		s.add("cpuNsPerPair", nsPer(cpuTime()-cpu, m.ops))
		s.add("totalSizeBytes", float64(mf.TotalSize()))
		hashes = append(hashes, h.String())
		return nil
	})
	if err != nil {
		return nil, err
	}
	res := m.result(t, s)
	if settle {
		for _, h := range hashes {
			if h != hashes[0] {
				return nil, fmt.Errorf("placement differs between rounds: %v", hashes)
			}
		}
		res["resultHash"] = hashes[0]
	}
	return res, nil
}

// runRefs: with -shape mixed every second live range (odd index) gets one more
// reference first, so that neighbours differ and each range is an entry of its
// own in gVisor's sets. With -shape plain all have one reference, and gVisor
// merges them into a single entry that every pair splits and merges again.
func runRefs(args []string) (result, error) {
	var shape string
	m, err := parseMicro("refs", args, func(fs *flag.FlagSet) {
		fs.StringVar(&shape, "shape", "mixed", "mixed or plain")
	})
	if err != nil {
		return nil, err
	}
	if shape != "mixed" && shape != "plain" {
		return nil, fmt.Errorf("-shape must be mixed or plain")
	}
	t := makeTrace(m.live, m.ops, uint32(m.seed), false)
	s := make(samples)
	err = m.forRounds(t, s, func(mf *memoryFile, live []memmap.FileRange) error {
		if shape == "mixed" {
			for i := 1; i < len(live); i += 2 {
				mf.IncRef(live[i], 0)
			}
		}
		start := time.Now()
		for _, slot := range t.slot {
			fr := live[slot]
			mf.IncRef(fr, 0)
			mf.DecRef(fr)
		}
		s.add("nsPerPair", nsPer(time.Since(start), m.ops))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m.result(t, s), nil
}

func runView(args []string) (result, error) {
	m, err := parseMicro("view", args, nil)
	if err != nil {
		return nil, err
	}
	t := makeTrace(m.live, m.ops, uint32(m.seed), false)
	want := uint64(0)
	for _, slot := range t.slot {
		want += uint64(t.fill[slot]) * pageSize
	}
	s := make(samples)
	err = m.forRounds(t, s, func(mf *memoryFile, live []memmap.FileRange) error {
		bytes := uint64(0)
		start := time.Now()
		for _, slot := range t.slot {
			blocks, err := mf.MapInternal(live[slot], hostarch.ReadWrite)
			if err != nil {
				return err
			}
			bytes += blocks.NumBytes()
		}
		s.add("nsPerView", nsPer(time.Since(start), m.ops))
		if bytes != want {
			return fmt.Errorf("views span %d bytes, want %d", bytes, want)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m.result(t, s), nil
}

// runBig: the first allocation extends the file and maps it; the later ones,
// after the releaser has settled, find it there. The medians are of the later.
func runBig(args []string) (result, error) {
	fs := flag.NewFlagSet("big", flag.ExitOnError)
	bytes := fs.Uint64("bytes", 64<<30, "bytes in one allocation")
	ops := fs.Int("ops", 11, "operations, after a first one that is reported apart")
	effective := parse(fs, args)
	if *bytes == 0 || *bytes%pageSize != 0 || *ops < 1 {
		return nil, fmt.Errorf("-bytes must be a positive multiple of %d, -ops positive", pageSize)
	}
	mf, err := newMemoryFile(pgalloc.MemoryFileOpts{})
	if err != nil {
		return nil, err
	}
	s := make(samples)
	first := make(samples)
	for i := range *ops + 1 {
		to := s
		if i == 0 {
			to = first
		}
		start := time.Now()
		fr, err := mf.Allocate(*bytes, pgalloc.AllocOpts{Kind: usage.Anonymous})
		if err != nil {
			return nil, err
		}
		allocated := time.Now()
		mf.DecRef(fr)
		freed := time.Now()
		if err := mf.settle(); err != nil {
			return nil, err
		}
		settled := time.Now()
		to.add("allocateNs", float64(allocated.Sub(start)))
		to.add("decRefNs", float64(freed.Sub(allocated)))
		to.add("nsPerPair", float64(freed.Sub(start)))
		to.add("nsPerPairSettled", float64(settled.Sub(start)))
	}
	size := mf.TotalSize()
	mf.destroy()
	return result{
		"args":           effective,
		"first":          first.medians(),
		"samples":        s,
		"median":         s.medians(),
		"totalSizeBytes": size,
	}, nil
}
