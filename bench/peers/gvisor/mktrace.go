package main

import (
	"encoding/json"
	"errors"
	"flag"
	"os"

	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

// operation is one line of a trace with gVisor's answer to it.
type operation struct {
	Op     string `json:"op"`
	Length uint64 `json:"length,omitempty"`
	Start  uint64 `json:"start"`
	End    uint64 `json:"end"`
	Dir    string `json:"dir,omitempty"`
	Huge   bool   `json:"huge,omitempty"`
	Result any    `json:"result,omitempty"`
}

// tracer writes down what it asks of a random file, and the answers. It settles
// before it allocates and after it drops huge pages: what becomes of waste
// depends on when the releaser gets to it otherwise.
type tracer struct {
	maker
	ops      []operation
	hasWaste bool
}

func runMktrace(args []string) (result, error) {
	fs := flag.NewFlagSet("mktrace", flag.ExitOnError)
	out := fs.String("out", "", "file for the trace")
	seed := fs.Uint("seed", 1, "seed of all that is random")
	count := fs.Int("ops", 3000, "operations")
	effective := parse(fs, args)
	if *out == "" {
		return nil, errors.New("-out is needed")
	}
	mf, err := newMemoryFile(pgalloc.MemoryFileOpts{ExpectHugepages: true})
	if err != nil {
		return nil, err
	}
	defer mf.destroy()
	t := &tracer{maker: maker{mf: mf, rng: newRNG(uint32(*seed)), pages: make(map[uint64]*filePage), index: 1}}
	for len(t.ops) < *count {
		if err := t.step(); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(t.ops)
	if err != nil {
		return nil, err
	}
	return result{"args": effective, "operations": len(t.ops)}, os.WriteFile(*out, data, 0o644)
}

func (t *tracer) log(op string, fr memmap.FileRange, answer any) {
	t.ops = append(t.ops, operation{Op: op, Start: fr.Start, End: fr.End, Result: answer})
}

func (t *tracer) settle() error {
	t.hasWaste = false
	t.log("settle", memmap.FileRange{}, nil)
	return t.mf.settle()
}

func (t *tracer) step() error {
	dice := t.rng.below(100)
	if len(t.alloc) == 0 || dice < 35 {
		return t.allocate()
	}
	fr, ok := t.pick()
	if !ok {
		return nil
	}
	switch {
	case dice < 50:
		t.mf.IncRef(fr, 0)
		t.each(fr, func(p *filePage) { p.live.Refs++ })
		t.log("incRef", fr, nil)
	case dice < 80:
		huge := t.pages[fr.Start].live.Huge
		t.log("decRef", fr, nil)
		t.drop(fr)
		t.hasWaste = true
		if huge {
			return t.settle()
		}
	case dice < 90:
		t.log("unique", fr, t.mf.HasUniqueRef(fr))
	default:
		var answer any
		if shared, any := t.mf.FirstSharedRange(fr); any {
			answer = []uint64{shared.Start, shared.End}
		}
		t.log("shared", fr, answer)
	}
	return nil
}

func (t *tracer) allocate() error {
	if t.hasWaste {
		if err := t.settle(); err != nil {
			return err
		}
	}
	op := operation{Op: "alloc", Dir: "bottomUp", Huge: t.chance(20), Length: uint64(1+t.rng.below(64)) * pageSize}
	dir := pgalloc.BottomUp
	if t.chance(40) {
		op.Dir, dir = "topDown", pgalloc.TopDown
	}
	switch {
	case op.Huge:
		op.Length = uint64(1+t.rng.below(5)) * hugePageSize
	case t.chance(5):
		op.Length = uint64(1+t.rng.below(5000)) * pageSize
	case t.chance(1):
		op.Length = 1<<29 + uint64(t.rng.below(300000))*pageSize
	}
	fr, err := t.mf.Allocate(op.Length, pgalloc.AllocOpts{Kind: usage.Anonymous, Huge: op.Huge, Dir: dir})
	if err != nil {
		return err
	}
	op.Start, op.End = fr.Start, fr.End
	for at := fr.Start; at < fr.End; at += pageSize {
		t.pages[at] = &filePage{live: liveRange{Start: at, End: at + pageSize, Refs: 1, Huge: op.Huge}}
	}
	t.alloc = append(t.alloc, fr)
	t.ops = append(t.ops, op)
	return nil
}
