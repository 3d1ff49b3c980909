package h2

import (
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
)

// This file is what each frame does. All of it runs on the reader goroutine.

// verdict makes an error of what the machines say; nil means that the frame is
// taken, or ignored.
func verdict(v h2stream.Verdict, stream uint32) error {
	if e := v.Err(stream); e != nil {
		return e
	}
	return nil
}

func (c *Conn) data(h h2frame.Header, p []byte) error {
	b, ferr := h2frame.ParseData(h, p)
	if ferr != nil {
		return ferr
	}
	end := h.Flags.Has(h2frame.FlagEndStream)
	c.mu.Lock()
	defer c.unlock()
	// RFC 9113, section 6.9.1: padding counts too, and so does what comes for a
	// stream that is closed already.
	if v := c.recv.Recv(h.Length); v != h2stream.Accept {
		return v.Err(0)
	}
	st := c.streams[h.Stream]
	v := h2stream.Accept
	if st == nil {
		v = c.ids.Recv(h.Stream, h.Type)
	} else {
		v = st.recvDataLocked(h.Length, len(b), end)
	}
	if st == nil || v != h2stream.Accept {
		c.consumeConnLocked(h.Length)
		return verdict(v, h.Stream)
	}
	if len(b) == 0 && h.Length > 0 && !end {
		if v := c.abuse.Spend(&limits, h2stream.EmptyFrames, c.sweep.Now()); v != h2stream.Accept {
			return v.Err(0)
		}
	}
	c.tuneLocked(st, h.Length)
	st.in.push(b)
	st.inEnd = end
	if n := h.Length - len(b); n > 0 {
		st.consumeLocked(n)
	}
	if len(b) > 0 || end {
		st.r.wake()
	}
	st.endedLocked()
	return nil
}

// recvDataLocked says what a DATA frame of n bytes, size of them content, earns.
func (st *Stream) recvDataLocked(n, size int, end bool) h2stream.Verdict {
	v := st.state.RecvData(end)
	if v == h2stream.Accept {
		v = st.recv.Recv(n)
	}
	if v == h2stream.Accept {
		v = st.content.Recv(size, end)
	}
	return v
}

func (c *Conn) priority(h h2frame.Header, p []byte) error {
	// RFC 9113, section 5.3.2: it means nothing any more.
	if _, ferr := h2frame.ParsePriority(h, p); ferr != nil {
		return ferr
	}
	return nil
}

func (c *Conn) priorityUpdate(p []byte) error {
	id, value, ferr := h2frame.ParsePriorityUpdate(p)
	if ferr != nil {
		return ferr
	}
	if c.role == h2frame.Client {
		// RFC 9218, section 7.1: only clients send it.
		return violation(h2frame.ProtocolError, "PRIORITY_UPDATE from a server")
	}
	// RFC 9218, section 7: it is a complete set; what it leaves out has its default.
	prio := h2stream.ParsePriority(h2stream.DefaultPriority(), value)
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.streams[id]; st != nil {
		st.rank.Priority = prio
		return nil
	}
	return c.earlyLocked(id, prio)
}

// earlyLocked keeps the priority of a stream that is not open yet.
//
// RFC 9218, section 7.1: together with those that are open there may be no more of
// them than streams.
func (c *Conn) earlyLocked(id uint32, prio h2stream.Priority) error {
	if c.ids.Standing(id) != h2stream.StandingNew {
		return nil
	}
	if _, known := c.early[id]; !known && len(c.early)+len(c.streams) >= c.cfg.MaxStreams {
		return violation(h2frame.ProtocolError, "more priorities of streams that are not open than there may be streams")
	}
	if c.early == nil {
		c.early = map[uint32]h2stream.Priority{}
	}
	c.early[id] = prio
	return nil
}

// takeEarlyLocked gives a stream that opens the priority that came before it, which
// overrides that of its head. Streams that were passed over do not open any more
// (RFC 9113, section 5.1.1).
func (c *Conn) takeEarlyLocked(st *Stream, id uint32) {
	if len(c.early) == 0 {
		return
	}
	if prio, ok := c.early[id]; ok {
		st.rank.Priority = prio
	}
	for old := range c.early {
		if old <= id {
			delete(c.early, old)
		}
	}
}

func (c *Conn) reset(h h2frame.Header, p []byte) error {
	code := h2frame.ParseReset(p)
	c.mu.Lock()
	st := c.streams[h.Stream]
	if st == nil {
		defer c.mu.Unlock()
		return verdict(c.ids.Recv(h.Stream, h.Type), h.Stream)
	}
	st.state.RecvReset()
	e := &Error{Code: code, Remote: true, Unprocessed: code == h2frame.RefusedStream}
	if code == h2frame.NoError && c.role == h2frame.Client && st.inEnd {
		// RFC 9113, section 8.1: a server that has answered in full may stop an
		// upload this way; the answer stands.
		st.stopped = e
		st.w.wake()
	} else {
		st.failLocked(e)
	}
	c.removeLocked(st)
	c.unlock()
	st.tellGone(e)
	return nil
}

// resetStream abandons a stream on which the other end made an error.
func (c *Conn) resetStream(fe *h2frame.Error) error {
	c.mu.Lock()
	st := c.streams[fe.Stream]
	read := true
	switch {
	case st != nil:
		st.resetLocked(fe.Code, fe)
	case c.ids.Standing(fe.Stream) != h2stream.StandingClosed:
		// RFC 9113, section 6.4: an idle stream cannot be reset.
		c.mu.Unlock()
		return violation(fe.Code, fe.Detail)
	default:
		c.ids.Closed(fe.Stream, h2stream.EndReset)
		read = c.controlLocked(h2frame.AppendReset(c.out.tail(), fe.Stream, fe.Code))
	}
	v := h2stream.Accept
	if c.role == h2frame.Server || st == nil {
		// The origin's faults on streams of ours are as many as our requests.
		v = c.abuse.Spend(&limits, h2stream.Provoked, c.sweep.Now())
	}
	c.unlock()
	if st != nil {
		st.tellGone(&Error{Code: fe.Code, Err: fe})
	}
	if !read {
		return errUnread
	}
	return verdict(v, 0)
}

func (c *Conn) windowUpdate(h h2frame.Header, p []byte) error {
	inc, ferr := h2frame.ParseWindowUpdate(h, p)
	if ferr != nil {
		return ferr
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.abuse.RecvWindowUpdate(&limits, inc, c.sweep.Now()); v != h2stream.Accept {
		return v.Err(0)
	}
	window := &c.send
	if h.Stream != 0 {
		st := c.streams[h.Stream]
		if st == nil {
			return verdict(c.ids.Recv(h.Stream, h.Type), h.Stream)
		}
		window = &st.send
	}
	if err := verdict(window.Add(inc), h.Stream); err != nil {
		return err
	}
	c.wakeWritersLocked()
	return nil
}

func (c *Conn) goAway(p []byte) error {
	last, code, debug := h2frame.ParseGoAway(p)
	c.mu.Lock()
	if c.role == h2frame.Server || c.draining == drainRemote {
		// One says it all, a second one where the end is; who sends many more wants
		// something else.
		if v := c.abuse.Spend(&limits, h2stream.UnknownFrames, c.sweep.Now()); v != h2stream.Accept || c.role == h2frame.Server {
			// A client will open no more; what runs is finished.
			c.mu.Unlock()
			return verdict(v, 0)
		}
	}
	c.draining = drainRemote
	e := &Error{Code: code, Remote: true, Conn: true, Unprocessed: true, Err: debugError(debug)}
	var lost []*Stream
	for id, st := range c.streams {
		if id > last {
			lost = append(lost, st)
			st.failLocked(e)
			st.state.Abandon()
			c.removeLocked(st)
		}
	}
	c.checkDrainedLocked()
	c.freed = true
	c.unlock()
	for _, st := range lost {
		st.tellGone(e)
	}
	return nil
}

type debugText string

func (d debugText) Error() string { return string(d) }

// debugError returns what the other end said in a GOAWAY, shortened.
func debugError(debug []byte) error {
	if len(debug) == 0 {
		return nil
	}
	return debugText(debug[:min(len(debug), 200)])
}
