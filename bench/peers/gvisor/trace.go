package main

import "fmt"

// The traces are defined by this generator alone, so that any other program can
// reproduce them exactly:
//
//	state: an unsigned 32-bit word, the seed; seed 0 stands for 0x9E3779B9
//	next:  x ^= x << 13; x ^= x >>> 17; x ^= x << 5 (all modulo 2^32); yields x
//	below(n): next() % n
//
// It is xorshift32 (Marsaglia 2003). In JavaScript: x ^= x << 13; x ^= x >>> 17;
// x ^= x << 5; x >>>= 0.
type rng uint32

const defaultState = 0x9E3779B9

func newRNG(seed uint32) *rng {
	r := rng(seed)
	if r == 0 {
		r = defaultState
	}
	return &r
}

func (r *rng) next() uint32 {
	x := uint32(*r)
	x ^= x << 13
	x ^= x >> 17
	x ^= x << 5
	*r = rng(x)
	return x
}

func (r *rng) below(n uint32) uint32 {
	return r.next() % n
}

// hash is 32-bit FNV-1a over whole 32-bit words instead of bytes:
// h = 2166136261; for each word w: h = (h ^ w) * 16777619 modulo 2^32.
type hash uint32

const newHash hash = 2166136261

func (h *hash) add(w uint32) {
	*h = (*h ^ hash(w)) * 16777619
}

func (h hash) String() string {
	return fmt.Sprintf("%08x", uint32(h))
}

const maxPages = 64

// trace is drawn from one generator in this order:
//
//  1. for each live range i from 0 to live-1: fill[i] = 1 + below(64), its pages
//  2. for each operation: slot = below(live); and for `alloc` only, right after
//     the slot: pages = 1 + below(64)
//
// hash covers all values in the order in which they are drawn.
type trace struct {
	fill  []uint32
	slot  []uint32
	pages []uint32
	hash  hash
}

func makeTrace(live, ops int, seed uint32, withPages bool) *trace {
	r := newRNG(seed)
	t := &trace{
		fill: make([]uint32, live),
		slot: make([]uint32, ops),
		hash: newHash,
	}
	for i := range t.fill {
		t.fill[i] = 1 + r.below(maxPages)
		t.hash.add(t.fill[i])
	}
	if withPages {
		t.pages = make([]uint32, ops)
	}
	for i := range t.slot {
		t.slot[i] = r.below(uint32(live))
		t.hash.add(t.slot[i])
		if withPages {
			t.pages[i] = 1 + r.below(maxPages)
			t.hash.add(t.pages[i])
		}
	}
	return t
}
