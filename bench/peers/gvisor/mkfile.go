package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

const hugePageSize = 2 << 20

// filePage is what the maker knows of a live page.
type filePage struct {
	live  liveRange // of this page
	index uint64    // 0: the page is zero
}

// maker fills a MemoryFile at random and keeps, page by page, what a
// checkpoint of it must hold.
type maker struct {
	mf    *memoryFile
	rng   *rng
	shape string
	pages map[uint64]*filePage
	alloc []memmap.FileRange
	index uint64
}

// runMkfile writes one checkpoint of a random file in either form, and the
// expected.json that says what is in it.
func runMkfile(args []string) (result, error) {
	fs := flag.NewFlagSet("mkfile", flag.ExitOnError)
	dir := fs.String("dir", "", "directory of the checkpoint, made if absent")
	seed := fs.Uint("seed", 1, "seed of all that is random")
	shape := fs.String("shape", "mixed", "empty, small, huge, mixed or many")
	inline := fs.Bool("inline", false, "write the form without a pages file")
	effective := parse(fs, args)
	if *dir == "" {
		return nil, errors.New("-dir is needed")
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return nil, err
	}
	m, err := makeFile(*shape, uint32(*seed))
	if err != nil {
		return nil, err
	}
	defer m.mf.destroy()
	want := m.expected()
	if *inline {
		err = m.saveInline(*dir)
	} else {
		err = m.mf.save(*dir, memmap.FileRange{}, make(samples))
	}
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(*dir, "expected.json"), data, 0o644); err != nil {
		return nil, err
	}
	return result{"args": effective, "liveRanges": len(want.Live), "filledPages": len(want.Filled)}, nil
}

// makeFile makes a random file of a shape; its waste is released.
func makeFile(shape string, seed uint32) (*maker, error) {
	steps, ok := map[string]int{"empty": 0, "small": 60, "huge": 40, "mixed": 80, "many": 1500}[shape]
	if !ok {
		return nil, fmt.Errorf("there is no shape %q", shape)
	}
	mf, err := newMemoryFile(pgalloc.MemoryFileOpts{ExpectHugepages: true})
	if err != nil {
		return nil, err
	}
	m := &maker{mf: mf, rng: newRNG(seed), shape: shape, pages: make(map[uint64]*filePage), index: 1}
	for range steps {
		if err := m.step(); err != nil {
			return nil, err
		}
	}
	return m, mf.settle()
}

func (m *maker) saveInline(dir string) error {
	meta, err := os.Create(filepath.Join(dir, metaName))
	if err != nil {
		return err
	}
	if err := m.mf.SaveTo(context.Background(), meta, &pgalloc.SaveOpts{}); err != nil {
		meta.Close()
		return err
	}
	return meta.Close()
}

func (m *maker) chance(percent uint32) bool {
	return m.rng.below(100) < percent
}

func (m *maker) step() error {
	dice := m.rng.below(100)
	switch {
	case m.shape == "mixed" && dice < 4:
		return m.allocateLarge()
	case len(m.alloc) == 0 || dice < 40:
		return m.allocate()
	case dice < 55:
		if fr, ok := m.pick(); ok {
			m.mf.IncRef(fr, 0)
			m.each(fr, func(p *filePage) { p.live.Refs++ })
		}
	case dice < 75:
		if fr, ok := m.pick(); ok {
			m.drop(fr)
		}
	case dice < 93:
		return m.stamp()
	case dice < 96:
		if fr, ok := m.pick(); ok {
			m.mf.Decommit(fr)
			m.each(fr, func(p *filePage) { p.index = 0 })
		}
	case dice < 98:
		// What is committed now is saved even where it is zero.
		return m.mf.UpdateUsage(nil)
	default:
		return m.mf.settle()
	}
	return nil
}

func (m *maker) allocate() error {
	huge := m.shape == "huge" || m.shape == "mixed" && m.chance(50)
	length := uint64(1+m.rng.below(4)) * hugePageSize
	if !huge {
		most := uint32(20)
		if m.chance(20) {
			most = 600
		}
		length = uint64(1+m.rng.below(most)) * pageSize
	}
	return m.take(length, huge, usage.MemoryKind(m.rng.below(6)), m.rng.below(4))
}

// allocateLarge makes the file begin another chunk, of which the edges stay in use.
func (m *maker) allocateLarge() error {
	if err := m.take(1<<29+uint64(m.rng.below(100))*pageSize, false, usage.Anonymous, 0); err != nil {
		return err
	}
	fr := m.alloc[len(m.alloc)-1]
	m.drop(memmap.FileRange{Start: fr.Start + 8*pageSize, End: fr.End - 8*pageSize})
	m.alloc[len(m.alloc)-1] = memmap.FileRange{Start: fr.Start, End: fr.Start + 8*pageSize}
	return nil
}

func (m *maker) take(length uint64, huge bool, kind usage.MemoryKind, group uint32) error {
	dir := pgalloc.BottomUp
	if m.chance(50) {
		dir = pgalloc.TopDown
	}
	fr, err := m.mf.Allocate(length, pgalloc.AllocOpts{Kind: kind, MemCgID: group, Huge: huge, Dir: dir})
	if err != nil {
		return err
	}
	for at := fr.Start; at < fr.End; at += pageSize {
		m.pages[at] = &filePage{live: liveRange{Start: at, End: at + pageSize, Refs: 1, Kind: uint32(kind), Group: group, Huge: huge}}
	}
	m.alloc = append(m.alloc, fr)
	return nil
}

// pick returns some pages of an allocation, if all of them are live.
func (m *maker) pick() (memmap.FileRange, bool) {
	fr := m.alloc[m.rng.below(uint32(len(m.alloc)))]
	if !m.chance(40) {
		pages := uint32(fr.Length() / pageSize)
		first := m.rng.below(pages)
		fr.Start += uint64(first) * pageSize
		fr.End = fr.Start + uint64(1+m.rng.below(pages-first))*pageSize
	}
	for at := fr.Start; at < fr.End; at += pageSize {
		if m.pages[at] == nil {
			return fr, false
		}
	}
	return fr, true
}

func (m *maker) each(fr memmap.FileRange, fn func(*filePage)) {
	for at := fr.Start; at < fr.End; at += pageSize {
		fn(m.pages[at])
	}
}

func (m *maker) drop(fr memmap.FileRange) {
	m.mf.DecRef(fr)
	m.each(fr, func(p *filePage) {
		if p.live.Refs--; p.live.Refs == 0 {
			delete(m.pages, p.live.Start)
		}
	})
}

// stamp writes to some pages of a range, zeros to some of those.
func (m *maker) stamp() error {
	fr, ok := m.pick()
	if !ok {
		return nil
	}
	fr.End = min(fr.End, fr.Start+200*pageSize)
	every := uint64(1 + m.rng.below(4))
	return m.mf.forPages(fr, func(offset uint64, page []byte) error {
		if (offset-fr.Start)/pageSize%every != 0 {
			return nil
		}
		p := m.pages[offset]
		p.index = 0
		clear(page)
		if !m.chance(20) {
			p.index = m.index
			m.index++
			stampPage(page, p.index)
		}
		return nil
	})
}

func (m *maker) expected() *expected {
	want := &expected{Filled: []filledPage{}, Live: []liveRange{}, TotalSize: m.mf.TotalSize()}
	offsets := make([]uint64, 0, len(m.pages))
	for at := range m.pages {
		offsets = append(offsets, at)
	}
	slices.Sort(offsets)
	for _, at := range offsets {
		p := m.pages[at]
		if p.index != 0 {
			want.Filled = append(want.Filled, filledPage{Offset: at, Index: p.index})
		}
		if n := len(want.Live); n > 0 {
			last := want.Live[n-1]
			same := p.live
			same.Start, same.End = last.Start, last.End
			if last.End == at && same == last {
				want.Live[n-1].End += pageSize
				continue
			}
		}
		want.Live = append(want.Live, p.live)
	}
	return want
}
