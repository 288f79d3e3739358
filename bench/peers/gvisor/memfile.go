package main

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/memutil"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

const pageSize = hostarch.PageSize

// memoryFile is a MemoryFile on a memfd with gVisor's default options.
type memoryFile struct {
	*pgalloc.MemoryFile

	// haveWaste is a window on the field of that name, which is true from the
	// DecRef that makes waste until the releaser has nothing left to release.
	// It is invalid where the module has no such field.
	haveWaste reflect.Value
}

func newMemoryFile(opts pgalloc.MemoryFileOpts) (*memoryFile, error) {
	const name = "gvisor-peer"
	fd, err := memutil.CreateMemFD(name, 0)
	if err != nil {
		return nil, fmt.Errorf("creating memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	mf, err := pgalloc.NewMemoryFile(file, opts)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("creating MemoryFile: %w", err)
	}
	m := &memoryFile{MemoryFile: mf}
	if f := reflect.ValueOf(mf).Elem().FieldByName("haveWaste"); f.IsValid() && f.Kind() == reflect.Bool {
		m.haveWaste = f
	}
	return m, nil
}

// settle waits until the releaser has released all waste. The package exports
// nothing that tells, so this reads (never writes) the flag the releaser keeps.
func (m *memoryFile) settle() error {
	if !m.haveWaste.IsValid() {
		return fmt.Errorf("pgalloc.MemoryFile has no haveWaste field any more")
	}
	for spins := 0; m.haveWaste.Bool(); spins++ {
		if spins < 1000 {
			runtime.Gosched()
		} else {
			time.Sleep(50 * time.Microsecond)
		}
	}
	return nil
}

// destroy gives the memory back before it returns; Destroy alone would leave
// that to another goroutine, and so to the next round's measurement.
func (m *memoryFile) destroy() {
	m.File().Truncate(0)
	m.Destroy()
	runtime.GC()
	time.Sleep(20 * time.Millisecond)
}

// allocate is an uncommitted, bottom-up allocation of small pages.
func (m *memoryFile) allocate(pages uint32) (memmap.FileRange, error) {
	return m.Allocate(uint64(pages)*pageSize, pgalloc.AllocOpts{
		Kind: usage.Anonymous,
		Mode: pgalloc.AllocateUncommitted,
		Dir:  pgalloc.BottomUp,
	})
}

func (m *memoryFile) fill(pages []uint32) ([]memmap.FileRange, error) {
	ranges := make([]memmap.FileRange, len(pages))
	for i, n := range pages {
		fr, err := m.allocate(n)
		if err != nil {
			return nil, fmt.Errorf("allocating %d pages: %w", n, err)
		}
		ranges[i] = fr
	}
	return ranges, nil
}
