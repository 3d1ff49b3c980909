package upstream

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// Watcher tells a wait that its client left. exchange.Down is one.
type Watcher interface {
	Watch(c exchange.Canceler)
	Unwatch()
}

// cancelFunc lets a context be ended as an exchange.Canceler.
type cancelFunc context.CancelCauseFunc

func (f cancelFunc) Cancel(cause error) { f(cause) }

// dial makes a new connection for an entry whose place is already counted.
func (p *Pool) dial(e *Entry, t *Target, w Want) (*H1, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if w.Watcher != nil {
		w.Watcher.Watch(cancelFunc(cancel))
		defer w.Watcher.Unwatch()
	}
	if w.ConnectTotal > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, w.ConnectTotal, errConnectTotal)
		defer stop()
	}
	if err := e.beginConnect(ctx, w); err != nil {
		return nil, err
	}
	defer e.endConnect()
	nc, err := p.connectPlain(ctx, t, w)
	if err == nil {
		nc, err = p.secure(ctx, e, t, w, nc)
	}
	if err != nil {
		return nil, err
	}
	p.connects.Add(1)
	u := &H1{pool: p, entry: e, target: t, wc: wire.New(nc, p.sweep)}
	u.made = p.sweep.Now() // the clock may have stood still before there was a connection
	u.wc.SetMaxBuffer(t.Limits.HeadBytes)
	return u, nil
}

// maxConnecting bounds the connects and handshakes that are under way to one
// peer. An origin that has become slow to accept would otherwise be met by one for
// each request that waits, and find all of them in its queue when it recovers.
const maxConnecting = 256

var errConnecting = errors.New("too many connects to the peer are under way")

// beginConnect waits for a place among them, for as long as a connect may take.
func (e *Entry) beginConnect(ctx context.Context, w Want) error {
	select {
	case e.connecting <- struct{}{}:
		return nil
	default:
	}
	if w.Connect > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, w.Connect)
		defer stop()
	}
	select {
	case e.connecting <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	var known *reason.Error
	if errors.As(context.Cause(ctx), &known) {
		return known
	}
	return &reason.Error{Reason: reason.PeerLimit, Err: errConnecting}
}

func (e *Entry) endConnect() { <-e.connecting }

// connectPlain makes a connection without TLS.
func (p *Pool) connectPlain(ctx context.Context, t *Target, w Want) (net.Conn, error) {
	if t.Err != nil {
		return nil, &reason.Error{Reason: reason.ConnectFailed, Err: t.Err}
	}
	if w.Connect > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, w.Connect)
		defer stop()
	}
	dial := t.Dial
	if dial == nil {
		dial = p.cfg.Dial
	}
	nc, err := dial(ctx, t.Network, t.Address)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	return nc, nil
}

// tuneDialed sets a socket's options before it connects.
func tuneDialed(_, address string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { wire.TuneLoopback(fd, address) })
}

// dialError gives a failed connect its reason.
func dialError(ctx context.Context, err error) error {
	var dns *net.DNSError
	var addr *net.AddrError
	var known *reason.Error
	switch cause := context.Cause(ctx); {
	case errors.As(cause, &known), errors.As(err, &known):
		return known
	case errors.As(err, &dns) && !errors.Is(cause, context.DeadlineExceeded):
		return &reason.Error{Reason: reason.DNSFailed, Err: err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &reason.Error{Reason: reason.ConnectRefused, Err: err}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return &reason.Error{Reason: reason.ConnectTimeout, Err: err}
	case errors.As(err, &addr):
		return &reason.Error{Reason: reason.DNSFailed, Err: err}
	default:
		return &reason.Error{Reason: reason.ConnectFailed, Err: err}
	}
}
