package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/checkpoint"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/state/stateio"
	"gvisor.dev/gvisor/pkg/state"
	"gvisor.dev/gvisor/pkg/state/wire"
)

// owners stands for the kernel's list of its private MemoryFiles, which is not
// exported: the same name and field in the stream, written and read by the same
// package state. (Importing the kernel would register its own and mean the whole
// sentry.)
type owners struct {
	owners []checkpoint.ResourceID
}

func (*owners) StateTypeName() string                         { return "pkg/sentry/kernel.privateMemoryFileMetadata" }
func (*owners) StateFields() []string                         { return []string{"owners"} }
func (o *owners) StateSave(s state.Sink)                      { s.Save(0, &o.owners) }
func (o *owners) StateLoad(_ context.Context, s state.Source) { s.Load(0, &o.owners) }

func init() {
	state.Register((*owners)(nil))
}

// The files of a kernel checkpoint in a directory: the main one, and each private
// one by its resource ID "container:path".
type kernelExpected struct {
	Main    *expected            `json:"main"`
	Private map[string]*expected `json:"private"`
	Order   []string             `json:"order"`
}

// runMkkernel saves a main MemoryFile and private ones as a kernel does: all
// metadata in one file, the list of owners behind the main one's, all pages in one.
func runMkkernel(args []string) (result, error) {
	fs := flag.NewFlagSet("mkkernel", flag.ExitOnError)
	dir := fs.String("dir", "", "directory of the checkpoint, made if absent")
	seed := fs.Uint("seed", 1, "seed of all that is random")
	count := fs.Int("private", 2, "private MemoryFiles")
	effective := parse(fs, args)
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return nil, err
	}
	want := kernelExpected{Private: make(map[string]*expected), Order: []string{}}
	var files []*memoryFile
	var ids owners
	for i := range *count + 1 {
		m, err := makeFile([]string{"small", "huge", "mixed", "empty"}[i%4], uint32(*seed)+uint32(i)*1000)
		if err != nil {
			return nil, err
		}
		defer m.mf.destroy()
		files = append(files, m.mf)
		if i == 0 {
			want.Main = m.expected()
			continue
		}
		id := checkpoint.ResourceID{ContainerName: fmt.Sprintf("c%d", i%2), Path: fmt.Sprintf("/dir/%d", i)}
		ids.owners = append(ids.owners, id)
		want.Private[id.String()] = m.expected()
		want.Order = append(want.Order, id.String())
	}
	if err := saveKernel(*dir, files, &ids); err != nil {
		return nil, err
	}
	data, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	return result{"args": effective, "files": len(files)}, os.WriteFile(filepath.Join(*dir, "kernel.json"), data, 0o644)
}

func saveKernel(dir string, files []*memoryFile, ids *owners) error {
	meta, err := os.Create(filepath.Join(dir, metaName))
	if err != nil {
		return err
	}
	defer meta.Close()
	fd, err := unix.Open(filepath.Join(dir, pagesName), unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	saved := make(chan error, 1)
	apfs, err := pgalloc.StartAsyncPagesFileSave(stateio.NewPagesFileFDWriterDefault(int32(fd)), func(err error) { saved <- err })
	if err != nil {
		return err
	}
	opts := pgalloc.SaveOpts{PagesFile: apfs}
	ctx := context.Background()
	err = files[0].SaveTo(ctx, meta, &opts)
	if err == nil {
		_, err = state.Save(ctx, meta, ids)
	}
	for _, mf := range files[1:] {
		if err == nil {
			err = mf.SaveTo(ctx, meta, &opts)
		}
	}
	apfs.MemoryFilesDone()
	return errors.Join(err, <-saved)
}

// runCheckKernel loads a kernel's checkpoint as the kernel does, and compares each
// file with kernel.json.
func runCheckKernel(args []string) (result, error) {
	fs := flag.NewFlagSet("checkkernel", flag.ExitOnError)
	dir := fs.String("dir", "", "directory of the checkpoint")
	effective := parse(fs, args)
	data, err := os.ReadFile(filepath.Join(*dir, "kernel.json"))
	if err != nil {
		return nil, err
	}
	var want kernelExpected
	if err := json.Unmarshal(data, &want); err != nil {
		return nil, err
	}
	meta, err := os.Open(filepath.Join(*dir, metaName))
	if err != nil {
		return nil, err
	}
	defer meta.Close()
	fd, err := unix.Open(filepath.Join(*dir, pagesName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	apfl, err := pgalloc.StartAsyncPagesFileLoad(stateio.NewPagesFileFDReaderDefault(int32(fd)), func(err error) { done <- err }, nil)
	if err != nil {
		return nil, err
	}
	opts := pgalloc.LoadOpts{PagesFile: apfl}
	files := make(map[string]*memoryFile)
	load := func(name string, huge bool) error {
		mf, err := newMemoryFile(pgalloc.MemoryFileOpts{ExpectHugepages: huge})
		if err != nil {
			return err
		}
		files[name] = mf
		return mf.LoadFrom(context.Background(), meta, &opts)
	}
	if err := load("", want.Main.huge()); err != nil {
		return nil, err
	}
	var ids owners
	if _, err := state.Load(context.Background(), &wire.Reader{Reader: meta}, &ids); err != nil {
		return nil, err
	}
	if len(ids.owners) != len(want.Private) {
		return nil, fmt.Errorf("there are %d private files, want %d", len(ids.owners), len(want.Private))
	}
	for i, id := range ids.owners {
		if id.String() != want.Order[i] {
			return nil, fmt.Errorf("private file %d is %q, want %q", i, id, want.Order[i])
		}
		if err := load(id.String(), want.Private[id.String()].huge()); err != nil {
			return nil, err
		}
	}
	apfl.MemoryFilesDone()
	if err := <-done; err != nil {
		return nil, err
	}
	if rest, err := io.Copy(io.Discard, meta); err != nil || rest != 0 {
		return nil, fmt.Errorf("%d bytes follow the last file's metadata, error %v", rest, err)
	}
	res := result{"args": effective, "files": len(files), "ok": true}
	for name, mf := range files {
		c := &checker{want: want.Main}
		if name != "" {
			c.want = want.Private[name]
		}
		if err := c.all(mf); err != nil {
			return nil, err
		}
		if len(c.mismatches) != 0 {
			return nil, fmt.Errorf("file %q: %v", name, c.mismatches)
		}
		mf.destroy()
	}
	return res, nil
}
