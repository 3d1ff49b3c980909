package cirque

import (
	"sync"
	"time"
)

// Proxy is what happens to the requests of a route: which hooks run, which peer
// is chosen, what is retried and how long anything may take. Only Peer is
// required. It is immutable after its first use.
type Proxy struct {
	// Name stands for the route in logs, metrics and s.Route().
	Name string

	// Filters run in this order; see [Filter].
	Filters []Filter

	// Peer chooses the peer of an attempt. It is called once per attempt;
	// s.Tried tells what was tried before. An error gives up, with 503 unless it
	// brings a status of its own. A Proxy without it answers 404 to what no
	// filter answered.
	Peer func(s *Session) (*Peer, error)

	// Transport keeps the connections. If nil, one is used that all Proxies
	// without a Transport share.
	Transport *Transport

	// Timeouts override those of the peers, field by field where not zero.
	Timeouts Timeouts

	// Retry says what is tried again.
	Retry Retry

	// Forwarding says which fields tell the origin about the client.
	Forwarding Forwarding

	// MaxRequestBody bounds a request body in bytes; a larger one gets 413. If
	// zero or negative, there is no limit.
	MaxRequestBody int64

	// AllowConnect makes CONNECT open a tunnel to the peer. Otherwise it gets
	// 405.
	AllowConnect bool

	// ConnectProtocols are what a client of HTTP/2 may ask for by extended CONNECT
	// (RFC 8441) besides websocket. Others get 501.
	ConnectProtocols []string

	// KeepHopByHop passes on hop-by-hop fields other than those that frame the
	// message. Only for old parties that need it: it lets a client reach past
	// this proxy.
	KeepHopByHop bool

	// DropInterim keeps 1xx responses, other than 100 and 101, from clients.
	DropInterim bool

	// ErrorPage makes the response to a request that failed, with
	// s.Response().Header and s.Respond. If it is nil, or does not respond, a
	// plain text page is sent, or problem+json where the client prefers it. It is
	// not asked for clients of gRPC, which get a grpc-status and no page.
	ErrorPage func(s *Session, err *Error) error

	// LogError gets each failed session. If nil, the server's Logger does.
	LogError func(s *Session, err *Error)

	once    sync.Once
	plan    *plan
	planErr error
	budget  budget
	via11   []byte
	via20   []byte
}

// Retry says which failed attempts are followed by another. In its zero value
// what is certainly safe is tried again.
type Retry struct {
	// Attempts is how many attempts a session may make in all. If zero, 3. If
	// negative, 1.
	Attempts int
	// NonIdempotent also repeats requests whose method is not idempotent (POST,
	// PATCH) after they were sent. The origin may then see them twice.
	NonIdempotent bool
	// ReplayBytes bounds the request body that is held for another attempt. If
	// zero, 64 KiB. If negative, nothing is held.
	ReplayBytes int
	// PerTry bounds the wait of an attempt for its response head; when it passes,
	// a request that may be repeated is. If zero or negative, there is no such
	// bound.
	PerTry time.Duration
	// BudgetPercent bounds the repeated attempts that were sent to some percent
	// of the requests of the last seconds, above a floor of 10 a second. If
	// zero, 20. If negative, there is no bound.
	BudgetPercent int
}

func (r *Retry) attempts() int {
	switch {
	case r.Attempts == 0:
		return 3
	case r.Attempts < 0:
		return 1
	}
	return r.Attempts
}

func (r *Retry) replayBytes() int {
	switch {
	case r.ReplayBytes == 0:
		return 64 << 10
	case r.ReplayBytes < 0:
		return 0
	}
	return r.ReplayBytes
}

// Validate reports what is wrong with the Proxy: a filter without a name or
// two with the same. It is called at the first use; a program that builds
// Proxies while it runs calls it itself to learn of it earlier.
func (p *Proxy) Validate() error {
	p.once.Do(func() {
		p.plan, p.planErr = compile(p.Filters)
		p.via11 = []byte("1.1 " + p.Forwarding.via())
		p.via20 = []byte("2.0 " + p.Forwarding.via())
		if p.planErr != nil {
			p.plan = &plan{}
		}
	})
	return p.planErr
}

// transport returns where the Proxy's connections are.
func (p *Proxy) transport() *Transport {
	if p.Transport != nil {
		return p.Transport
	}
	return &defaultTransport
}

var defaultTransport Transport
