package cirque

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/upstream"
)

// Peer is an upstream endpoint and how to reach it. It is immutable after its
// first use and may be shared by all sessions; make it once, not per request.
//
// Its reuse key, which says what connections are interchangeable, is derived
// from all that makes them so: Addr, Protocol, all of TLS, Dial's presence and
// Unique. Two peers with equal keys share connections.
type Peer struct {
	// Addr is host:port, or unix:/path. A host is resolved at each connect and
	// all of its addresses are tried.
	Addr string

	// TLS, if not nil, secures the connections.
	TLS *PeerTLS
	// Protocol is what is spoken on them.
	Protocol Protocol
	// HTTP2 are the limits of HTTP/2 to the peer.
	HTTP2 HTTP2

	// Name stands for the peer in logs. If empty, Addr is used.
	Name string

	// Timeouts are the peer's; zero fields have the defaults said there.
	Timeouts Timeouts

	// MaxConns bounds the connections to the peer, busy and idle ones together.
	// If zero, there is no limit.
	MaxConns int
	// MaxQueue bounds the sessions that wait for one of MaxConns. If zero, 1,024
	// may wait; if negative, none.
	MaxQueue int
	// QueueTimeout bounds their wait. If zero, it is Timeouts.Connect's value.
	// If negative, there is no limit.
	QueueTimeout time.Duration
	// MaxRequests bounds the requests on one connection. If zero, there is no
	// limit.
	MaxRequests int
	// MaxAge bounds how long a connection is used. If zero, there is no limit.
	MaxAge time.Duration

	// MaxHeadBytes bounds a response head. If zero, it is 64 KiB.
	MaxHeadBytes int
	// AcceptBadLength reads a response with an invalid or repeated
	// Content-Length as ended by the connection's end, in place of a 502.
	AcceptBadLength bool

	// Dial makes the connections in place of a plain connect. Peers with
	// different Dial functions that reach different things must differ in
	// Unique.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Unique keeps connections of this peer apart from those of peers that have
	// all else in common.
	Unique string

	// RoundTripper, if not nil, answers the requests in place of a connection.
	RoundTripper http.RoundTripper

	// Observer, if not nil, learns how attempts end.
	Observer Observer

	once  sync.Once
	built upstream.Target
	entry atomic.Pointer[poolEntry]
}

// poolEntry remembers where a pool keeps the peer's connections.
type poolEntry struct {
	pool  *upstream.Pool
	entry *upstream.Entry
}

// Observer learns how attempts end: what balancing, health and breakers live
// on. Its methods are called by many sessions at once and must not block.
type Observer interface {
	// Began is called when an attempt begins, before its connect.
	Began(p *Peer)
	// Ended is called exactly once for each Began.
	Ended(a Attempt)
}

// Attempt is how one attempt ended.
type Attempt struct {
	Peer      *Peer
	Number    int           // 1 for the first of the session
	Reused    bool          // on a connection from the pool
	Connect   time.Duration // till there was a connection
	FirstByte time.Duration // till the final head was read; 0 if it never was
	Total     time.Duration
	Status    int   // of the final head; 0 if none came
	Received  int64 // bytes of response body
	Sent      int64 // bytes of the request, its head included
	// WritePending is how long writes of the request waited for the origin to
	// read.
	WritePending time.Duration
	TLS          *TLSDigest // of the connection; nil: plain
	Err          *Error     // nil if the attempt was complete
}

// Timeouts bound waits. Each field: if zero, the default is used; if negative,
// there is no limit. On a Proxy a zero field leaves the peer's value.
type Timeouts struct {
	Connect time.Duration // making a connection: 5 s
	// TLSHandshake bounds the handshake after it: 10 s.
	TLSHandshake time.Duration
	// ConnectTotal bounds both together: no limit.
	ConnectTotal time.Duration
	FirstByte    time.Duration // from the request's end to the response head: 60 s
	Read         time.Duration // between two reads of the response: 60 s
	Write        time.Duration // a write of the request that makes no progress: 60 s
	Idle         time.Duration // an unused connection in the pool: 60 s; negative: no reuse
	Tunnel       time.Duration // a tunnel in which nothing moves: 1 h
	Total        time.Duration // the whole session: no limit (Proxy only)
}

var defaultTimeouts = Timeouts{
	Connect: 5 * time.Second, TLSHandshake: 10 * time.Second, FirstByte: 60 * time.Second, Read: 60 * time.Second,
	Write: 60 * time.Second, Idle: 60 * time.Second, Tunnel: time.Hour,
}

// or returns t with its zero fields taken from d.
func (t Timeouts) or(d Timeouts) Timeouts {
	t.fill(&d)
	return t
}

// fill takes the zero fields of t from d.
func (t *Timeouts) fill(d *Timeouts) {
	t.Connect = orElse(t.Connect, d.Connect)
	t.TLSHandshake = orElse(t.TLSHandshake, d.TLSHandshake)
	t.ConnectTotal = orElse(t.ConnectTotal, d.ConnectTotal)
	t.FirstByte = orElse(t.FirstByte, d.FirstByte)
	t.Read = orElse(t.Read, d.Read)
	t.Write = orElse(t.Write, d.Write)
	t.Idle = orElse(t.Idle, d.Idle)
	t.Tunnel = orElse(t.Tunnel, d.Tunnel)
	t.Total = orElse(t.Total, d.Total)
}

// positive returns d, or 0 (no limit) for a negative d.
func positive(d time.Duration) time.Duration { return max(d, 0) }

// String returns the peer's name, or its address.
func (p *Peer) String() string {
	if p.Name != "" {
		return p.Name
	}
	return p.Addr
}

// NewPeer returns a peer with all defaults.
func NewPeer(addr string) *Peer { return &Peer{Addr: addr} }

// Validate reports what is wrong with the peer's fields, without touching the
// network.
func (p *Peer) Validate() error {
	if p.RoundTripper != nil {
		return nil
	}
	if path, ok := strings.CutPrefix(p.Addr, "unix:"); ok {
		if path == "" {
			return fmt.Errorf("peer %q has no socket path", p.Addr)
		}
	} else if _, _, err := net.SplitHostPort(p.Addr); err != nil {
		return fmt.Errorf("peer %q is not host:port: %w", p.Addr, err)
	}
	switch {
	case p.Protocol > ProtocolH2C:
		return fmt.Errorf("peer %q: there is no such protocol", p.Addr)
	case p.TLS != nil:
		return p.TLS.validate(p)
	case p.Protocol == ProtocolHTTP2:
		return fmt.Errorf("peer %q: HTTP/2 without TLS is called h2c", p.Addr)
	}
	return nil
}

// target returns the peer as the pool sees it.
func (p *Peer) target() *upstream.Target {
	p.once.Do(p.build)
	return &p.built
}

func (p *Peer) build() {
	t := p.Timeouts.or(defaultTimeouts)
	network, addr := "tcp", p.Addr
	if path, ok := strings.CutPrefix(p.Addr, "unix:"); ok {
		network, addr = "unix", path
	}
	queue := p.MaxQueue
	switch {
	case queue == 0:
		queue = 1024
	case queue < 0:
		queue = 0
	}
	wait := p.QueueTimeout
	if wait == 0 {
		wait = t.Connect
	}
	head := p.MaxHeadBytes
	if head <= 0 {
		head = 64 << 10
	}
	p.built = upstream.Target{
		Network: network, Address: addr, Dial: p.Dial,
		IdleTimeout: positive(t.Idle), NoReuse: t.Idle < 0,
		MaxConns: p.MaxConns, MaxQueue: queue, QueueTimeout: positive(wait),
		MaxRequests: p.MaxRequests, MaxAge: p.MaxAge,
		Limits: h1.Limits{HeadBytes: head, Fields: maxResponseFields, TargetBytes: head},
		Rules:  h1.ResponseRules{AcceptBadLength: p.AcceptBadLength},
	}
	p.built.HTTP2 = p.mode()
	p.built.H2 = p.HTTP2.upstream(head)
	if p.TLS != nil {
		// What Validate refuses must not lead to a connection that verifies less
		// than its owner meant.
		if err := p.TLS.validate(p); err != nil {
			p.built.Err = err
		}
		p.built.TLS = p.TLS.config(p)
	}
	p.built.Key = p.reuseKey()
}

// maxResponseFields bounds the fields of a response: what an origin may make
// each session hold. It is wider than what clients get, since origins are
// known and some send a Set-Cookie field per cookie.
const maxResponseFields = 500

// reuseKey joins all that makes two connections interchangeable. Each part is
// preceded by its length, so that no two different lists give one key.
func (p *Peer) reuseKey() string {
	var b strings.Builder
	parts := []string{p.built.Network, p.built.Address, p.Unique, fmt.Sprint(p.Dial != nil, p.Protocol)}
	for _, part := range append(parts, p.TLS.identity(p)...) {
		fmt.Fprintf(&b, "%d:%s,", len(part), part)
	}
	return b.String()
}
