package nethttp

import (
	"context"
	"sync"

	"github.com/cirqueproxy/cirque/internal/exchange"
)

// Watcher ends waits when a context does.
type Watcher struct {
	Context context.Context // set before the first Watch

	stop func() bool

	mu   sync.Mutex
	live exchange.Canceler // Guarded by mu: nil when nothing is watched.
	over error             // Guarded by mu: what ended all waits.
}

// Cancel ends the present wait and all later ones. It is for any goroutine.
func (w *Watcher) Cancel(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = cause
	if w.live != nil {
		w.live.Cancel(cause)
	}
}

// Watch cancels c when the context ends, until Unwatch.
func (w *Watcher) Watch(c exchange.Canceler) {
	w.Unwatch()
	w.mu.Lock()
	w.live = c
	over := w.over
	w.mu.Unlock()
	if over != nil {
		c.Cancel(over)
	}
	w.stop = context.AfterFunc(w.Context, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.live != nil {
			w.live.Cancel(context.Cause(w.Context))
		}
	})
}

// Unwatch ends it: c is not cancelled any more.
func (w *Watcher) Unwatch() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
	w.mu.Lock()
	w.live = nil
	w.mu.Unlock()
}
