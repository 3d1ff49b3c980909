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
	grown int // bytes of the budget that the connection's window holds
	read  int64
}

// consumeLocked gives credit back for n bytes that nobody holds any more.
func (st *Stream) consumeLocked(n int) {
	c := st.c
	if !st.inEnd && st.err == nil && st.id != 0 {
		if up := st.recv.Consume(n); up > 0 {
			c.out.append(h2frame.AppendWindowUpdate(c.out.tail(), st.id, uint32(up)))
			c.kickLocked()
			c.tuneLocked(0)
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

// tuneLocked notes that n bytes came, and begins to measure a round trip. That is
// worth a ping only where half a window came already.
func (c *Conn) tuneLocked(n int) {
	if c.tune.tuner.Recv(c.sweep.Now(), n) {
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

// shrinkLocked takes grown windows back when the budget is nearly used up.
func (c *Conn) shrinkLocked() {
	if c.tune.grown == 0 || !c.cfg.Windows.tight() {
		return
	}
	c.recv.Shrink(c.cfg.ConnWindow)
	c.cfg.Windows.give(c.tune.grown)
	c.tune.grown = 0
	for _, st := range c.streams {
		if st.grown > 0 {
			st.recv.Shrink(c.cfg.StreamWindow)
			c.returnWindowLocked(st)
		}
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
