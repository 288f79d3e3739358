package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	pgallocpb "gvisor.dev/gvisor/pkg/sentry/pgalloc/pgalloc_metadata_go_proto"
)

const chunkShift = 30

// expected is what a checkpoint must contain. Offsets are bytes in the
// MemoryFile. All live pages that are not listed as filled are zero.
type expected struct {
	Filled    []filledPage `json:"filled"`
	Live      []liveRange  `json:"live"`
	TotalSize uint64       `json:"totalSize"`
}

type filledPage struct {
	Offset uint64 `json:"offset"`
	Index  uint64 `json:"index"`
}

type liveRange struct {
	Start uint64 `json:"start"`
	End   uint64 `json:"end"`
	Refs  uint64 `json:"refs"`
	Kind  uint32 `json:"kind"`
	Group uint32 `json:"group"`
	Huge  bool   `json:"huge"`
}

func (l liveRange) fileRange() memmap.FileRange {
	return memmap.FileRange{Start: l.Start, End: l.End}
}

// releasePieces cuts a huge range where its first and last whole huge page begin
// and end. When gVisor releases several huge pages at once it does not count
// the pages at the ragged ends (releaseLocked returns before it stores their
// count), so their huge pages are freed only if each is released by itself.
func (l liveRange) releasePieces() []memmap.FileRange {
	fr := l.fileRange()
	if !l.Huge {
		return []memmap.FileRange{fr}
	}
	first := min(fr.End, (fr.Start+hugePageSize-1)/hugePageSize*hugePageSize)
	last := max(first, fr.End/hugePageSize*hugePageSize)
	var pieces []memmap.FileRange
	for _, piece := range []memmap.FileRange{{Start: fr.Start, End: first}, {Start: first, End: last}, {Start: last, End: fr.End}} {
		if piece.Length() != 0 {
			pieces = append(pieces, piece)
		}
	}
	return pieces
}

func (l liveRange) String() string {
	return fmt.Sprintf("[%#x, %#x)", l.Start, l.End)
}

func readExpected(path string) (*expected, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e := new(expected)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	slices.SortFunc(e.Live, func(a, b liveRange) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	for i, l := range e.Live {
		if l.Start >= l.End || l.Start%pageSize != 0 || l.End%pageSize != 0 || l.Refs == 0 || l.End > e.TotalSize {
			return nil, fmt.Errorf("%s: live range %v with %d references makes no sense", path, l, l.Refs)
		}
		if i > 0 && e.Live[i-1].End > l.Start {
			return nil, fmt.Errorf("%s: live ranges %v and %v overlap", path, e.Live[i-1], l)
		}
	}
	for _, f := range e.Filled {
		i := sort.Search(len(e.Live), func(i int) bool { return e.Live[i].End > f.Offset })
		if f.Offset%pageSize != 0 || i == len(e.Live) || f.Offset < e.Live[i].Start {
			return nil, fmt.Errorf("%s: filled page at %#x is not in a live range", path, f.Offset)
		}
	}
	return e, nil
}

func (e *expected) livePages() uint64 {
	pages := uint64(0)
	for _, l := range e.Live {
		pages += (l.End - l.Start) / pageSize
	}
	return pages
}

func (e *expected) huge() bool {
	return slices.ContainsFunc(e.Live, func(l liveRange) bool { return l.Huge })
}

// metaSink keeps the length-prefixed metadata at the start of a saved stream and
// lets the page contents behind it go.
type metaSink struct {
	buf  []byte
	need uint64 // 0 until the length is known
}

func (m *metaSink) Write(p []byte) (int, error) {
	for rest := p; len(rest) != 0; {
		limit := m.need
		if limit == 0 {
			limit = 8
		}
		n := min(limit-uint64(len(m.buf)), uint64(len(rest)))
		if n == 0 {
			break
		}
		m.buf = append(m.buf, rest[:n]...)
		rest = rest[n:]
		if m.need == 0 && len(m.buf) == 8 {
			m.need = 8 + binary.LittleEndian.Uint64(m.buf)
		}
	}
	return len(p), nil
}

// saveMetadata makes gVisor write its state and returns the metadata of it.
func saveMetadata(mf *memoryFile) (*pgallocpb.MemoryFileMetadataProto, error) {
	var sink metaSink
	if err := mf.SaveTo(context.Background(), &sink, &pgalloc.SaveOpts{}); err != nil {
		return nil, fmt.Errorf("saving again: %w", err)
	}
	pb := new(pgallocpb.MemoryFileMetadataProto)
	if err := proto.Unmarshal(sink.buf[8:], pb); err != nil {
		return nil, fmt.Errorf("reading the metadata saved again: %w", err)
	}
	return pb, nil
}

// usedRanges are the ranges with references, by address, neighbours apart.
func usedRanges(pb *pgallocpb.MemoryFileMetadataProto) []liveRange {
	var used []liveRange
	collect := func(ranges []*pgallocpb.UnfreeRangeProto, huge bool) {
		for _, r := range ranges {
			if r.Refs != 0 {
				used = append(used, liveRange{Start: r.Start, End: r.End, Refs: r.Refs, Huge: huge})
			}
		}
	}
	collect(pb.UnfreeSmall, false)
	collect(pb.UnfreeHuge, true)
	slices.SortFunc(used, func(a, b liveRange) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	return used
}

// metadata compares what gVisor made of the checkpoint with what is expected,
// page by page in effect: both sides are cut wherever either has a border.
func (c *checker) metadata(mf *memoryFile) error {
	pb, err := saveMetadata(mf)
	if err != nil {
		return err
	}
	for name, set := range map[string][]*pgallocpb.FileRangeProto{"small": pb.UnwasteSmall, "huge": pb.UnwasteHuge} {
		if len(set) != 1 || set[0].Start != 0 || set[0].End != math.MaxUint64 {
			c.fail("there is waste among the %s pages: all but %v", name, set)
		}
	}
	used := usedRanges(pb)
	acct := make([]liveRange, 0, len(pb.MemAcct))
	for _, r := range pb.MemAcct {
		acct = append(acct, liveRange{Start: r.Start, End: r.End, Kind: r.Kind, Group: r.MemCgId})
	}
	var cuts []uint64
	for _, set := range [][]liveRange{used, acct, c.want.Live} {
		for _, r := range set {
			cuts = append(cuts, r.Start, r.End)
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	for i := 1; i < len(cuts); i++ {
		at := liveRange{Start: cuts[i-1], End: cuts[i]}
		want, live := find(c.want.Live, at.Start)
		got, inUse := find(used, at.Start)
		account, accounted := find(acct, at.Start)
		switch {
		case !live && !inUse && !accounted:
		case !live:
			c.fail("%v should be free: in use %t with %d references, accounted for %t", at, inUse, got.Refs, accounted)
		case !inUse:
			c.fail("%v should have %d references, is not in use", at, want.Refs)
		case !accounted:
			c.fail("%v is in use, but not accounted for", at)
		default:
			if got.Refs != want.Refs {
				c.fail("%v has %d references, want %d", at, got.Refs, want.Refs)
			}
			if got.Huge != want.Huge {
				c.fail("%v is in a chunk of huge pages: %t, want %t", at, got.Huge, want.Huge)
			}
			if account.Kind != want.Kind || account.Group != want.Group {
				c.fail("%v is of kind %d, group %d, want kind %d, group %d", at, account.Kind, account.Group, want.Kind, want.Group)
			}
		}
	}
	return nil
}

// find returns the range that holds an address. Ranges are sorted and apart.
func find(ranges []liveRange, at uint64) (liveRange, bool) {
	i := sort.Search(len(ranges), func(i int) bool { return ranges[i].End > at })
	if i == len(ranges) || at < ranges[i].Start {
		return liveRange{}, false
	}
	return ranges[i], true
}
