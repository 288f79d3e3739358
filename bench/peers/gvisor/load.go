package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

type loadFlags struct {
	dir          string
	await        int
	interval     time.Duration
	seed         uint
	rounds       int
	cold, verify bool
	image        image
}

// awaits are one round's awaited pages, in the order in which they began.
type awaits struct {
	StartNs []int64 `json:"startNs"` // since the load began
	Ns      []int64 `json:"ns"`      // until the page's bytes had been read
	Loading []bool  `json:"loading"` // whether pages were still missing at the start
}

func runLoad(args []string) (result, error) {
	var f loadFlags
	var given image
	fs := flag.NewFlagSet("load", flag.ExitOnError)
	fs.StringVar(&f.dir, "dir", "", "directory of the checkpoint")
	fs.IntVar(&f.await, "await", 0, "random pages to await while loading, at most")
	fs.DurationVar(&f.interval, "interval", 2*time.Millisecond, "time between the starts of two awaits; 0: each starts when the last has ended")
	fs.UintVar(&f.seed, "seed", 1, "seed of the awaited pages; round r (from 0) uses seed + r")
	fs.IntVar(&f.rounds, "rounds", 5, "loads, each into a new MemoryFile")
	fs.BoolVar(&f.cold, "cold", false, "drop the image from the page cache before each load; otherwise it is read into it")
	fs.BoolVar(&f.verify, "verify", false, "check every page after each load")
	fs.Uint64Var(&given.Bytes, "bytes", 0, "bytes of the image, where there is no image.json")
	fs.StringVar(&given.Pattern, "pattern", "", "pattern of the image, where there is no image.json")
	effective := parse(fs, args)
	if f.dir == "" || f.rounds < 1 || f.await < 0 || f.interval < 0 || f.seed > 1<<32-1 {
		return nil, fmt.Errorf("-dir is needed, -rounds must be positive, -await and -interval not negative")
	}
	var err error
	if given.Bytes != 0 || given.Pattern != "" {
		f.image, err = given, given.validate()
	} else {
		f.image, err = readImage(f.dir)
	}
	if err != nil {
		return nil, err
	}

	s := make(samples)
	var all []awaits
	var pooled []float64
	for round := range f.rounds {
		a, err := f.round(round, s)
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", round, err)
		}
		var whileLoading []float64
		for i, ns := range a.Ns {
			if a.Loading[i] {
				whileLoading = append(whileLoading, float64(ns))
			}
		}
		if f.await > 0 {
			s.add("awaitsWhileLoading", float64(len(whileLoading)))
			s.add("awaitP50Ns", percentile(whileLoading, 0.5))
			s.add("awaitP99Ns", percentile(whileLoading, 0.99))
			s.add("awaitMaxNs", percentile(whileLoading, 1))
			pooled = append(pooled, whileLoading...)
			all = append(all, a)
		}
	}
	return result{
		"args":        effective,
		"image":       f.image,
		"loadedBytes": f.image.filledBytes(),
		"cold":        f.cold,
		"verified":    f.verify,
		"samples":     s,
		"median":      s.medians(),
		"awaits":      all,
		"awaitsPooled": map[string]float64{
			"count": float64(len(pooled)),
			"p50Ns": percentile(pooled, 0.5),
			"p99Ns": percentile(pooled, 0.99),
			"maxNs": percentile(pooled, 1),
		},
	}, nil
}

func (f *loadFlags) round(round int, s samples) (awaits, error) {
	resident, err := f.prepareCache()
	if err != nil {
		return awaits{}, err
	}
	s.add("residentFractionBefore", resident)
	runtime.GC()

	cpu := cpuTime()
	start := time.Now()
	l, err := startLoad(f.dir, pgalloc.MemoryFileOpts{})
	if err != nil {
		return awaits{}, err
	}
	defer l.mf.destroy()
	s.add("loadFromReturnsSeconds", time.Since(start).Seconds())
	a, err := f.awaitPages(l.mf, start, newRNG(uint32(f.seed)+uint32(round)))
	if err != nil {
		return a, err
	}
	loadedAt, err := l.wait()
	if err != nil {
		return a, err
	}
	seconds := loadedAt.Sub(start).Seconds()
	s.add("allLoadedSeconds", seconds)
	s.add("gibPerSecond", float64(l.end)/(1<<30)/seconds)
	s.add("cpuSeconds", (cpuTime() - cpu).Seconds())
	if len(a.Ns) > 0 {
		s.add("firstPageSeconds", float64(a.StartNs[0]+a.Ns[0])/1e9)
	}
	if l.end != f.image.filledBytes() {
		return a, fmt.Errorf("loaded %d bytes, the image has %d", l.end, f.image.filledBytes())
	}
	if f.verify {
		if err := f.image.verify(l.mf); err != nil {
			return a, err
		}
	}
	return a, nil
}

// prepareCache makes the image cold or hot and returns how much of its pages
// file is in the page cache then.
func (f *loadFlags) prepareCache() (float64, error) {
	for _, name := range []string{metaName, pagesName} {
		path := filepath.Join(f.dir, name)
		prepare := warmCache
		if f.cold {
			prepare = dropCache
		}
		if err := prepare(path); err != nil {
			return 0, err
		}
	}
	return residentFraction(filepath.Join(f.dir, pagesName))
}

// awaitPages awaits random filled pages: page = below(pages), and in a
// fragmented image page - 1 where that page is zero. With an interval, await i
// starts i intervals after the first, whether or not earlier ones have ended,
// each in a goroutine of its own, so that a slow one does not hide what others
// would have met. No new await starts once all is loaded, except the first.
func (f *loadFlags) awaitPages(mf *memoryFile, start time.Time, r *rng) (awaits, error) {
	a := awaits{
		StartNs: make([]int64, 0, f.await),
		Ns:      make([]int64, f.await),
		Loading: make([]bool, 0, f.await),
	}
	var (
		wg   sync.WaitGroup
		errs = make([]error, f.await)
	)
	first := time.Now()
	for i := range f.await {
		page := r.below(f.image.pages())
		if f.image.zero(page) {
			page--
		}
		if f.interval > 0 && i > 0 {
			time.Sleep(time.Until(first.Add(time.Duration(i) * f.interval)))
		}
		loading := mf.IsAsyncLoading()
		if !loading && i > 0 {
			break
		}
		begin := time.Now()
		a.StartNs = append(a.StartNs, begin.Sub(start).Nanoseconds())
		a.Loading = append(a.Loading, loading)
		one := func() {
			errs[i] = awaitPage(mf, page)
			a.Ns[i] = time.Since(begin).Nanoseconds()
		}
		if f.interval > 0 {
			wg.Go(one)
		} else {
			one()
		}
	}
	wg.Wait()
	a.Ns = a.Ns[:len(a.StartNs)]
	for _, err := range errs {
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

// awaitPage waits for one page and reads a word of it.
func awaitPage(mf *memoryFile, page uint32) error {
	at := uint64(page) * pageSize
	blocks, err := mf.MapInternal(memmap.FileRange{Start: at, End: at + pageSize}, hostarch.Read)
	if err != nil {
		return err
	}
	const o = pageSize - 8
	if word := binary.LittleEndian.Uint64(blocks.Head().ToSlice()[o:]); word != uint64(page)*stampFactor+o {
		return fmt.Errorf("awaited page %d holds %#x at byte %d", page, word, o)
	}
	return nil
}
