package h2

import (
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// BodyReady reports whether ReadBody would answer without waiting.
func (st *Stream) BodyReady() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return len(st.in.list) > 0 || st.inEnd
}

// BodyEnded reports whether the body was read to its end. It is for any
// goroutine.
func (st *Stream) BodyEnded() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.bodyEnd
}

// AllReceived reports whether the other end has sent all that it will send.
func (st *Stream) AllReceived() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.inEnd
}

// BodyWhole reports whether all of a body has come whose length was told: what may be
// missing is its end.
func (st *Stream) BodyWhole() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.content.Whole()
}

// ReadBody returns the next piece of the body, lent until the next call. With
// last it has ended, and trailer, where it is not nil, holds the fields behind it.
// What came before an error is returned before the error.
func (st *Stream) ReadBody(trailer *message.Header) (b []byte, last bool, err error) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	st.returnLentLocked()
	for since := c.sweep.Now(); ; {
		switch {
		case st.rCause != nil:
			return nil, false, st.rCause
		case len(st.in.list) > 0:
			st.lent = st.in.pop()
			b = st.lent.bytes()
			st.gotten += int64(len(b))
		case !st.inEnd && st.err != nil:
			return nil, false, st.err
		case !st.inEnd:
			st.rRate.Credit(st.unratedLocked())
			err := st.waitLocked(&st.r, st.until(since, st.rTime, &st.rRate))
			if st.rRate.Note(c.sweep.Now(), st.unratedLocked()); st.rRate.TooSlow() {
				return nil, false, wire.ErrTooSlow
			}
			if err != nil {
				return nil, false, err
			}
			continue
		}
		if st.inEnd && len(st.in.list) == 0 {
			st.bodyEnd = true
			if trailer != nil && st.trail.Len() > 0 {
				trailer.CopyFrom(&st.trail)
			}
			return b, true, nil
		}
		return b, false, nil
	}
}

// unratedLocked returns how many bytes have come since the last call.
func (st *Stream) unratedLocked() int {
	all := st.gotten + int64(st.in.size)
	n := all - st.rated
	st.rated = all
	return int(n)
}

// returnLentLocked gives the piece back that was lent last, and its credit to
// the other end: it may send as much as was really taken.
func (st *Stream) returnLentLocked() {
	if st.lent.mem == nil {
		return
	}
	n := len(st.lent.bytes())
	st.lent.mem.Free()
	st.lent = chunk{}
	st.consumeLocked(n)
}

// ReadHead waits for the next head of a response, interim ones too. After a
// timeout it may be called again.
func (st *Stream) ReadHead(resp *message.Response) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for since := c.sweep.Now(); ; {
		switch {
		case st.rCause != nil:
			return st.rCause
		case len(st.heads) > 0:
			head := st.heads[0]
			st.heads = append(st.heads[:0], st.heads[1:]...)
			resp.CopyFrom(head)
			putHead(head)
			if len(st.heads) == 0 {
				c.headHeld -= st.headSz
				st.held -= st.headSz
				st.headSz = 0
			}
			return nil
		case st.err != nil:
			return st.err
		}
		if err := st.waitLocked(&st.r, st.until(since, st.rTime, &wire.Rate{})); err != nil {
			return err
		}
	}
}
