package cirque

import (
	"errors"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/upstream"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// maxInterim bounds the 1xx responses of an attempt: an origin that sends them
// without end would hold its session for good.
const maxInterim = 100

// forward is the loop over attempts. It returns nil when a response was
// relayed.
func (s *Session) forward() error {
	if s.proxy == nil || s.proxy.Peer == nil {
		return &Error{Reason: reason.NoRoute}
	}
	s.startTotal()
	s.relaxGRPC()
	s.body.start(s)
	for {
		e := s.tryPeer()
		if e == nil {
			s.lastErr = nil
			return nil
		}
		s.lastErr = e
		if again, err := s.again(e); !again {
			return err
		}
	}
}

// startTotal bounds the session as a whole, where the Proxy says so.
func (s *Session) startTotal() {
	if d := orElse(s.own.timeouts.Total, s.proxy.Timeouts.Total); d > 0 {
		t, down := &totalTimer{}, s.down
		t.timer = time.AfterFunc(max(d-s.Elapsed(), 0), func() { t.fire(down) })
		s.total = t
	}
}

// totalTimer ends a session's waits when its total time is over.
type totalTimer struct {
	timer *time.Timer

	mu   sync.Mutex
	over bool // Guarded by mu: the session is done, its connection serves another.
}

func (t *totalTimer) fire(d exchange.Down) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		d.CancelWait(errTotal)
	}
}

// stop reports whether the time had passed.
func (t *totalTimer) stop() bool {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	return !t.timer.Stop()
}

var errTotal = &reason.Error{Reason: reason.TotalTimeout}

// tryPeer makes one attempt.
func (s *Session) tryPeer() *Error {
	if s.attempts > 0 {
		s.resp.Reset()
		s.foreign = false
	}
	p, err := s.proxy.Peer(s)
	if s.responded {
		s.localFrom = -1
		return nil
	}
	if err != nil {
		return toError(err, reason.NoPeer)
	}
	if p == nil {
		return &Error{Reason: reason.NoPeer}
	}
	s.beginAttempt(p)
	e := s.attemptOn(p)
	s.endAttempt(e)
	return e
}

func (s *Session) beginAttempt(p *Peer) {
	s.peer = p
	s.failedByHook = false
	s.attempts++
	s.tried = append(s.tried, p)
	s.attempt = Attempt{Peer: p, Number: s.attempts}
	s.attemptAt = 0
	if p.Observer != nil || s.attempts > 1 {
		s.attemptAt = time.Since(s.began)
	}
	if p.Observer != nil {
		p.Observer.Began(p)
	}
}

// timed reports whether anybody can ask how long the attempt took: reading the
// clock costs as much as parsing a short head.
func (s *Session) timed() bool { return s.plan.hooked || s.peer.Observer != nil }

// endAttempt completes the facts and tells the observer.
func (s *Session) endAttempt(e *Error) {
	a := &s.attempt
	s.noteWire()
	s.up, s.h1up = nil, nil
	a.Err = e
	if s.timed() {
		a.Total = time.Since(s.began) - s.attemptAt
	}
	if s.peer.Observer != nil {
		s.peer.Observer.Ended(*a)
	}
}

// noteWire takes what the connection knows of the attempt, before it belongs to
// another.
func (s *Session) noteWire() {
	if s.wire != nil {
		s.attempt.Sent = s.wire.BytesWritten() - s.sentBefore
		s.attempt.WritePending = s.wire.WritePending()
		s.wire = nil
	} else if h2, ok := s.up.(*upstream.H2); ok {
		s.attempt.Sent = h2.BytesSent()
	}
}

// attemptOn sends the request to p and relays the response.
func (s *Session) attemptOn(p *Peer) *Error {
	if p.RoundTripper != nil {
		s.up = newRoundTrip(s, p.RoundTripper)
		s.boundAttempt(s.timeoutsTo(p))
	} else if e := s.connect(p); e != nil {
		return e
	}
	s.attempt.Reused = s.up.Reused()
	var err error
	// A panic ends here, not further up: the attempt has to be closed too.
	if s.req.Method() == "CONNECT" && s.h1up != nil {
		err = s.guard((*Session).openTunnel)
	} else {
		err = s.guard((*Session).exchange)
	}
	if err == nil {
		return nil
	}
	if s.responded && errors.Is(err, errResponded) {
		if s.up != nil {
			s.noteWire()
			s.up.Release()
		}
		return nil
	}
	e := s.attemptError(err)
	if s.up != nil {
		s.up.Close()
	}
	return e
}

// connect takes a connection from the pool, or makes one.
func (s *Session) connect(p *Peer) *Error {
	target := p.target()
	reuse := reuseFor(s.req.Method())
	if s.stale >= maxStale || s.newConn {
		reuse = upstream.ReuseNone
	}
	t := s.timeoutsTo(p)
	w := t.want(reuse, s.down)
	w.HTTP1, w.Switch = s.req.Method() == "CONNECT", s.conn.tunnels() && upgradeWanted(s)
	u, err := s.proxy.transport().get(p, target, w)
	if err != nil {
		return s.attemptError(err)
	}
	if !u.Reused() {
		s.attempt.Connect = time.Since(s.began) - s.attemptAt
	}
	s.attempt.TLS = digestOf(u)
	s.up, s.upConn = u, u.NetConn()
	if h1, ok := u.(*upstream.H1); ok {
		s.h1up, s.wire = h1, h1.Wire()
		s.sentBefore = s.wire.BytesWritten()
		s.wire.ResetWritePending()
	}
	s.boundAttempt(t)
	return nil
}

// reuseFor returns which pooled connections a request may take: one that may
// not be repeated takes only those that have just shown to live.
func reuseFor(method string) upstream.Reuse {
	switch {
	case method == "CONNECT":
		return upstream.ReuseNone
	case idempotent(method):
		return upstream.ReuseAny
	}
	return upstream.ReuseFresh
}

// attemptError makes the public error of what went wrong in an attempt.
func (s *Session) attemptError(err error) *Error {
	c := *toError(err, reason.HookError)
	c.Attempt = s.attempts
	if s.peer != nil {
		c.Peer = s.peer.String()
	}
	if s.up != nil {
		c.Sent, c.Reused = s.up.Sent(), s.up.Reused()
	}
	return &c
}

// exchange is the attempt after there is a connection. On success the
// connection was given back.
func (s *Session) exchange() error {
	if err := s.runHead(s.plan.connected); err != nil {
		return err
	}
	if err := s.upstreamHead(); err != nil {
		return err
	}
	whole, err := s.body.gather(s)
	if err != nil {
		return err
	}
	s.down.Watch(s.up)
	err = s.up.Send(&s.upReq, s.body.held(), whole)
	s.sizePieces()
	if err == nil {
		if !whole {
			s.startPump()
		}
		err = s.guard((*Session).response)
	}
	s.down.Unwatch()
	if s.duplex {
		perr := s.stopPump()
		if perr != nil && (err == nil || errors.Is(err, errPump)) {
			err = s.pumpFailed(perr, err)
		}
		if s.responded {
			err = errResponded // by the pump's last hook, if not before
		}
	}
	if err == nil && s.up != nil {
		s.noteWire()
		s.up.Release()
	}
	return err
}

// response reads heads until the final one and relays what follows.
func (s *Session) response() error {
	for {
		if err := s.readHead(); err != nil {
			return err
		}
		if s.resp.Status >= 200 || s.resp.Status == 101 {
			break
		}
		if err := s.interim(); err != nil {
			return err
		}
	}
	s.attempt.Status = s.resp.Status
	if s.timed() {
		s.attempt.FirstByte = time.Since(s.began) - s.attemptAt
	}
	if s.resp.Status == 101 {
		return s.switchProtocols()
	}
	if err := s.responseHead(); err != nil {
		return err
	}
	return s.relay()
}

// readHead reads the next head. The wait for it does not count while the
// request is still flowing: the origin may rightly wait for its end.
func (s *Session) readHead() error {
	for {
		// A wait that began before the request's end is not the origin's alone.
		flowing := s.duplex && s.body.flowing()
		err := s.readUpHead()
		if err == nil || !flowing || !hasReason(err, reason.UpstreamTimeout) {
			return err
		}
	}
}

// hasReason reports whether a lower floor gave err the reason.
func hasReason(err error, r Reason) bool {
	var re *reason.Error
	return errors.As(err, &re) && re.Reason == r
}

// interim passes a 1xx on.
//
// RFC 9110, section 15.2: a proxy forwards 1xx responses unless it asked for
// them itself.
func (s *Session) interim() error {
	if s.interims++; s.interims > maxInterim {
		return &Error{Reason: reason.UpstreamInterimLimit}
	}
	s.dropped = s.resp.Status == 100 && s.body.continued
	if s.resp.Status != 100 && s.proxy.DropInterim {
		s.dropped = true
	}
	cleanResponse(&s.resp, s.proxy.KeepHopByHop)
	for i := range s.plan.interim {
		h := &s.plan.interim[i]
		if err := s.ran(h.name, h.index, h.run(s)); err != nil {
			return err
		}
	}
	if s.dropped {
		return nil
	}
	return s.writeInterim()
}

// responseHead runs the hooks over the final head and hands it to the client's
// side.
func (s *Session) responseHead() error {
	if s.duplex && s.conn.h1 != nil {
		if s.awaitPump(); s.responded {
			return errResponded
		}
	}
	cleanResponse(&s.resp, s.proxy.KeepHopByHop)
	s.phase = phaseResponse
	for i := range s.plan.upstreamResponse {
		h := &s.plan.upstreamResponse[i]
		if err := s.ran(h.name, h.index, h.run(s)); err != nil {
			s.phase = phaseRequest
			s.failedByHook = !s.responded
			return err
		}
	}
	if !s.resp.Header.HasID(message.IDDate) {
		s.resp.Header.SetID(message.IDDate, s.date())
	}
	if err := s.runResponse(); err != nil {
		return err
	}
	return s.writeHead()
}
