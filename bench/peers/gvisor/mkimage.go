package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/state/stateio"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

// runMkimage writes the same image once per round, each time from a new
// MemoryFile: a second save of the same one would know already which pages are
// committed, and would skip the scan.
func runMkimage(args []string) (result, error) {
	var im image
	fs := flag.NewFlagSet("mkimage", flag.ExitOnError)
	dir := fs.String("dir", "", "directory of the checkpoint, made if absent")
	fs.Uint64Var(&im.Bytes, "bytes", 64<<20, "bytes to allocate")
	fs.StringVar(&im.Pattern, "pattern", "dense", "dense or fragmented")
	rounds := fs.Int("rounds", 1, "saves, each of a new MemoryFile over the same files")
	effective := parse(fs, args)
	if *dir == "" || *rounds < 1 {
		return nil, fmt.Errorf("-dir is needed, -rounds must be positive")
	}
	if err := im.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return nil, err
	}
	s := make(samples)
	for range *rounds {
		if err := im.round(*dir, s); err != nil {
			return nil, err
		}
	}
	if err := im.write(*dir); err != nil {
		return nil, err
	}
	res := result{"args": effective, "samples": s, "median": s.medians()}
	for key, name := range map[string]string{"metaBytes": metaName, "pagesBytes": pagesName} {
		st, err := os.Stat(filepath.Join(*dir, name))
		if err != nil {
			return nil, err
		}
		res[key] = st.Size()
	}
	if res["pagesBytes"] != int64(im.filledBytes()) {
		return nil, fmt.Errorf("%s has %d bytes, want %d", pagesName, res["pagesBytes"], im.filledBytes())
	}
	return res, nil
}

func (im image) round(dir string, s samples) error {
	mf, err := newMemoryFile(pgalloc.MemoryFileOpts{})
	if err != nil {
		return err
	}
	defer mf.destroy()
	start := time.Now()
	fr, err := mf.Allocate(im.Bytes, pgalloc.AllocOpts{Kind: usage.Anonymous})
	if err != nil {
		return err
	}
	if fr.Start != 0 {
		return fmt.Errorf("the first allocation is at %#x, not at 0", fr.Start)
	}
	err = mf.forPages(fr, func(offset uint64, page []byte) error {
		if index := uint32(offset / pageSize); !im.zero(index) {
			stampPage(page, uint64(index))
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.add("fillSeconds", time.Since(start).Seconds())
	return mf.save(dir, fr, s)
}

// save does what a kernel's save does for its main MemoryFile: the pages go to
// their own file asynchronously, and the metadata file is closed meanwhile.
func (m *memoryFile) save(dir string, fr memmap.FileRange, s samples) error {
	paths := []string{filepath.Join(dir, metaName), filepath.Join(dir, pagesName)}
	for _, p := range paths {
		// Freeing an old file's pages is not part of a save.
		if err := os.Remove(p); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	cpu := cpuTime()
	start := time.Now()
	meta, err := os.Create(paths[0])
	if err != nil {
		return err
	}
	defer meta.Close()
	pagesFD, err := unix.Open(paths[1], unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("open %s: %w", paths[1], err)
	}
	saved := make(chan error, 1)
	apfs, err := pgalloc.StartAsyncPagesFileSave(stateio.NewPagesFileFDWriterDefault(int32(pagesFD)), func(err error) {
		saved <- err
	})
	if err != nil {
		return err
	}
	metaWriter := stateio.NewBufioWriteCloser(meta)
	err = m.SaveTo(context.Background(), metaWriter, &pgalloc.SaveOpts{PagesFile: apfs})
	returned := time.Since(start)
	if cerr := metaWriter.Close(); err == nil {
		err = cerr
	}
	apfs.MemoryFilesDone()
	if serr := <-saved; err == nil {
		err = serr
	}
	if err != nil {
		return fmt.Errorf("saving %v: %w", fr, err)
	}
	written := time.Now()
	s.add("saveToReturnsSeconds", returned.Seconds())
	s.add("saveSeconds", written.Sub(start).Seconds())
	s.add("saveCPUSeconds", (cpuTime() - cpu).Seconds())
	for _, p := range append(paths, dir) {
		if err := syncPath(p); err != nil {
			return err
		}
	}
	s.add("syncSeconds", time.Since(written).Seconds())
	s.add("saveAndSyncSeconds", time.Since(start).Seconds())
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
