package h2

import (
	"sync"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
	"github.com/cirqueproxy/cirque/message"
)

// This file is the life of Stream values, and how a client opens streams.

// maxFree bounds the Streams that a connection keeps for its next requests.
const maxFree = 64

// maxKeptHead bounds the sections of those: the memory behind large ones is not kept.
const maxKeptHead = 4 << 10

// allocLocked returns a Stream without an identifier.
func (c *Conn) allocLocked() *Stream {
	if n := len(c.freeList); n > 0 {
		st := c.freeList[n-1]
		c.freeList[n-1] = nil
		c.freeList = c.freeList[:n-1]
		st.reset()
		return st
	}
	st := &Stream{c: c}
	st.r.c, st.w.c = make(chan struct{}, 1), make(chan struct{}, 1)
	st.reset()
	return st
}

// reset makes a Stream ready for its next use.
func (st *Stream) reset() {
	st.Req.Reset()
	st.Protocol, st.Refusal = "", nil
	st.trail.Reset()
	old := &st.use
	next := use{heads: old.heads[:0], trail: old.trail, outLeft: -1, rank: h2stream.Rank{Priority: h2stream.UnsaidPriority()}}
	next.in.list = old.in.list[:0]
	next.r.c, next.w.c = old.r.c, old.w.c
	st.use = next
}

// recycleLocked keeps a Stream for another use, unless somebody may still be about
// to tell it something.
func (c *Conn) recycleLocked(st *Stream) {
	for _, head := range st.heads {
		putHead(head)
	}
	st.heads = st.heads[:0]
	if st.served && c.role == h2frame.Server {
		st.served = false
		c.running--
		if st.ending {
			c.ending--
		}
		if c.running == 0 {
			c.quiet.Broadcast()
		}
	}
	if len(c.streams) == 0 && c.running == 0 {
		c.idleSince = max(c.sweep.Now(), 1)
	}
	c.headHeld -= st.held
	large := st.held > maxKeptHead
	st.held = 0
	if st.err == nil && st.rCause == nil && st.wCause == nil && st.stopped == nil && !large && len(c.freeList) < maxFree && c.err == nil {
		c.freeList = append(c.freeList, st)
	}
}

// Open reserves a stream of a client. The error is ErrFull when there is no room for
// one, else why the connection takes none any more.
func (c *Conn) Open() (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, c.err
	case c.draining != drainNone:
		return nil, ErrClosed
	case c.opened >= c.slotsLocked():
		return nil, ErrFull
	}
	st := c.allocLocked()
	st.served = true
	c.opened++
	c.idleSince = 0
	return st, nil
}

// Slots returns how many more streams can be opened now, and whether the
// connection takes any at all.
func (c *Conn) Slots() (free int, alive bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	alive = c.err == nil && c.draining == drainNone
	if !alive {
		return 0, false
	}
	return c.slotsLocked() - c.opened, true
}

// slotsLocked returns how many streams may be open. Before the other end has said
// so we open one alone: more might have to be refused.
func (c *Conn) slotsLocked() int {
	if !c.seen {
		return 1
	}
	return int(min(uint32(c.cfg.MaxStreams), c.peer.MaxConcurrentStreams))
}

// Settled reports whether the other end's SETTINGS came.
func (c *Conn) Settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// IdleSince returns since when the connection has had no stream, on the sweep's
// clock, or 0.
func (c *Conn) IdleSince() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.idleSince)
}

// Extended reports whether the other end serves extended CONNECT. Before its
// SETTINGS came it is not known to.
func (c *Conn) Extended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.EnableConnect
}

// OnChange sets what is called, without a lock, when slots become free or the
// connection ends.
func (c *Conn) OnChange(f func()) {
	c.mu.Lock()
	c.changed = f
	c.mu.Unlock()
}

// openLocked gives a client's stream its identifier, which is what begins it:
// identifiers are used in order (RFC 9113, section 5.1.1).
func (c *Conn) openLocked(st *Stream) error {
	id, ok := c.ids.Next()
	if !ok || c.draining == drainRemote {
		c.draining = drainRemote // the identifiers are used up: the streams that run are the last
		return &Error{Code: h2frame.RefusedStream, Conn: true, Unprocessed: true, Err: errEnded}
	}
	st.openLocked(id, false)
	return nil
}

// slotLocked gives the place of a client's stream back.
func (c *Conn) slotLocked(st *Stream) {
	if c.role != h2frame.Client || !st.served {
		return
	}
	st.served = false
	c.opened--
	c.freed = true
	if len(c.streams) == 0 && c.opened == 0 {
		c.idleSince = max(c.sweep.Now(), 1)
	}
	c.checkDrainedLocked()
}

var heads = sync.Pool{New: func() any { return new(message.Response) }}

func getHead() *message.Response {
	r := heads.Get().(*message.Response)
	r.Reset()
	return r
}

func putHead(r *message.Response) { heads.Put(r) }
