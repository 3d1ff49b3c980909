package cirque

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/upstream"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// Transport is the upstream side: one pool of connections, shared by all
// sessions on all cores. Its zero value works. It must not be copied and its
// fields must not change after the first use.
type Transport struct {
	// MaxIdleConns bounds the idle connections in the pool; the one not used for
	// the longest time goes first. If zero, 4,096. If negative, there is no limit.
	MaxIdleConns int
	// MaxConns bounds all connections, busy and idle. If zero, there is no limit.
	MaxConns int
	// Dial makes connections for peers without a Dial of their own. If nil, a
	// net.Dialer does.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// KeyLog, if not nil, gets the secrets of all TLS connections to peers, in the
	// format of the file that SSLKEYLOGFILE names elsewhere: whoever reads it reads
	// them. It is for debugging.
	KeyLog io.Writer

	once  sync.Once
	sweep *wire.Sweep
	pool  *upstream.Pool
}

// TransportStats are a Transport's counters since its first use and its
// present numbers.
type TransportStats struct {
	Connects int64 // connections made
	Reuses   int64 // requests sent on a connection that had served another
	Strays   int64 // connections dropped for bytes that nobody had asked for
	Evicted  int64 // idle connections dropped because MaxIdleConns was reached
	Retired  int64 // connections closed for age, number of requests or idle time
	Idle     int64 // connections idle now
	Conns    int64 // connections now, busy and idle
}

func (t *Transport) init() {
	t.once.Do(func() {
		t.sweep = wire.NewSweep(0)
		idle := t.MaxIdleConns
		if idle == 0 {
			idle = 4096
		}
		t.pool = upstream.NewPool(upstream.Config{
			Sweep: t.sweep, Dial: t.Dial, MaxIdle: max(idle, 0), MaxConns: t.MaxConns, KeyLog: t.KeyLog,
		})
	})
}

// Stats returns the counters.
func (t *Transport) Stats() TransportStats {
	t.init()
	return TransportStats(t.pool.Stats())
}

// CloseIdleConnections closes the idle connections.
func (t *Transport) CloseIdleConnections() {
	t.init()
	t.pool.CloseIdle()
}

// Close closes the idle connections, and each busy one when its request ends.
// The Transport must not be used for new requests.
func (t *Transport) Close() {
	t.init()
	t.pool.Close()
}

// want is what an exchange asks of the pool.
func (t Timeouts) want(reuse upstream.Reuse, w upstream.Watcher) upstream.Want {
	return upstream.Want{
		Reuse: reuse, Watcher: w, Connect: positive(t.Connect),
		Handshake: positive(t.TLSHandshake), ConnectTotal: positive(t.ConnectTotal),
	}
}

// Preconnect makes connections to p until n are idle in the pool, counting those
// that are, and returns when that is so, ctx ends, or one could not be made. It
// keeps to all limits, without taking a place from others: where one of them is
// reached before n it returns an error that says which. The first requests to p
// then wait for neither connect nor handshake.
func (t *Transport) Preconnect(ctx context.Context, p *Peer, n int) error {
	if p.RoundTripper != nil {
		return http.ErrNotSupported
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	target := p.target()
	pe := t.entry(p, target)
	d := p.Timeouts.or(defaultTimeouts)
	entry, err := t.pool.Preconnect(ctx, pe.entry, target, n, d.want(upstream.ReuseAny, nil))
	t.note(p, pe, entry)
	switch cause := context.Cause(ctx); {
	case err == nil:
		return nil
	case cause != nil:
		return cause
	}
	return toError(err, reason.ConnectFailed)
}

// KeepReady keeps n connections to p idle until ctx ends: it calls Preconnect
// every second, and after a failure with a pause that grows to half a minute.
// Requests in bursts, and those that come rarely, then find a connection. An
// origin that closes connections which carry no request makes it connect as often
// as that.
func (t *Transport) KeepReady(ctx context.Context, p *Peer, n int) {
	for pause := readyEvery; ; {
		if t.Preconnect(ctx, p, n) == nil {
			pause = readyEvery
		} else {
			pause = min(2*pause, readyPauseMax)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

const (
	readyEvery    = time.Second
	readyPauseMax = 30 * time.Second
)

// get returns a connection to a peer.
func (t *Transport) get(p *Peer, target *upstream.Target, w upstream.Want) (upstream.Up, error) {
	pe := t.entry(p, target)
	u, entry, err := t.pool.Get(pe.entry, target, w)
	t.note(p, pe, entry)
	return u, err
}

// entry returns where the pool keeps the peer's connections.
func (t *Transport) entry(p *Peer, target *upstream.Target) *poolEntry {
	t.init()
	pe := p.entry.Load()
	if pe == nil || pe.pool != t.pool {
		pe = &poolEntry{t.pool, t.pool.Entry(target.Key)}
		p.entry.Store(pe)
	}
	return pe
}

// note remembers the entry that took the place of one dropped for disuse.
func (t *Transport) note(p *Peer, pe *poolEntry, now *upstream.Entry) {
	if now != pe.entry {
		p.entry.Store(&poolEntry{t.pool, now})
	}
}

var _ exchange.Up = (*upstream.H1)(nil)
