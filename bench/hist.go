//go:build linux

package main

import "math/bits"

// hist counts durations in nanoseconds: exact below 64, and then 64 steps for
// each doubling, an error of at most 1.6 %.
type hist struct {
	counts [64 * 40]int64
	total  int64
}

const histSteps = 64

func (h *hist) add(ns int64) {
	h.counts[histIndex(ns)]++
	h.total++
}

func histIndex(ns int64) int {
	if ns < histSteps {
		return int(max(ns, 0))
	}
	shift := bits.Len64(uint64(ns)) - 7 // leaves 64..127
	return min(shift*histSteps+int(ns>>shift), 64*40-1)
}

// histValue is the middle of a step.
func histValue(i int) int64 {
	if i < 2*histSteps {
		return int64(i)
	}
	shift := i/histSteps - 1
	return int64(i-shift*histSteps)<<shift + int64(1)<<shift/2
}

// quantile returns the duration that a share q of all stays at or below, or 0
// if nothing was counted.
func (h *hist) quantile(q float64) int64 {
	rank := int64(q*float64(h.total) + 0.5)
	var seen int64
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return histValue(i)
		}
	}
	return 0
}
