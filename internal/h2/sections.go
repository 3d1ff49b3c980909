package h2

import (
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
	"github.com/cirqueproxy/cirque/message"
)

// block is a field section of which not all frames have come. It belongs to the
// reader goroutine.
type block struct {
	stream uint32 // 0: there is none
	begun  bool   // since noteOwed last looked
	end    bool   // END_STREAM
	frames int
	b      []byte
}

// maxContinuations bounds the frames of a section: an end that sends it in many
// small ones, or in ones of no bytes for ever (CVE-2024-27316), costs more than it
// is worth.
const maxContinuations = 16

// blockBytes bounds a section as it comes. It is more than what a section may be, so
// that one that is too large is answered; one that is far too large is not read.
func (cfg *Config) blockBytes() int { return 2 * cfg.HeadBytes }

// heldBytes bounds the decoded sections that the streams of a connection hold
// together. References of one byte to a large entry of the dynamic table make 100
// sections of 64 KiB out of a few packets; with closed windows their streams would
// keep them for as long as a response may wait (the HPACK bomb of 2026).
func (c *Conn) heldBytes() int { return 5 * c.cfg.HeadBytes }

// holdLocked counts the present section as held by st, and reports false where
// there is no room for it.
func (c *Conn) holdLocked(st *Stream) bool {
	n := c.head.size
	if c.headHeld+n > c.heldBytes() {
		return false
	}
	c.headHeld += n
	st.held += n
	return true
}

func (c *Conn) headers(h h2frame.Header, p []byte) error {
	fragment, _, _, ferr := h2frame.ParseHeaders(h, p)
	if ferr != nil {
		// The section could not be decoded in step: the connection is lost.
		return violation(ferr.Code, ferr.Detail)
	}
	end := h.Flags.Has(h2frame.FlagEndStream)
	if h.Flags.Has(h2frame.FlagEndHeaders) {
		return c.section(h.Stream, end, fragment)
	}
	c.block.stream, c.block.begun, c.block.end, c.block.frames = h.Stream, true, end, 0
	c.block.b = append(c.block.b[:0], fragment...)
	return nil
}

func (c *Conn) continuation(h h2frame.Header, p []byte) error {
	if c.block.stream == 0 {
		return violation(h2frame.ProtocolError, "CONTINUATION without HEADERS")
	}
	if c.block.frames++; c.block.frames > maxContinuations || len(c.block.b)+len(p) > c.cfg.blockBytes() {
		return violation(h2frame.EnhanceYourCalm, "the field section is too long")
	}
	c.block.b = append(c.block.b, p...)
	if !h.Flags.Has(h2frame.FlagEndHeaders) {
		return nil
	}
	id := c.block.stream
	c.block.stream = 0
	err := c.section(id, c.block.end, c.block.b)
	if cap(c.block.b) > recvFrame {
		c.block.b = nil
	}
	return err
}

// section handles a whole field section.
func (c *Conn) section(id uint32, end bool, b []byte) error {
	c.mu.Lock()
	st := c.streams[id]
	head := st != nil && c.role == h2frame.Client && !st.state.HeadReceived()
	c.mu.Unlock()
	// From here on st may end, and its memory serve another stream: who takes the
	// lock again looks whether it is still this one's.
	switch {
	case head:
		return c.responseHead(st, id, end, b)
	case st != nil:
		return c.trailer(st, id, end, b)
	case c.role == h2frame.Server:
		return c.newStream(id, end, b)
	}
	return c.stray(id, b)
}

// stray handles a section for a stream that is not open.
func (c *Conn) stray(id uint32, b []byte) error {
	if err := c.decode(discarded, nil, b); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return verdict(c.ids.Recv(id, h2frame.TypeHeaders), id)
}

// decode decodes a section into h. Each has to be decoded, wanted or not: the
// table that the other end keeps follows from all.
func (c *Conn) decode(kind sectionKind, h *message.Header, b []byte) error {
	c.head.start(kind, h)
	_, err := c.dec.Write(b)
	if err == nil {
		err = c.dec.Close()
	}
	if err != nil {
		// RFC 9113, section 4.3.
		return violation(h2frame.CompressionError, err.Error())
	}
	return nil
}

// newStream begins a stream of a client.
func (c *Conn) newStream(id uint32, end bool, b []byte) error {
	c.mu.Lock()
	if c.ids.Standing(id) != h2stream.StandingNew {
		c.mu.Unlock()
		return c.stray(id, b)
	}
	st := c.allocLocked()
	c.mu.Unlock()
	if err := c.decode(requestHead, &st.Req.Header, b); err != nil {
		return err
	}
	st.Protocol, st.Refusal = c.head.request(&st.Req, end)
	if p := st.Req.Header.ViewID(message.IDPriority); p != nil {
		st.rank.Priority = h2stream.ParsePriority(h2stream.DefaultPriority(), p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.ids.Recv(id, h2frame.TypeHeaders)
	if v == h2stream.Accept && c.head.bad == "" && c.mayRunLocked() && !c.closing && c.holdLocked(st) {
		st.openLocked(id, end)
		c.takeEarlyLocked(st, id)
		c.running++
		st.served = true
		c.idleSince = 0
		c.startLocked(st)
		return nil
	}
	if c.head.size <= maxKeptHead {
		c.freeList = append(c.freeList, st)
	}
	switch {
	case v != h2stream.Accept, c.closing:
		return verdict(v, id)
	case c.head.bad != "":
		return c.head.malformed(id)
	}
	return &h2frame.Error{Code: h2frame.RefusedStream, Stream: id, Detail: "more streams, or more in their heads, than permitted"}
}

// maxEnding bounds the handlers that have answered in full and are not through, per
// stream that may be open: hooks that take their time must not gather without end.
const maxEnding = 4

// mayRunLocked reports whether a client may have another stream. Handlers whose stream
// has ended count by limits of their own: a client that has the end of an answer, or
// gave a stream up, may open the next one before the handler has returned. Of those
// that were reset there may be as many as of streams, since they make work.
//
// RFC 9113, section 5.1.2: closed streams do not count towards the limit.
func (c *Conn) mayRunLocked() bool {
	n := c.cfg.MaxStreams
	return len(c.streams) < n && c.running-c.ending < 2*n && c.ending < maxEnding*n
}

// openLocked begins the stream's life.
func (st *Stream) openLocked(id uint32, end bool) {
	c := st.c
	st.id = id
	st.rank.Stream = id
	c.streams[id], st.listed = st, true
	st.state = h2stream.NewMachine(c.role)
	st.send = h2stream.NewSendWindow(c.peer.InitialWindowSize)
	st.recv = h2stream.NewRecvWindow(c.cfg.StreamWindow)
	if !c.acked {
		st.recv = h2stream.NewRecvWindow(c.firstWindow())
	}
	if c.role == h2frame.Server {
		st.state.RecvHeaders(false, end)
		st.inEnd, st.content = end, h2stream.NewContent(st.Req.Length())
	}
}

// trailer handles a section behind the head of a stream.
func (c *Conn) trailer(st *Stream, id uint32, end bool, b []byte) error {
	var trailer message.Header
	if err := c.decode(trailerSection, &trailer, b); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.unlock()
	if c.streams[id] != st {
		return nil
	}
	v := st.state.RecvHeaders(false, end)
	if v == h2stream.Accept {
		v = st.content.Recv(0, true)
	}
	switch {
	case v != h2stream.Accept:
		return verdict(v, id)
	case c.head.bad != "":
		return c.head.malformed(id)
	case c.head.tooLarge || !c.holdLocked(st):
		return &h2frame.Error{Code: h2frame.EnhanceYourCalm, Stream: id, Detail: "the trailer section is larger than the limit"}
	}
	st.trail.CopyFrom(&trailer)
	st.inEnd = true
	st.r.wake()
	st.endedLocked()
	return nil
}

// maxHeads bounds the interim heads that wait to be read, and their bytes: an
// origin that sends them without end must not fill our memory.
const maxHeads = 16

func (c *Conn) responseHead(st *Stream, id uint32, end bool, b []byte) error {
	resp := getHead()
	if err := c.decode(responseHead, &resp.Header, b); err != nil {
		return err
	}
	interim := c.head.response(resp, end)
	c.mu.Lock()
	defer c.unlock()
	if c.streams[id] != st {
		putHead(resp)
		return nil
	}
	if v := st.state.RecvHeaders(interim, end); v != h2stream.Accept {
		return verdict(v, id)
	}
	switch {
	case c.head.bad != "":
		return c.head.malformed(id)
	case c.head.tooLarge:
		return &h2frame.Error{Code: h2frame.EnhanceYourCalm, Stream: id, Detail: "the field section is larger than the limit"}
	case len(st.heads) >= maxHeads || interim && st.headSz+c.head.size > c.cfg.HeadBytes || !c.holdLocked(st):
		return &h2frame.Error{Code: h2frame.EnhanceYourCalm, Stream: id, Detail: "more interim responses than anybody reads"}
	}
	st.heads = append(st.heads, resp)
	st.headSz += c.head.size
	if !interim {
		length := resp.Length()
		switch {
		case st.connect && resp.Status < 300:
			length = -1 // RFC 9110, section 9.3.6: it means nothing there
		case st.headOnly, resp.Status == 204, resp.Status == 304:
			length = 0 // RFC 9113, section 8.1.1: Content-Length says what would have been
		}
		st.content = h2stream.NewContent(length)
		if end {
			if v := st.content.Recv(0, true); v != h2stream.Accept {
				return verdict(v, id)
			}
		}
		st.inEnd = end
	}
	st.r.wake()
	st.endedLocked()
	return nil
}
