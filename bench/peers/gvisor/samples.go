package main

import (
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// samples collects one value per round under each name; names end in their unit.
type samples map[string][]float64

func (s samples) add(name string, v float64) {
	s[name] = append(s[name], v)
}

func (s samples) medians() map[string]float64 {
	m := make(map[string]float64, len(s))
	for name, vs := range s {
		m[name] = median(vs)
	}
	return m
}

// median is the middle sample, or the mean of the two middle ones.
func median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(vs))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// percentile is the nearest-rank percentile: the smallest sample that at least
// the fraction p of all samples does not exceed.
func percentile(vs []float64, p float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(vs))
	rank := int(math.Ceil(p * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func nsPer(d time.Duration, ops int) float64 {
	if ops == 0 {
		return 0
	}
	return float64(d.Nanoseconds()) / float64(ops)
}

// cpuTime is the user and system time of the whole process, releaser and
// garbage collector included.
func cpuTime() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
