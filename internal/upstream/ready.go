package upstream

import (
	"context"
	"errors"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/reason"
)

var errPoolClosed = errors.New("the pool is closed")

// Preconnect dials until n connections of the target are idle, ctx ends or a
// limit is reached; it takes no place from others. Each connect is bounded as w
// says. The entry is as in Get.
func (p *Pool) Preconnect(ctx context.Context, e *Entry, t *Target, n int, w Want) (*Entry, error) {
	e = p.lockLive(e, t)
	missing := n - len(e.idle)
	e.mu.Unlock()
	if missing <= 0 {
		return e, nil
	}
	idle := int(p.idle.Load())
	errc := make(chan error, missing)
	for making := range missing {
		live := p.lockLive(e, t)
		err := p.reserveLocked(live, t, idle+making)
		live.mu.Unlock()
		if e = live; err != nil {
			errc <- err
			missing = making + 1
			break
		}
		go func() { errc <- p.makeReady(ctx, live, t, w) }()
	}
	var first error
	for range missing {
		if err := <-errc; first == nil {
			first = err
		}
	}
	return e, first
}

// makeReady makes a connection on a place that was counted.
func (p *Pool) makeReady(ctx context.Context, e *Entry, t *Target, w Want) error {
	w.Watcher = &contextWatcher{ctx: ctx}
	u, err := p.dial(e, t, w)
	if err != nil {
		p.conns.Add(-1)
		p.leave(e)
		return err
	}
	p.put(u)
	return nil
}

// lockLive returns the entry, or the one in its place if it was dropped for
// disuse, locked.
func (p *Pool) lockLive(e *Entry, t *Target) *Entry {
	for {
		e.mu.Lock()
		if !e.dead {
			e.unused = 0
			return e
		}
		e.mu.Unlock()
		e = p.Entry(t.Key)
	}
}

// reserveLocked counts a connection that is going to be made ahead of its use, and
// will be idle beside others.
func (p *Pool) reserveLocked(e *Entry, t *Target, others int) error {
	switch {
	case p.shut.Load():
		return errPoolClosed
	case t.MaxConns > 0 && e.total >= t.MaxConns:
		return &reason.Error{Reason: reason.PeerLimit}
	case p.cfg.MaxIdle > 0 && others >= p.cfg.MaxIdle:
		return &reason.Error{Reason: reason.PoolFull}
	}
	if n := p.conns.Add(1); p.cfg.MaxConns > 0 && n > int64(p.cfg.MaxConns) {
		p.conns.Add(-1)
		return &reason.Error{Reason: reason.ConnectionLimit}
	}
	e.total++
	return nil
}

// contextWatcher is a Watcher for whom a context is the client.
type contextWatcher struct {
	ctx  context.Context
	stop func() bool
}

// Watch implements Watcher.
func (w *contextWatcher) Watch(c exchange.Canceler) {
	w.stop = context.AfterFunc(w.ctx, func() { c.Cancel(context.Cause(w.ctx)) })
}

// Unwatch implements Watcher.
func (w *contextWatcher) Unwatch() { w.stop() }
