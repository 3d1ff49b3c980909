package h2

import (
	"bytes"
	"io"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
)

// This file belongs to the reader goroutine: frames as they come.

// begin exchanges prefaces.
//
// RFC 9113, section 3.4: each end sends its SETTINGS first, the client behind
// 24 bytes that no server of HTTP/1 takes for a request.
func (c *Conn) begin() error {
	c.mu.Lock()
	c.kickLocked()
	c.mu.Unlock()
	if c.role == h2frame.Client {
		return nil
	}
	c.noteOwed(true)
	for len(c.wc.Buffered()) < len(h2frame.Preface) {
		if b := c.wc.Buffered(); !bytes.HasPrefix([]byte(h2frame.Preface), b) {
			return errMissingPreface
		}
		if err := c.wc.Fill(); err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(c.wc.Buffered(), []byte(h2frame.Preface)) {
		return errMissingPreface
	}
	c.wc.Discard(len(h2frame.Preface))
	return nil
}

// readFrames handles the frames that are whole in the buffer.
func (c *Conn) readFrames() error {
	for {
		b := c.wc.Buffered()
		if len(b) < h2frame.HeaderLen {
			return nil
		}
		h := h2frame.ParseHeader(b)
		if !c.sawSettings() && (h.Type != h2frame.TypeSettings || h.Flags.Has(h2frame.FlagAck)) {
			return errNotHTTP2
		}
		ferr := h.Check(recvFrame)
		if ferr != nil && ferr.Stream == 0 {
			return ferr
		}
		n := h2frame.HeaderLen + h.Length
		if len(b) < n {
			return nil
		}
		err := c.frame(h, b[h2frame.HeaderLen:n], ferr)
		c.frames++
		c.wc.Discard(n)
		if err = c.streamError(err); err != nil {
			return err
		}
	}
}

// fill waits for more.
func (c *Conn) fill() error {
	partial := len(c.wc.Buffered()) > 0
	c.noteOwed(partial)
	var err error
	if partial {
		err = c.wc.Fill()
	} else {
		err = c.wc.FillIdle()
	}
	if err == io.EOF {
		c.ended = true
		if partial || c.block.stream != 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return err
}

// noteOwed notes whether the other end owes us the rest of a frame, or of a preface
// or field section: it must not hold the connection so. A frame that came since the
// last time is progress of frames; of a section only its end is.
func (c *Conn) noteOwed(frame bool) {
	block := c.block.stream != 0 || !c.sawSettings()
	if !frame && !block && !c.owes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := max(c.sweep.Now(), 1)
	switch {
	case !frame:
		c.frameSince = 0
	case c.frameSince == 0 || c.frames != c.noted:
		c.frameSince = now
	}
	switch {
	case !block:
		c.blockSince = 0
	case c.blockSince == 0 || c.block.begun:
		c.blockSince = now
	}
	c.noted, c.owes, c.block.begun = c.frames, frame || block, false
}

func (c *Conn) sawSettings() bool { return c.head.settings }

// violation is an error of the connection.
func violation(code h2frame.Code, detail string) *h2frame.Error {
	return &h2frame.Error{Code: code, Detail: detail}
}

// streamError resets the stream that err is about, if it is about one, and
// returns other errors.
func (c *Conn) streamError(err error) error {
	fe, ok := err.(*h2frame.Error)
	if !ok || fe == nil {
		return err
	}
	if fe.Stream == 0 {
		return fe
	}
	return c.resetStream(fe)
}

// frame handles one frame. Ferr is what the table of frames has against it.
func (c *Conn) frame(h h2frame.Header, p []byte, ferr *h2frame.Error) error {
	// RFC 9113, section 6.10: nothing comes between HEADERS and its
	// CONTINUATIONs, not even frames of unknown types.
	if c.block.stream != 0 && (h.Type != h2frame.TypeContinuation || h.Stream != c.block.stream) {
		return violation(h2frame.ProtocolError, "a frame inside a field section")
	}
	if v := c.spend(h); v != h2stream.Accept {
		return v.Err(0)
	}
	if ferr != nil {
		return ferr
	}
	switch h.Type {
	case h2frame.TypeData:
		return c.data(h, p)
	case h2frame.TypeHeaders:
		return c.headers(h, p)
	case h2frame.TypeContinuation:
		return c.continuation(h, p)
	case h2frame.TypePriority:
		return c.priority(h, p)
	case h2frame.TypeReset:
		return c.reset(h, p)
	case h2frame.TypeSettings:
		return c.settings(h, p)
	case h2frame.TypePushPromise:
		// RFC 9113, section 8.4: we never let anybody push.
		return violation(h2frame.ProtocolError, "PUSH_PROMISE")
	case h2frame.TypePing:
		return c.gotPing(h, p)
	case h2frame.TypeGoAway:
		return c.goAway(p)
	case h2frame.TypeWindowUpdate:
		return c.windowUpdate(h, p)
	case h2frame.TypePriorityUpdate:
		return c.priorityUpdate(p)
	}
	return nil // RFC 9113, section 5.5: unknown types are ignored
}

// limits bound what costs the other end little and us something.
var limits = h2stream.DefaultLimits()

// spend counts a frame against them.
func (c *Conn) spend(h h2frame.Header) h2stream.Verdict {
	if c.role == h2frame.Client && h.Type == h2frame.TypeReset {
		// A server's resets start no work.
		return h2stream.Accept
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.abuse.Recv(&limits, h, c.sweep.Now())
}
