package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// checker collects what does not match, up to a limit.
type checker struct {
	want       *expected
	mismatches []string
	more       int
}

const maxMismatches = 20

func (c *checker) fail(format string, args ...any) {
	if len(c.mismatches) == maxMismatches {
		c.more++
		return
	}
	c.mismatches = append(c.mismatches, fmt.Sprintf(format, args...))
}

// runCheck loads a checkpoint with gVisor's own LoadFrom and compares, in this
// order: the contents of all live pages; the size; the metadata that gVisor
// writes back (references, kinds, groups, page sizes, and nothing else in use);
// and how it behaves: references are dropped one by one, after which the file
// must be empty and own no memory.
func runCheck(args []string) (res result, err error) {
	fs := flag.NewFlagSet("check", flag.ExitOnError)
	dir := fs.String("dir", "", "directory of the checkpoint")
	file := fs.String("expected", "", "expected.json; by default the one in the directory")
	effective := parse(fs, args)
	if *dir == "" {
		return nil, errors.New("-dir is needed")
	}
	if *file == "" {
		*file = filepath.Join(*dir, "expected.json")
	}
	want, err := readExpected(*file)
	if err != nil {
		return nil, err
	}
	c := &checker{want: want}
	res = result{
		"args":           effective,
		"liveRanges":     len(want.Live),
		"livePages":      want.livePages(),
		"filledPages":    len(want.Filled),
		"totalSizeBytes": want.TotalSize,
	}
	// gVisor answers broken metadata by panics.
	defer func() {
		if p := recover(); p != nil {
			c.fail("gVisor panicked: %.400s", fmt.Sprint(p))
		}
		res["ok"] = len(c.mismatches) == 0
		if len(c.mismatches) != 0 {
			res["mismatches"] = c.mismatches
			err = fmt.Errorf("%s does not match %s:", *dir, *file)
			for _, m := range c.mismatches {
				err = fmt.Errorf("%w\n  %s", err, m)
			}
			if c.more != 0 {
				err = fmt.Errorf("%w\n  and %d more", err, c.more)
			}
		}
	}()

	form := "pages"
	if _, err := os.Stat(filepath.Join(*dir, pagesName)); os.IsNotExist(err) {
		form = "inline"
	}
	res["form"] = form
	mf, err := c.load(*dir, form)
	if err != nil {
		c.fail("gVisor does not load it: %v", err)
		return res, nil
	}
	return res, c.all(mf)
}

// all compares a loaded file with what is wanted, and empties it.
func (c *checker) all(mf *memoryFile) error {
	c.contents(mf)
	if size := mf.TotalSize(); size != c.want.TotalSize {
		c.fail("total size is %d, want %d", size, c.want.TotalSize)
	}
	if err := c.metadata(mf); err != nil {
		return err
	}
	if len(c.mismatches) != 0 {
		// Dropping references that are not there would only panic.
		return nil
	}
	return c.release(mf)
}

func (c *checker) load(dir, form string) (*memoryFile, error) {
	opts := pgalloc.MemoryFileOpts{ExpectHugepages: c.want.huge()}
	if form == "pages" {
		l, err := startLoad(dir, opts)
		if err != nil {
			return nil, err
		}
		if _, err := l.wait(); err != nil {
			return nil, err
		}
		st, err := os.Stat(filepath.Join(dir, pagesName))
		if err != nil {
			return nil, err
		}
		if uint64(st.Size()) != l.end {
			c.fail("%s has %d bytes, the metadata accounts for %d", pagesName, st.Size(), l.end)
		}
		return l.mf, nil
	}
	meta, err := os.Open(filepath.Join(dir, metaName))
	if err != nil {
		return nil, err
	}
	defer meta.Close()
	mf, err := newMemoryFile(opts)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(meta)
	if err := mf.LoadFrom(context.Background(), r, &pgalloc.LoadOpts{}); err != nil {
		return nil, err
	}
	rest, err := io.Copy(io.Discard, r)
	if err != nil {
		return nil, err
	}
	if rest != 0 {
		c.fail("%d bytes follow the last page in %s", rest, metaName)
	}
	return mf, nil
}

// contents checks every live page: stamped with its index, or zero.
func (c *checker) contents(mf *memoryFile) {
	index := make(map[uint64]uint64, len(c.want.Filled))
	for _, f := range c.want.Filled {
		index[f.Offset] = f.Index
	}
	for _, live := range c.want.Live {
		if live.End > mf.TotalSize() {
			c.fail("live range %v lies beyond the end of the file, %#x", live, mf.TotalSize())
			continue
		}
		err := mf.forPages(live.fileRange(), func(offset uint64, page []byte) error {
			if i, filled := index[offset]; filled {
				if o := stampMismatch(page, i); o >= 0 {
					c.fail("page at %#x is not stamped with index %d: byte %d of it differs", offset, i, o)
				}
			} else if o := zeroMismatch(page); o >= 0 {
				c.fail("page at %#x is not zero: byte %d of it differs", offset, o)
			}
			return nil
		})
		if err != nil {
			c.fail("mapping live range %v: %v", live, err)
		}
	}
}

func (c *checker) dropPiece(mf *memoryFile, live liveRange, fr memmap.FileRange) {
	for refs := live.Refs; refs > 0; refs-- {
		if unique := mf.HasUniqueRef(fr); unique != (refs == 1) {
			c.fail("live range %v: HasUniqueRef is %t with %d references left", live, unique, refs)
		}
		shared, any := mf.FirstSharedRange(fr)
		if wantShared := (refs > 1); any != wantShared || any && shared != fr {
			c.fail("live range %v: FirstSharedRange is %v, %t with %d references left", live, shared, any, refs)
		}
		mf.DecRef(fr)
	}
}

// release drops all references and looks at what is left.
func (c *checker) release(mf *memoryFile) error {
	for _, live := range c.want.Live {
		for _, fr := range live.releasePieces() {
			c.dropPiece(mf, live, fr)
			if !live.Huge {
				continue
			}
			if err := mf.settle(); err != nil {
				return err
			}
		}
	}
	if err := mf.settle(); err != nil {
		return err
	}
	pb, err := saveMetadata(mf)
	if err != nil {
		return err
	}
	for _, r := range usedRanges(pb) {
		c.fail("after all references were dropped, %v is still in use", r)
	}
	if n := len(pb.MemAcct); n != 0 {
		c.fail("after all references were dropped, %d ranges are still accounted for", n)
	}
	if n := len(pb.Subreleased); n != 0 {
		c.fail("after all references were dropped, %d huge pages still have sub-released pages", n)
	}
	bytes, err := mf.TotalUsage()
	if err != nil {
		return err
	}
	if bytes != 0 {
		c.fail("after all references were dropped, the file still owns %d bytes", bytes)
	}
	// Every page must be free again: one allocation per run of chunks of a kind
	// fits exactly, without another chunk.
	for start := 0; start < len(pb.Chunks); {
		end := start
		for end < len(pb.Chunks) && pb.Chunks[end].Huge == pb.Chunks[start].Huge {
			end++
		}
		want := memmap.FileRange{Start: uint64(start) << chunkShift, End: uint64(end) << chunkShift}
		fr, err := mf.Allocate(want.Length(), pgalloc.AllocOpts{Huge: pb.Chunks[start].Huge})
		if err != nil {
			return err
		}
		if mf.TotalSize() != c.want.TotalSize {
			c.fail("after all references were dropped, %d bytes do not fit into %v: allocated at %v", want.Length(), want, fr)
			break
		}
		start = end
	}
	return nil
}
