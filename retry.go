package cirque

import (
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/reason"
)

// maxStale bounds the pooled connections that turn out to be dead, with nothing
// sent on them, in one session. Where several are, the origin was restarted and
// all are: the next attempt makes a new one.
const maxStale = 2

// again decides whether a failed attempt is followed by another. If not, it
// returns the error to give up with.
func (s *Session) again(e *Error) (bool, error) {
	for i := range s.plan.failed {
		h := &s.plan.failed[i]
		if err := s.ran(h.name, h.index, h.run(s, e)); err != nil {
			return false, err
		}
	}
	if s.mayRetry(e) {
		return true, nil
	}
	return false, e
}

// mayRetry is the ladder. Each rung is a question; the first that is answered
// decides.
func (s *Session) mayRetry(e *Error) bool {
	switch {
	case s.down.Started():
		// The client has a part of this response: another cannot follow it.
		return false
	case s.noRetry, s.responded:
		// A hook narrowed what is allowed.
		return false
	case e.Side() != Upstream && !s.failedByHook:
		// The client's fault or ours: another peer changes nothing.
		return false
	case e.Peer == "":
		// No peer was chosen: asking again gives the same answer.
		return false
	case !s.body.replayable(e.Sent):
		// A part of the body is gone.
		return false
	case !e.Sent && e.Reused && s.stale < maxStale:
		// The pooled connection was dead before we wrote to it. It says nothing
		// about the peer and does not count.
		s.stale++
		return true
	case s.attempts-s.stale >= s.proxy.Retry.attempts():
		return false
	case !e.Sent:
		// Nothing reached an origin. A refused connect costs no budget either: it
		// loads nobody.
		return true
	case !(idempotent(s.req.Method()) && idempotent(s.upReq.Method())) && !s.proxy.Retry.NonIdempotent:
		// RFC 9110, section 9.2.2: a proxy must not repeat a request that is not
		// idempotent by itself.
		return false
	case s.failedByHook, e.Reason == reason.UpstreamClosed, e.Reason == reason.UpstreamReset:
		// The connection died before a response, or a filter refused it. One of the
		// pool may have died of its age or with the process that served it, and then
		// the next one as well: that makes no second attempt, so it gets a new one.
		s.newConn = s.newConn || e.Reused && !s.failedByHook
	case e.Reason == reason.UpstreamTimeout && s.proxy.Retry.PerTry > 0:
		// The configured time of one try passed.
	default:
		return false
	}
	return s.proxy.budget.take(time.Now().Unix(), s.proxy.Retry.BudgetPercent)
}

// idempotent reports whether repeating the request has the effect of making it
// once.
//
// RFC 9110, section 9.2.2: PUT, DELETE and the safe methods are idempotent.
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// budget bounds the repeated requests of a route, so that a peer in trouble is
// not buried under them. It counts in windows of budgetWindow seconds.
type budget struct {
	window   atomic.Int64
	requests atomic.Int64
	retries  atomic.Int64
}

const (
	budgetWindow = 10  // seconds
	budgetFloor  = 100 // retries in a window that are always allowed
)

// roll begins a new window when the old one is over.
func (b *budget) roll(unix int64) {
	w := unix / budgetWindow
	if old := b.window.Load(); old < w && b.window.CompareAndSwap(old, w) {
		b.requests.Store(0)
		b.retries.Store(0)
	}
}

// seen counts a request.
func (b *budget) seen(unix int64) {
	b.roll(unix)
	b.requests.Add(1)
}

// take reports whether one more repetition is within percent of the requests.
func (b *budget) take(unix int64, percent int) bool {
	switch {
	case percent < 0:
		return true
	case percent == 0:
		percent = 20
	}
	b.roll(unix)
	if b.retries.Add(1) <= max(budgetFloor, b.requests.Load()*int64(percent)/100) {
		return true
	}
	b.retries.Add(-1)
	return false
}
