package h2

import (
	"runtime"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/h2frame"
)

// outMax is how much of field sections and bodies is gathered before streams
// have to wait for the writer: with the frame that goes beyond it what a large buffer
// holds, so that none of it is the garbage collector's.
const outMax = buf.LargeSize - gatherMax - h2frame.HeaderLen

// controlMax bounds what frames may add to it that the other end makes us send. One
// that asks with pings, SETTINGS or faults and does not read the answers would have
// us keep them all.
const controlMax = 16 << 10

// outBuffer holds what is to be written, in a buffer that is held only while
// there is something in it.
type outBuffer struct {
	b       []byte
	mem     *buf.Buffer
	control int // bytes in b that the other end asked for
}

// tail returns where to append; append takes the result back.
func (o *outBuffer) tail() []byte {
	if o.mem == nil && o.b == nil {
		o.mem = buf.Get(buf.Small)
		o.b = o.mem.B[:0]
	}
	return o.b
}

// append takes what was appended to tail. Beyond the buffer it is the garbage
// collector's.
func (o *outBuffer) append(b []byte) { o.b = b }

// reserve sees to it that n bytes fit.
func (o *outBuffer) reserve(n int) {
	b := o.tail()
	if len(b)+n <= cap(b) {
		return
	}
	need, class := len(b)+n, buf.Large
	switch {
	case need > buf.LargeSize:
		return
	case need <= buf.SmallSize:
		class = buf.Small
	}
	larger := buf.Get(class)
	o.b = append(larger.B[:0], b...)
	if o.mem != nil {
		o.mem.Free()
	}
	o.mem = larger
}

func (o *outBuffer) free() {
	if o.mem != nil {
		o.mem.Free()
	}
	*o = outBuffer{}
}

// kickLocked sees to it that what is in out is written.
func (c *Conn) kickLocked() {
	if !c.writing && (len(c.out.b) > 0 || c.closing) {
		c.writing = true
		go c.writer()
	}
}

// write is the writer: it ends when there is nothing left. A goroutine for each
// burst costs no more than to wake one that waits, and an idle connection has
// none.
func (c *Conn) write() {
	for {
		// Let those run that are ready: what they have to say leaves with the same
		// write.
		runtime.Gosched()
		c.mu.Lock()
		o := c.out
		if len(o.b) == 0 {
			c.writing = false
			over := c.closing
			c.quiet.Broadcast()
			c.mu.Unlock()
			if over {
				c.wc.InterruptRead(ErrClosed)
			}
			return
		}
		c.out = outBuffer{}
		c.wakeWritersLocked()
		c.mu.Unlock()
		_, err := c.wc.Write(o.b)
		o.free()
		if err == nil {
			continue
		}
		c.mu.Lock()
		c.writing = false
		c.out.free()
		c.quiet.Broadcast()
		c.mu.Unlock()
		c.fail(&Error{Code: h2frame.NoError, Conn: true, Remote: true, Err: err})
		c.wc.InterruptRead(err)
		return
	}
}

// controlLocked appends a frame of a few bytes that the other end asked for, and
// reports false when it does not read what it asks for.
func (c *Conn) controlLocked(b []byte) bool {
	c.out.control += len(b) - len(c.out.b)
	c.out.append(b)
	c.kickLocked()
	return c.out.control <= controlMax
}

// roomLocked reports whether streams may add to out.
func (c *Conn) roomLocked() bool { return len(c.out.b) < outMax }

// wakeWritersLocked wakes the stream that is to send next, if it can: it wakes
// the one after it when it has had its turn.
//
// RFC 9218, section 10: urgent ones first; among equals those that are useful
// only as a whole one after the other, incremental ones in turn.
func (c *Conn) wakeWritersLocked() {
	if !c.roomLocked() {
		return
	}
	best := -1
	for i, st := range c.waiting {
		if !st.canSendLocked() {
			continue
		}
		if best < 0 || st.rank.Before(c.waiting[best].rank) {
			best = i
		}
	}
	if best >= 0 {
		c.waiting[best].w.wake()
	}
}

// canSendLocked reports whether the stream could send a part of what it wants,
// as far as credit goes.
func (st *Stream) canSendLocked() bool {
	return st.stoppedLocked() != nil || st.needs == 0 || (st.send.Available() > 0 && st.c.send.Available() > 0)
}

// enqueueLocked notes that the stream waits to send.
func (c *Conn) enqueueLocked(st *Stream) {
	if !st.queued {
		st.queued = true
		c.waiting = append(c.waiting, st)
	}
}

// dequeueLocked ends that, and lets the next one send.
func (c *Conn) dequeueLocked(st *Stream) {
	if !st.queued {
		return
	}
	st.queued = false
	for i, o := range c.waiting {
		if o == st {
			// In order: incremental streams take turns.
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			break
		}
	}
	c.wakeWritersLocked()
}
