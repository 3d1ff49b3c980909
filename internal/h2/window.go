package h2

import (
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
)

// WindowBudget bounds by how much the windows of all connections of a process
// may grow together: what other ends may make us keep.
type WindowBudget struct {
	max  int64
	used atomic.Int64
}

// NewWindowBudget returns a budget of max bytes.
func NewWindowBudget(max int64) *WindowBudget { return &WindowBudget{max: max} }

func (b *WindowBudget) take(n int) bool {
	if b.used.Add(int64(n)) <= b.max {
		return true
	}
	b.used.Add(int64(-n))
	return false
}

func (b *WindowBudget) give(n int) { b.used.Add(int64(-n)) }

// tight reports whether windows should shrink.
func (b *WindowBudget) tight() bool { return b.used.Load() > b.max/4*3 }

// tuning makes windows as large as a round trip asks for.
type tuning struct {
	tuner h2stream.Tuner
	grown int  // bytes of the budget that the connection's window holds
	tight bool // windows are to stay as they were first
	read  int64
}

// consumeLocked gives credit back for n bytes that nobody holds any more.
func (st *Stream) consumeLocked(n int) {
	c := st.c
	if !st.inEnd && st.err == nil && st.id != 0 {
		if up := st.recv.Consume(n); up > 0 {
			c.out.append(h2frame.AppendWindowUpdate(c.out.tail(), st.id, uint32(up)))
			c.kickLocked()
		}
	}
	c.consumeConnLocked(n)
}

func (c *Conn) consumeConnLocked(n int) {
	if up := c.recv.Consume(n); up > 0 && c.err == nil {
		c.out.append(h2frame.AppendWindowUpdate(c.out.tail(), 0, uint32(up)))
		c.kickLocked()
	}
}

// tuneLocked notes that n bytes came for st, and begins to measure a round trip,
// which is worth a ping only for a body of more than half a window. It begins with
// what comes, not with what is consumed: a sender that the window holds back sends it
// in one go, and when we have consumed a part of that nothing is under way any more.
func (c *Conn) tuneLocked(st *Stream, n int) {
	st.came += int64(n)
	sampling := c.ping.sent > 0 && c.ping.kind == pingTune
	if !sampling && st.came <= int64(c.cfg.StreamWindow/2) {
		return
	}
	if c.tune.tuner.Recv(c.sweep.NowExact(), n) {
		c.sendPingLocked(pingTune)
	}
}

// tunedLocked grows the windows after a round trip in which they were the bound.
func (c *Conn) tunedLocked(now time.Duration) {
	target := c.tune.tuner.Acked(now)
	// The connection's window is twice a stream's, so that one upload does not
	// shut the others out.
	if by := 2*target - c.recv.Size(); by > 0 && c.cfg.Windows.take(by) {
		c.tune.grown += by
		if up := c.recv.Grow(2 * target); up > 0 {
			c.out.append(h2frame.AppendWindowUpdate(c.out.tail(), 0, uint32(up)))
		}
	}
	for _, st := range c.streams {
		by := target - st.recv.Size()
		if by <= 0 || st.inEnd || !c.cfg.Windows.take(by) {
			continue
		}
		st.grown += by
		if up := st.recv.Grow(target); up > 0 {
			c.out.append(h2frame.AppendWindowUpdate(c.out.tail(), st.id, uint32(up)))
		}
	}
	c.kickLocked()
}

// shrinkLocked takes grown windows back when the budget is nearly used up, and lets
// none grow until it is not.
func (c *Conn) shrinkLocked() {
	if tight := c.cfg.Windows.tight(); tight != c.tune.tight {
		c.tune.tight = tight
		most := c.cfg.MaxWindow
		if tight {
			most = c.cfg.StreamWindow
		}
		c.tune.tuner.Limit(most)
	}
	c.shrinkWindow(&c.recv, c.cfg.ConnWindow, &c.tune.grown)
	for _, st := range c.streams {
		c.shrinkWindow(&st.recv, c.cfg.StreamWindow, &st.grown)
	}
}

// shrinkWindow makes a window size again, and gives back what it holds of the budget
// as that becomes true: credit cannot be taken away from who has it (RFC 9113,
// section 6.9.3), and what it lets the other end send counts until it is used up.
func (c *Conn) shrinkWindow(w *h2stream.RecvWindow, size int, grown *int) {
	if *grown == 0 || !c.tune.tight && w.Size() > size {
		return
	}
	w.Shrink(size)
	if more := w.Credit() + w.Held() - size; more < *grown {
		c.cfg.Windows.give(*grown - max(more, 0))
		*grown = max(more, 0)
	}
}

func (c *Conn) returnWindowLocked(st *Stream) {
	if st.grown > 0 {
		c.cfg.Windows.give(st.grown)
		st.grown = 0
	}
}

func (c *Conn) returnWindowsLocked() {
	if c.tune.grown > 0 {
		c.cfg.Windows.give(c.tune.grown)
		c.tune.grown = 0
	}
}
