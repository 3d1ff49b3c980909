package cirque

import (
	"net/http"
	"time"

	"github.com/cirqueproxy/cirque/internal/downstream"
)

// ClientLimits are what the client of one request may take of time and bytes.
// They take the place of the Server's fields. Each: if zero, the Server's value
// stays; if negative, there is no limit.
type ClientLimits struct {
	// Idle bounds the wait for the next request on the connection, after this
	// one. To end the connection there is [Session.CloseAfter].
	Idle time.Duration
	// Body bounds a wait inside the request body.
	Body time.Duration
	// Write bounds a wait for a client that does not read.
	Write time.Duration
	// MinRate is how many bytes a second the client must send of the body, and
	// take of the response, while we wait for it, once we have waited for
	// MinRateGrace in all.
	MinRate      int
	MinRateGrace time.Duration
	// DrainBytes and DrainTime bound what is read of a body that nobody wanted, so
	// that the connection can be kept. If DrainBytes is negative, the connection
	// is closed.
	DrainBytes int64
	DrainTime  time.Duration
}

var defaultClientLimits = downstream.Bounds{
	IdleTimeout: 75 * time.Second, BodyTimeout: 60 * time.Second, WriteTimeout: 60 * time.Second,
	MinRate: 240, MinRateGrace: 10 * time.Second, DrainBytes: 256 << 10, DrainTime: 2 * time.Second,
}

// over returns the limits as the engine has them, with b's in place of zeros.
func (l ClientLimits) over(b downstream.Bounds) downstream.Bounds {
	return downstream.Bounds{
		IdleTimeout: pick(l.Idle, b.IdleTimeout), BodyTimeout: pick(l.Body, b.BodyTimeout), WriteTimeout: pick(l.Write, b.WriteTimeout),
		MinRate: pick(l.MinRate, b.MinRate), MinRateGrace: pick(l.MinRateGrace, b.MinRateGrace),
		DrainBytes: pick(l.DrainBytes, b.DrainBytes), DrainTime: pick(l.DrainTime, b.DrainTime),
	}
}

// or returns l with its zero fields taken from d.
func (l ClientLimits) or(d ClientLimits) ClientLimits {
	return ClientLimits{
		Idle: orElse(l.Idle, d.Idle), Body: orElse(l.Body, d.Body), Write: orElse(l.Write, d.Write),
		MinRate: orElse(l.MinRate, d.MinRate), MinRateGrace: orElse(l.MinRateGrace, d.MinRateGrace),
		DrainBytes: orElse(l.DrainBytes, d.DrainBytes), DrainTime: orElse(l.DrainTime, d.DrainTime),
	}
}

// own is what a session set for itself alone.
type own struct {
	timeouts Timeouts
	limits   ClientLimits
	set      bool
}

// SetClientLimits gives this request limits of its own; the next one on the
// connection has the Server's again. Fields that an earlier call set and this one
// does not stay. What bounds a wait holds for waits that begin later, so any hook
// may call it; but while a request body is moved beside the response, Body and
// the rate of sending change by RequestBody hooks only, and all else by the
// others. Over HTTP/2, where requests share a connection, Idle and the drain mean
// nothing. It fails where the connection is not a Server's: behind
// [Proxy.ServeHTTP] the limits are the http.Server's.
func (s *Session) SetClientLimits(l ClientLimits) error {
	c, ok := s.down.(bounded)
	if !ok {
		return http.ErrNotSupported
	}
	s.own.limits, s.own.set = l.or(s.own.limits), true
	c.SetBounds(s.own.limits.over(*c.DefaultBounds()), !s.duplex || s.upward, !s.duplex || !s.upward)
	return nil
}

// bounded is an exchange with a client whose waits can be bounded anew.
type bounded interface {
	DefaultBounds() *downstream.Bounds
	SetBounds(b downstream.Bounds, read, write bool)
}

// SetTimeouts gives this request timeouts of its own: fields that are not zero
// take the place of those of the Proxy and the peer. Fields that an earlier call
// set and this one does not stay. They hold for waits that begin later: set in a
// Response hook, Read is that of the body. Connect, Write and Total have to be
// set before an attempt begins; Total counts from the request's head. Idle is the
// pool's and means nothing here.
func (s *Session) SetTimeouts(t Timeouts) {
	s.own.timeouts, s.own.set = t.or(s.own.timeouts), true
	if s.up != nil && !s.upward {
		s.boundAttempt(s.timeoutsTo(s.peer))
	}
}

// timeoutsTo returns the timeouts of an attempt on p.
func (s *Session) timeoutsTo(p *Peer) Timeouts {
	var t Timeouts
	if s.own.set {
		t = s.own.timeouts
	}
	t.fill(&s.proxy.Timeouts)
	t.fill(&p.Timeouts)
	t.fill(&defaultTimeouts)
	return t
}

// boundAttempt sets the timeouts of the present attempt's waits.
func (s *Session) boundAttempt(t Timeouts) {
	first := positive(t.FirstByte)
	if d := s.proxy.Retry.PerTry; d > 0 && (first == 0 || d < first) {
		first = d
	}
	s.up.SetTimeouts(first, positive(t.Read), positive(t.Write))
}

// orElse returns v, or d for zero.
func orElse[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
