package cirque

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// trimmer gives memory back to the system when many connections have gone idle:
// the stacks and buffers of a burst would otherwise stay until the next garbage
// collection, which an idle process has no reason to make.
type trimmer struct {
	mu      sync.Mutex
	parked  int       // Guarded by mu: since the last trim.
	last    time.Time // Guarded by mu.
	pending bool      // Guarded by mu: a trim is due.
}

const (
	trimAfter = 1000             // parked connections make a trim worth while
	trimDelay = 2 * time.Second  // so that those that follow are in the same trim
	trimEvery = 30 * time.Second // a collection is not free
)

// note counts a parked connection.
func (t *trimmer) note() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.parked++; t.parked < trimAfter || t.pending {
		return
	}
	t.pending = true
	time.AfterFunc(max(trimDelay, trimEvery-time.Since(t.last)), t.trim)
}

func (t *trimmer) trim() {
	t.mu.Lock()
	t.pending, t.parked, t.last = false, 0, time.Now()
	t.mu.Unlock()
	runtime.GC() // what pools hold outlives one collection
	debug.FreeOSMemory()
}
