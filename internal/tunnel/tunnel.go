// Package tunnel relays what follows a 101 or a CONNECT between two ends, whatever
// protocol carries each. It knows no HTTP and no policy.
package tunnel

import (
	"errors"
	"io"
	"sync"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// Relay moves bytes between a client and an origin. Each direction has its goroutine;
// an error of one ends both.
type Relay struct {
	client, origin exchange.Tunnel // immutable

	// Up and Down count what was moved: each owned by its direction until Run returns.
	Up, Down int64

	mu  sync.Mutex
	err error // Guarded by mu.
}

// New returns the relay between two ends, whose waits are bounded already.
func New(client, origin exchange.Tunnel) *Relay { return &Relay{client: client, origin: origin} }

// Run relays until both directions have ended, or one has failed.
func (t *Relay) Run() error {
	var wg sync.WaitGroup
	wg.Go(func() { t.move(t.origin, t.client, &t.Up) })
	t.move(t.client, t.origin, &t.Down)
	wg.Wait()
	t.client.Unwatch()
	t.origin.Unwatch()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// move relays one direction and counts in n. Its end is passed on as a half-close,
// so that the other direction can end by itself.
func (t *Relay) move(dst, src exchange.Tunnel, n *int64) {
	var err error
	if d, s := dst.Wire(), src.Wire(); d != nil && s != nil {
		err = t.splice(d, s, n)
	} else {
		err = t.copy(dst, src, n)
	}
	if err != nil {
		t.End(&reason.Error{Reason: reason.TunnelEnded, Err: err})
		return
	}
	_ = dst.CloseWrite()
	src.Watch(func(cause error) { t.End(&reason.Error{Reason: reason.TunnelEnded, Err: cause}) })
}

// splice moves between two connections that carry the bytes as they are.
func (t *Relay) splice(dst, src *wire.Conn, n *int64) error {
	for {
		if b := src.Buffered(); len(b) > 0 {
			if _, err := dst.Write(b); err != nil {
				return err
			}
			*n += int64(len(b))
			src.Discard(len(b))
		}
		src.ReleaseBuffer()
		seen := t.moved()
		taken, moved, err := wire.Splice(dst, src, nil, -1)
		*n += moved
		switch {
		case err == nil, errors.Is(err, io.EOF):
			return nil
		case taken == moved && errors.Is(err, wire.ErrTimeout) && t.moved() != seen:
			// The other direction is alive, and nothing was lost in a pipe.
		default:
			return err
		}
	}
}

// copy moves between ends of which one has frames.
func (t *Relay) copy(dst, src exchange.Tunnel, n *int64) error {
	for {
		seen := t.moved()
		b, last, err := src.Read()
		switch {
		case errors.Is(err, wire.ErrTimeout) && t.moved() != seen:
			continue
		case err != nil:
			return err
		}
		if len(b) > 0 {
			if err := dst.Write(b); err != nil {
				return err
			}
			*n += int64(len(b))
		}
		if last {
			return nil
		}
	}
}

// moved is a figure that changes when anything moves.
func (t *Relay) moved() int64 { return t.client.Received() + t.origin.Received() }

// End ends both directions: Run returns err, unless it had a cause before. It is for any
// goroutine.
func (t *Relay) End(err error) {
	t.mu.Lock()
	first := t.err == nil
	if first {
		t.err = err
	}
	t.mu.Unlock()
	if first {
		t.client.Interrupt(err)
		t.origin.Interrupt(err)
	}
}
