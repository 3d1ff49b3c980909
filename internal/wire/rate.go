package wire

import (
	"math"
	"time"
)

// Rate bounds how slow the other end may be while we wait for it: a sender of
// one byte a minute passes every timeout and holds a connection for ever.
// Only the time spent waiting counts. Of what was read all does: a sender that was
// fast may pause. Of what was written only that counts for which we waited: the rest
// may not have left our own buffers.
type Rate struct {
	perSecond int
	grace     time.Duration
	waited    time.Duration
	bytes     int64
	since     time.Duration // of the present wait
}

// SetMinRate sets the least bytes that must have come for each second that reads
// wait, once they have waited for grace in all. Zero is no bound. It starts anew.
func (c *Conn) SetMinRate(perSecond int, grace time.Duration) {
	c.rRate = NewRate(perSecond, grace)
}

// SetMinWriteRate is SetMinRate for writes.
func (c *Conn) SetMinWriteRate(perSecond int, grace time.Duration) {
	c.wRate = NewRate(perSecond, grace)
}

// NewRate returns a Rate of so many bytes a second, which counts once the waits
// have taken grace in all. Zero bytes are no bound.
func NewRate(perSecond int, grace time.Duration) Rate {
	return Rate{perSecond: perSecond, grace: grace}
}

// Deadline returns when a wait that begins now would be too slow.
func (r *Rate) Deadline(now time.Duration) time.Duration {
	if r.perSecond == 0 {
		return math.MaxInt64 / 2
	}
	r.since = now
	earned := time.Duration(r.bytes) * time.Second / time.Duration(r.perSecond)
	return now + max(r.grace, earned) - r.waited
}

// Note counts a wait that is over and the bytes that it brought.
func (r *Rate) Note(now time.Duration, n int) {
	if r.perSecond > 0 {
		r.waited += now - r.since
		r.bytes += int64(n)
	}
}

// Credit counts bytes that came without a wait.
func (r *Rate) Credit(n int) {
	if r.perSecond > 0 {
		r.bytes += int64(n)
	}
}

// TooSlow reports whether too little came in the time that was waited.
func (r *Rate) TooSlow() bool {
	return r.perSecond > 0 && r.waited > r.grace &&
		r.bytes < int64(r.waited)*int64(r.perSecond)/int64(time.Second)
}
