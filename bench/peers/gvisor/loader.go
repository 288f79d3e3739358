package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/state/stateio"
)

// loading is a load from a pages file that goes on after LoadFrom returned.
type loading struct {
	mf *memoryFile

	// end is the offset in the pages file behind this MemoryFile's pages.
	end uint64

	// loaded gets the time at which all pages were in place.
	loaded chan time.Time

	// done gets the error that ended the load, or nil, once the pages file is closed.
	done chan error
}

// startLoad does what a kernel's restore does for its main MemoryFile, with the
// default reader: reads of 256 KiB, 128 at a time, each by a goroutine.
func startLoad(dir string, opts pgalloc.MemoryFileOpts) (*loading, error) {
	meta, err := os.Open(filepath.Join(dir, metaName))
	if err != nil {
		return nil, err
	}
	defer meta.Close()
	path := filepath.Join(dir, pagesName)
	pagesFD, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	l := &loading{loaded: make(chan time.Time, 1), done: make(chan error, 1)}
	if l.mf, err = newMemoryFile(opts); err != nil {
		unix.Close(pagesFD)
		return nil, err
	}
	apfl, err := pgalloc.StartAsyncPagesFileLoad(stateio.NewPagesFileFDReaderDefault(int32(pagesFD)), func(err error) {
		l.done <- err
	}, nil)
	if err != nil {
		return nil, err
	}
	load := pgalloc.LoadOpts{
		PagesFile:    apfl,
		DoneCallback: func(error) { l.loaded <- time.Now() },
	}
	err = l.mf.LoadFrom(context.Background(), stateio.NewBufioReadCloser(meta), &load)
	l.end = load.PagesFileOffset
	apfl.MemoryFilesDone()
	if err != nil {
		return nil, errors.Join(err, <-l.done)
	}
	return l, nil
}

// wait blocks until all pages are in place and the pages file is closed. It does
// not await the pages as a reader would, which would reorder the load.
func (l *loading) wait() (time.Time, error) {
	at := <-l.loaded
	return at, <-l.done
}
