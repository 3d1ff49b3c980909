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
	recent  int       // Guarded by mu: since the last look.
	last    time.Time // Guarded by mu.
	pending bool      // Guarded by mu: a trim is due.
	waited  int       // Guarded by mu: how often it was put off.

	collect func() // for tests; nil: runtime.GC and debug.FreeOSMemory
}

const (
	after   = 1000             // parked connections make a trim worth while
	delay   = 2 * time.Second  // so that those that follow are in the same trim
	few     = after / 20       // that many in a delay do not put it off any more
	maxWait = 5                // delays that it is put off at most
	every   = 30 * time.Second // a collection is not free
)

// Note counts a parked connection.
func (t *Trimmer) Note() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recent++
	if t.parked++; t.parked < after || t.pending {
		return
	}
	t.pending, t.waited = true, 0
	wait := max(delay, every-time.Since(t.last))
	time.AfterFunc(wait, t.due)
}

// due trims, or waits for those that are still going idle.
func (t *Trimmer) due() {
	t.mu.Lock()
	if t.recent > few && t.waited < maxWait {
		t.recent = 0
		t.waited++
		time.AfterFunc(delay, t.due)
		t.mu.Unlock()
		return
	}
	t.pending, t.parked, t.recent, t.last = false, 0, 0, time.Now()
	collect := t.collect
	t.mu.Unlock()
	if collect != nil {
		collect()
		return
	}
	runtime.GC() // what pools hold outlives one collection
	debug.FreeOSMemory()
}
