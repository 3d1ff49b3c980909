package wire

import (
	"math"
	"time"
)

// rate bounds how slow the other end may be while we wait for it: a sender of
// one byte a minute passes every timeout and holds a connection for ever.
// Only the time spent waiting counts.
type rate struct {
	perSecond int
	grace     time.Duration
	waited    time.Duration
	bytes     int64
	since     time.Duration // of the present wait
}

// SetMinRate sets the least bytes a second that must come while reads wait, once
// they have waited for grace in all. Zero is no bound. It starts anew.
func (c *Conn) SetMinRate(perSecond int, grace time.Duration) {
	c.rRate = rate{perSecond: perSecond, grace: grace}
}

// SetMinWriteRate is SetMinRate for writes.
func (c *Conn) SetMinWriteRate(perSecond int, grace time.Duration) {
	c.wRate = rate{perSecond: perSecond, grace: grace}
}

// deadline returns when a wait that begins now would be too slow.
func (r *rate) deadline(now time.Duration) time.Duration {
	if r.perSecond == 0 {
		return math.MaxInt64 / 2
	}
	r.since = now
	earned := time.Duration(r.bytes) * time.Second / time.Duration(r.perSecond)
	return now + max(r.grace, earned) - r.waited
}

// note counts a wait that is over and the bytes that it brought.
func (r *rate) note(now time.Duration, n int) {
	if r.perSecond > 0 {
		r.waited += now - r.since
		r.bytes += int64(n)
	}
}

func (r *rate) tooSlow() bool {
	return r.perSecond > 0 && r.waited > r.grace &&
		r.bytes < int64(r.waited)*int64(r.perSecond)/int64(time.Second)
}
