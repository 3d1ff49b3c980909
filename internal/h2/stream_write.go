package h2

import (
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// gatherMax bounds what a write puts into one DATA frame: small enough that
// streams take turns.
const gatherMax = 16 << 10

// WriteInterim sends a 1xx head.
func (st *Stream) WriteInterim(resp *message.Response) error {
	return st.section(true, false, func(b []byte) []byte { return appendResponse(b, resp, -1) })
}

// WriteHead sends the final head of a response. Length is that of the body, -1 if
// it is not known; told is the length to tell, -1 for none. With end there is no
// body. It may stay in the connection's buffer until Flush or the end of the body.
func (st *Stream) WriteHead(resp *message.Response, length, told int64, end bool) error {
	st.outLeft = length
	st.started = true
	return st.section(false, end, func(b []byte) []byte { return appendResponse(b, resp, told) })
}

// WriteTrailer ends the body with fields.
func (st *Stream) WriteTrailer(trailer *message.Header) error {
	if st.outLeft > 0 {
		return ErrLength
	}
	err := st.section(false, true, func(b []byte) []byte { return appendTrailer(b, trailer) })
	if err != nil {
		return err
	}
	return st.Flush()
}

// WriteRequest opens the stream with the head of a request.
func (st *Stream) WriteRequest(req *message.Request, protocol string, end bool) error {
	st.outLeft, st.headOnly, st.connect = req.Length(), req.Method() == "HEAD", req.Method() == "CONNECT"
	return st.section(false, end, func(b []byte) []byte { return appendRequest(b, req, protocol) })
}

// section sends a field section. Encode appends it to what it gets; as we use no
// dynamic table the sections of different streams do not depend on each other.
func (st *Stream) section(interim, end bool, encode func([]byte) []byte) error {
	c := st.c
	c.mu.Lock()
	defer c.unlock()
	if err := st.awaitRoomLocked(); err != nil {
		return err
	}
	if st.id == 0 {
		if err := c.openLocked(st); err != nil {
			return err
		}
	}
	if st.state.SendHeaders(interim, end) != h2stream.Accept {
		return errMisplaced
	}
	at := len(c.out.tail())
	b := append(c.out.tail(), make([]byte, h2frame.HeaderLen)...)
	if c.shrunk {
		// RFC 9113, section 4.3.1: who was told that the table is smaller now says so
		// before anything else. We have none.
		b = append(b, hpackNoTable)
		c.shrunk, c.hpack = false, 0
	}
	b = encode(b)
	c.out.append(frameSection(b, at, st.id, end, c.maxFrameLocked()))
	st.sentLocked(end)
	return nil
}

// frameSection puts frame headers before and into the field section that begins
// at b[at:] behind the place for the first one.
func frameSection(b []byte, at int, id uint32, end bool, maxFrame int) []byte {
	section := b[at+h2frame.HeaderLen:]
	if len(section) > maxFrame {
		return h2frame.AppendFieldBlock(b[:at], id, append([]byte(nil), section...), end, maxFrame)
	}
	flags := h2frame.FlagEndHeaders
	if end {
		flags |= h2frame.FlagEndStream
	}
	h2frame.AppendHeader(b[:at], h2frame.Header{Length: len(section), Type: h2frame.TypeHeaders, Flags: flags, Stream: id})
	return b
}

// sentLocked notes that something was put into out, with end the last of it.
func (st *Stream) sentLocked(end bool) {
	st.pending = true
	if end {
		st.sentEnd = true
		st.endedLocked()
	}
}

// stoppedLocked returns why the stream cannot send.
func (st *Stream) stoppedLocked() error {
	switch {
	case st.wCause != nil:
		return st.wCause
	case st.err != nil:
		return st.err
	case st.stopped != nil:
		return st.stopped
	case st.c.err != nil:
		return st.c.err // the stream was not opened yet
	case st.sentEnd:
		return ErrLength
	}
	return nil
}

// awaitRoomLocked waits until the writer has taken what other streams left in
// out.
func (st *Stream) awaitRoomLocked() error {
	c := st.c
	defer c.dequeueLocked(st)
	for since := c.sweep.Now(); ; {
		if err := st.stoppedLocked(); err != nil {
			return err
		}
		if c.roomLocked() {
			return nil
		}
		st.needs = 0
		c.enqueueLocked(st)
		c.kickLocked()
		if err := st.waitLocked(&st.w, st.until(since, st.wTime, &wire.Rate{})); err != nil {
			return err
		}
	}
}

// WriteBody sends a piece of body; end ends the stream's direction. With later it
// may stay in the buffer until Flush.
func (st *Stream) WriteBody(b []byte, end, later bool) error {
	if st.outLeft >= 0 {
		if st.outLeft -= int64(len(b)); st.outLeft < 0 || end && st.outLeft > 0 {
			return ErrLength
		}
	}
	if len(b) == 0 && !end {
		return nil
	}
	c := st.c
	c.mu.Lock()
	defer c.unlock()
	defer c.dequeueLocked(st)
	since := c.sweep.Now()
	for {
		if err := st.stoppedLocked(); err != nil {
			return err
		}
		n := st.creditLocked(len(b))
		if n > 0 || len(b) == 0 && c.roomLocked() {
			b = st.dataLocked(b, n, end)
			if len(b) == 0 {
				if !later || end {
					c.kickLocked()
					st.pending = false
				}
				return nil
			}
			since = c.sweep.Now()
			if c.roomLocked() {
				continue
			}
		}
		if err := st.awaitCreditLocked(len(b), since); err != nil {
			return err
		}
	}
}

// awaitCreditLocked waits for credit or for room.
func (st *Stream) awaitCreditLocked(n int, since time.Duration) error {
	c := st.c
	// Who has sent as much as fits goes behind those that wait already.
	c.dequeueLocked(st)
	st.needs = n
	c.enqueueLocked(st)
	c.kickLocked()
	err := st.waitLocked(&st.w, st.until(since, st.wTime, &st.wRate))
	if st.wRate.Note(c.sweep.Now(), st.creditLocked(n)); st.wRate.TooSlow() {
		return wire.ErrTooSlow
	}
	return err
}

// creditLocked returns how many of n bytes may be sent now.
func (st *Stream) creditLocked(n int) int {
	c := st.c
	if !c.roomLocked() || st.behindLocked() {
		return 0
	}
	return max(0, min(n, gatherMax, c.maxFrameLocked(), st.send.Available(), c.send.Available()))
}

// behindLocked reports whether a stream that waits has to be let by.
func (st *Stream) behindLocked() bool {
	for _, o := range st.c.waiting {
		if o != st && o.rank.Before(st.rank) && o.needs > 0 && o.canSendLocked() {
			return true
		}
	}
	return false
}

// dataLocked puts n bytes of b into out as one frame and returns the rest.
func (st *Stream) dataLocked(b []byte, n int, end bool) []byte {
	c := st.c
	end = end && n == len(b)
	c.out.reserve(n + h2frame.HeaderLen)
	o := h2frame.AppendDataHeader(c.out.tail(), st.id, n, end)
	c.out.append(append(o, b[:n]...))
	st.send.Take(n)
	c.send.Take(n)
	c.turns++
	st.rank.Turn = c.turns
	c.abuse.SentData()
	st.state.SendData(end)
	st.sentLocked(end)
	return b[n:]
}

// Flush sees to it that what was written is sent.
func (st *Stream) Flush() error {
	if !st.pending {
		return nil
	}
	st.pending = false
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kickLocked()
	if err := st.stoppedLocked(); err != nil && !st.sentEnd {
		return err
	}
	return nil
}

// Room returns how many bytes of body the other end's windows have room for.
func (st *Stream) Room() int {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return min(st.send.Available(), st.c.send.Available())
}

// Started reports whether a final head was handed to WriteHead.
func (st *Stream) Started() bool { return st.started }
