// Package trim gives memory back to the system at the right time.
package trim

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Trimmer gives memory back to the system when many connections have gone idle:
// the stacks and buffers of a burst would otherwise stay until the next garbage
// collection, which an idle process has no reason to make.
type Trimmer struct {
	mu      sync.Mutex
	parked  int       // Guarded by mu: since the last trim.
	last    time.Time // Guarded by mu.
	pending bool      // Guarded by mu: a trim is due.
}

const (
	after = 1000             // parked connections make a trim worth while
	delay = 2 * time.Second  // so that those that follow are in the same trim
	every = 30 * time.Second // a collection is not free
)

// Note counts a parked connection.
func (t *Trimmer) Note() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.parked++; t.parked < after || t.pending {
		return
	}
	t.pending = true
	time.AfterFunc(max(delay, every-time.Since(t.last)), t.trim)
}

func (t *Trimmer) trim() {
	t.mu.Lock()
	t.pending, t.parked, t.last = false, 0, time.Now()
	t.mu.Unlock()
	runtime.GC() // what pools hold outlives one collection
	debug.FreeOSMemory()
}
