package cirque

import (
	"context"
	"net"
	"sync"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/upstream"
	"github.com/cirqueproxy/cirque/internal/wire"
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
			Sweep: t.sweep, Dial: t.Dial, MaxIdle: max(idle, 0), MaxConns: t.MaxConns,
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

// get returns a connection to a peer.
func (t *Transport) get(p *Peer, target *upstream.Target, w upstream.Want) (*upstream.H1, error) {
	t.init()
	pe := p.entry.Load()
	if pe == nil || pe.pool != t.pool {
		pe = &poolEntry{t.pool, t.pool.Entry(target.Key)}
		p.entry.Store(pe)
	}
	u, entry, err := t.pool.Get(pe.entry, target, w)
	if entry != pe.entry {
		p.entry.Store(&poolEntry{t.pool, entry})
	}
	return u, err
}

var _ exchange.Up = (*upstream.H1)(nil)
