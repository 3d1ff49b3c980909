package h2

import (
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// Stream is one request and its response. One goroutine reads from it and one
// writes to it, which may be the same; methods said to be for any goroutine may
// be called from others. It ends with Done.
type Stream struct {
	// User is its owner's; it stays when the memory serves another stream.
	User any
	// Req is the request that a client sent (Server), its Trailer filled when
	// the body was read to its end. It belongs to the stream's owner.
	Req message.Request
	// Protocol is what an extended CONNECT asks for, RFC 8441.
	Protocol string
	// Refusal says why the request cannot be served although the stream is all
	// right; nil if it can.
	Refusal *Refusal

	c *Conn // immutable
	use

	watchMu sync.Mutex
	gone    func(*Error) // Guarded by watchMu.
}

// use is what belongs to one use of a Stream's memory.
type use struct {
	// Guarded by c.mu.
	id      uint32
	state   h2stream.Machine
	send    h2stream.SendWindow
	recv    h2stream.RecvWindow
	rank    h2stream.Rank
	err     *Error
	in      chunks
	inEnd   bool
	content h2stream.Content
	heads   []*message.Response
	headSz  int // bytes in heads
	trail   message.Header
	rCause  error // ends reads
	wCause  error // ends writes
	stopped error // ends writes, for good: the other end has answered and wants no more
	held    int   // bytes of decoded sections, in c.headHeld
	r, w    wait
	needs   int   // body bytes that a write waits to send
	queued  bool  // in c.waiting
	listed  bool  // in c.streams
	grown   int   // bytes of the budget that the receive window holds
	done    bool  // the owner is through
	served  bool  // Server: counted in c.running; Client: in c.opened
	ending  bool  // Server: counted in c.ending
	came    int64 // bytes of DATA that came
	gotten  int64 // bytes of body read, for the rate

	// Owned by the reading goroutine.
	lent    chunk
	rTime   time.Duration
	rRate   wire.Rate
	rated   int64 // bytes that rRate knows of
	bodyEnd bool  // Guarded by c.mu.

	// Owned by the writing goroutine.
	wTime    time.Duration
	wRate    wire.Rate
	outLeft  int64 // of the body that is to be sent; -1: unknown
	headOnly bool  // Client: the request is a HEAD
	connect  bool  // Client: the request is a CONNECT
	sentEnd  bool
	started  bool
	pending  bool // something of it is in out and no writer was told
}

// wait is where one goroutine of a stream's waits.
type wait struct {
	c    chan struct{} // one slot
	on   bool          // somebody waits
	late bool          // its time is over
	at   time.Duration // on the sweep's clock; 0: no end
}

func (w *wait) wake() {
	if w.on {
		w.on = false
		w.c <- struct{}{}
	}
}

// waitLocked gives c.mu up until w is woken. It returns wire.ErrTimeout when that
// did not happen before the sweep's clock was at.
func (st *Stream) waitLocked(w *wait, at time.Duration) error {
	w.on, w.late, w.at = true, false, at
	st.c.mu.Unlock()
	<-w.c
	st.c.mu.Lock()
	if w.late {
		return wire.ErrTimeout
	}
	return nil
}

// lateLocked ends waits whose time is over.
func (st *Stream) lateLocked(now time.Duration) {
	for _, w := range [...]*wait{&st.r, &st.w} {
		if w.on && w.at > 0 && now >= w.at {
			w.late = true
			w.wake()
		}
	}
}

// failLocked ends both directions.
func (st *Stream) failLocked(e *Error) {
	if st.err == nil {
		st.err = e
	}
	st.r.wake()
	st.w.wake()
}

// tellGone calls what Watch was given.
func (st *Stream) tellGone(e *Error) {
	st.watchMu.Lock()
	defer st.watchMu.Unlock()
	if st.gone != nil {
		st.gone(e)
		st.gone = nil
	}
}

// Watch calls gone when the other end abandons the stream, or the connection
// ends, before Unwatch: at most once, and never after Unwatch has returned.
func (st *Stream) Watch(gone func(*Error)) {
	st.watchMu.Lock()
	st.gone = gone
	st.watchMu.Unlock()
	st.c.mu.Lock()
	e := st.err
	st.c.mu.Unlock()
	if e != nil {
		st.tellGone(e)
	}
}

// Unwatch ends Watch.
func (st *Stream) Unwatch() {
	st.watchMu.Lock()
	st.gone = nil
	st.watchMu.Unlock()
}

// Interrupt makes the present waits and all later ones of reads, of writes or of
// both return a cause, until ClearInterrupt; the first cause stands. It is for any
// goroutine.
func (st *Stream) Interrupt(read, write error) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if read != nil && st.rCause == nil {
		st.rCause = read
		st.r.wake()
	}
	if write != nil && st.wCause == nil {
		st.wCause = write
		st.w.wake()
	}
}

// ClearInterrupt takes interruptions back. It is for any goroutine.
func (st *Stream) ClearInterrupt() {
	st.c.mu.Lock()
	st.rCause, st.wCause = nil, nil
	st.c.mu.Unlock()
}

// Conn returns the connection.
func (st *Stream) Conn() *Conn { return st.c }

// ID returns the stream's identifier; 0 before a client has sent its head.
func (st *Stream) ID() uint32 {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.id
}

// Err returns why the stream ended before its time, or nil. It is for any
// goroutine.
func (st *Stream) Err() error {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.err == nil {
		return nil
	}
	return st.err
}

// SetReadTimeout bounds each wait for a head or for body. Zero is no bound.
func (st *Stream) SetReadTimeout(d time.Duration) { st.rTime = d }

// SetWriteTimeout bounds each wait for credit or for the writer. Zero is no bound.
func (st *Stream) SetWriteTimeout(d time.Duration) { st.wTime = d }

// SetMinRate sets the least bytes a second that must come, and that the other
// end must take, while the stream waits for it, once it has waited for grace in
// all. Zero is no bound.
func (st *Stream) SetMinRate(read, write int, grace time.Duration) {
	st.SetReadRate(read, grace)
	st.SetWriteRate(write, grace)
}

// SetReadRate is SetMinRate for what must come.
func (st *Stream) SetReadRate(perSecond int, grace time.Duration) {
	st.rRate = wire.NewRate(perSecond, grace)
}

// SetWriteRate is SetMinRate for what the other end must take.
func (st *Stream) SetWriteRate(perSecond int, grace time.Duration) {
	st.wRate = wire.NewRate(perSecond, grace)
}

// until returns when a wait that begins now is over: the time without progress
// counts from since on.
func (st *Stream) until(since, timeout time.Duration, r *wire.Rate) time.Duration {
	at := r.Deadline(st.c.sweep.Now())
	if timeout > 0 {
		at = min(at, since+timeout)
	}
	return at + st.c.sweep.Late() // an expiry is never early
}

// Reset abandons the stream. It does nothing to one that has ended.
func (st *Stream) Reset(code h2frame.Code) {
	st.c.mu.Lock()
	st.resetLocked(code, nil)
	st.c.unlock()
}

func (st *Stream) resetLocked(code h2frame.Code, cause error) {
	c := st.c
	if st.listed {
		st.state.SendReset()
		c.out.append(h2frame.AppendReset(c.out.tail(), st.id, code))
		c.kickLocked()
		c.removeLocked(st)
	}
	st.failLocked(&Error{Code: code, Err: cause})
}

// removeLocked takes a stream that has ended out of the table.
func (c *Conn) removeLocked(st *Stream) {
	delete(c.streams, st.id)
	st.listed = false
	c.ids.Closed(st.id, st.state.End())
	if c.role == h2frame.Server && st.served && st.state.End() == h2stream.EndBoth {
		st.ending = true
		c.ending++
	}
	c.dequeueLocked(st)
	c.slotLocked(st)
}

// endedLocked notes that one direction has ended, and what follows when both
// have.
func (st *Stream) endedLocked() {
	if st.state.End() != h2stream.EndNone && st.listed {
		st.c.removeLocked(st)
	}
}

// Done gives the stream back. What the other end still sends for it is dropped;
// a server that is through before the client says so (RFC 9113, section 8.1).
func (st *Stream) Done() {
	c := st.c
	st.Unwatch()
	c.mu.Lock()
	defer c.unlock()
	st.done = true
	if st.pending {
		c.kickLocked()
	}
	st.returnLentLocked()
	if st.listed {
		code := h2frame.Cancel
		switch {
		case c.role == h2frame.Server && st.sentEnd:
			code = h2frame.NoError
		case c.role == h2frame.Server:
			code = h2frame.InternalError
		}
		st.resetLocked(code, nil)
	}
	c.consumeConnLocked(st.in.drop())
	c.returnWindowLocked(st)
	if c.role == h2frame.Client {
		c.slotLocked(st)
	}
	c.recycleLocked(st)
	c.checkDrainedLocked()
}
