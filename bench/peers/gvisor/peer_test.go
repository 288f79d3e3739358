package main

import (
	"os"
	"path/filepath"
	"testing"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

func TestMain(m *testing.M) {
	log.SetLevel(log.Warning)
	os.Exit(m.Run())
}

// The values other programs must reproduce; the README lists them too.
func TestTraceVectors(t *testing.T) {
	r := newRNG(1)
	for i, want := range []uint32{270369, 67634689, 2647435461, 307599695, 2398689233} {
		if got := r.next(); got != want {
			t.Errorf("draw %d of seed 1 is %d, want %d", i, got, want)
		}
	}
	tr := makeTrace(4, 3, 1, true)
	for i, want := range []uint32{34, 2, 6, 16} {
		if tr.fill[i] != want {
			t.Errorf("fill[%d] is %d, want %d", i, tr.fill[i], want)
		}
	}
	for i, want := range [][2]uint32{{1, 17}, {2, 51}, {1, 53}} {
		if tr.slot[i] != want[0] || tr.pages[i] != want[1] {
			t.Errorf("operation %d is slot %d, %d pages, want %v", i, tr.slot[i], tr.pages[i], want)
		}
	}
	if got := tr.hash.String(); got != "282c545c" {
		t.Errorf("hash is %s", got)
	}
}

func TestPercentile(t *testing.T) {
	vs := []float64{5, 1, 4, 2, 3}
	for p, want := range map[float64]float64{0.5: 3, 0.99: 5, 1: 5, 0.2: 1} {
		if got := percentile(vs, p); got != want {
			t.Errorf("percentile %v is %v, want %v", p, got, want)
		}
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median is %v", got)
	}
}

func TestImages(t *testing.T) {
	if err := usage.Init(); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"dense", "fragmented"} {
		dir := filepath.Join(t.TempDir(), pattern)
		if _, err := runMkimage([]string{"-dir", dir, "-bytes", "4194304", "-pattern", pattern}); err != nil {
			t.Fatal(err)
		}
		for _, extra := range [][]string{{"-cold"}, {"-interval", "0"}} {
			args := append([]string{"-dir", dir, "-await", "9", "-rounds", "2", "-verify"}, extra...)
			if _, err := runLoad(args); err != nil {
				t.Errorf("%s %v: %v", pattern, extra, err)
			}
		}
	}
}

// With -settle placement is first fit: the same in every round, and what a naive
// model of an address-ordered free list gives for this trace.
func TestSettledPlacement(t *testing.T) {
	if err := usage.Init(); err != nil {
		t.Fatal(err)
	}
	res, err := runAlloc([]string{"-live", "100", "-ops", "20000", "-rounds", "1", "-settle"})
	if err != nil {
		t.Fatal(err)
	}
	if got := res["resultHash"]; got != "ee3dba85" {
		t.Errorf("resultHash is %v", got)
	}
}
