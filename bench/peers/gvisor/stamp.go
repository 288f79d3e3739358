package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

const (
	metaName  = "pages_meta.img"
	pagesName = "pages.img"
	imageName = "image.json"
)

// A stamped page of index i holds, at each byte offset o that is a multiple of
// 8, the little-endian word i*stampFactor + o modulo 2^64.
const stampFactor = 0x9E3779B97F4A7C15

func stampPage(page []byte, index uint64) {
	base := index * stampFactor
	for o := 0; o < len(page); o += 8 {
		binary.LittleEndian.PutUint64(page[o:], base+uint64(o))
	}
}

// stampMismatch returns the offset of the first wrong word, or -1.
func stampMismatch(page []byte, index uint64) int {
	base := index * stampFactor
	for o := 0; o < len(page); o += 8 {
		if binary.LittleEndian.Uint64(page[o:]) != base+uint64(o) {
			return o
		}
	}
	return -1
}

// zeroMismatch returns the offset of the first word that is not zero, or -1.
func zeroMismatch(page []byte) int {
	for o := 0; o < len(page); o += 8 {
		if binary.LittleEndian.Uint64(page[o:]) != 0 {
			return o
		}
	}
	return -1
}

// image describes what mkimage wrote: one allocation from offset 0, where page
// i is stamped with index i; "fragmented" leaves every page with i%4 == 3 zero.
type image struct {
	Bytes   uint64 `json:"bytes"`
	Pattern string `json:"pattern"`
}

func (im image) validate() error {
	if im.Bytes == 0 || im.Bytes%pageSize != 0 || im.Bytes/pageSize > 1<<32-1 {
		return fmt.Errorf("bytes must be a positive multiple of %d", pageSize)
	}
	if im.Pattern != "dense" && im.Pattern != "fragmented" {
		return fmt.Errorf("pattern must be dense or fragmented, not %q", im.Pattern)
	}
	return nil
}

func (im image) pages() uint32 {
	return uint32(im.Bytes / pageSize)
}

func (im image) zero(page uint32) bool {
	return im.Pattern == "fragmented" && page%4 == 3
}

// filledBytes is what the pages file holds.
func (im image) filledBytes() uint64 {
	if im.Pattern == "dense" {
		return im.Bytes
	}
	return im.Bytes - uint64(im.pages()/4)*pageSize
}

func readImage(dir string) (image, error) {
	var im image
	data, err := os.ReadFile(filepath.Join(dir, imageName))
	if err != nil {
		return im, err
	}
	if err := json.Unmarshal(data, &im); err != nil {
		return im, fmt.Errorf("%s: %w", imageName, err)
	}
	return im, im.validate()
}

func (im image) write(dir string) error {
	data, err := json.Marshal(im)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, imageName), append(data, '\n'), 0o644)
}

// forPages calls fn with the mapping of each page of fr, in order.
func (m *memoryFile) forPages(fr memmap.FileRange, fn func(offset uint64, page []byte) error) error {
	blocks, err := m.MapInternal(fr, hostarch.ReadWrite)
	if err != nil {
		return err
	}
	offset := fr.Start
	for ; !blocks.IsEmpty(); blocks = blocks.Tail() {
		slice := blocks.Head().ToSlice()
		for at := 0; at < len(slice); at += pageSize {
			if err := fn(offset, slice[at:at+pageSize]); err != nil {
				return err
			}
			offset += pageSize
		}
	}
	return nil
}

// verify checks every page of a loaded image.
func (im image) verify(m *memoryFile) error {
	return m.forPages(memmap.FileRange{Start: 0, End: im.Bytes}, func(offset uint64, page []byte) error {
		index := uint32(offset / pageSize)
		if im.zero(index) {
			if o := zeroMismatch(page); o >= 0 {
				return fmt.Errorf("page %d should be zero, is not at byte %d", index, o)
			}
		} else if o := stampMismatch(page, uint64(index)); o >= 0 {
			return fmt.Errorf("page %d has a wrong stamp at byte %d", index, o)
		}
		return nil
	})
}
