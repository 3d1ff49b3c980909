//go:build !race

package h2

import "testing"

// TestAllocsExchange: in the steady state a request and its response allocate nothing.
func TestAllocsExchange(t *testing.T) {
	s := newSteady(t)
	for range 100 {
		s.exchange(t, 32)
	}
	if n := testing.AllocsPerRun(200, func() { s.exchange(t, 32) }) / 32; n > 0.1 {
		t.Errorf("an exchange allocates %.2f times", n)
	}
}
