package h1io

import (
	"errors"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// gatherMax is the largest piece that is copied behind the pending bytes: up
// to here one copy is cheaper than a second element of a gathered write.
const gatherMax = 8 << 10

// ErrLength says that a body was given more or fewer bytes than its head
// announced.
var ErrLength = errors.New("the body is not as long as its head says")

// Writer writes one message: a head gathered in a buffer, then the body. One
// goroutine uses it at a time.
type Writer struct {
	wc   *wire.Conn
	left int64       // of a body with a length
	raw  int64       // what BeginRaw announced
	pend []byte      // not yet sent, in mem
	mem  *buf.Buffer // nil between messages
	kind h1.Framing
	any  bool // a byte was handed to the connection
}

// Start begins a message. The framing is set by Head.
func (w *Writer) Start(wc *wire.Conn) {
	w.wc, w.any, w.kind, w.left = wc, false, h1.None, 0
	w.pend = w.pend[:0]
}

// Release gives the buffer back. It may be called more than once.
func (w *Writer) Release() {
	if w.mem != nil {
		w.mem.Free()
		w.mem = nil
	}
	w.pend = nil
}

// Pending returns what was gathered, for codecs that append to it. The buffer
// is taken here, not before: a message that waits to begin holds none.
func (w *Writer) Pending() []byte {
	if w.mem == nil {
		w.mem = buf.Get(buf.Small)
		w.pend = w.mem.B[:0]
	}
	return w.pend
}

// Head takes the gathered bytes with the head appended, and how the body after
// it is framed.
func (w *Writer) Head(pend []byte, kind h1.Framing, length int64) {
	w.pend, w.kind, w.left = pend, kind, length
}

// Sent reports whether a byte was handed to the connection.
func (w *Writer) Sent() bool { return w.any }

// Framing returns how the body is framed.
func (w *Writer) Framing() h1.Framing { return w.kind }

// Flush sends what was gathered.
func (w *Writer) Flush() error {
	if len(w.pend) == 0 {
		return nil
	}
	w.any = true
	_, err := w.wc.Write(w.pend)
	w.pend = w.pend[:0]
	return err
}

// Body sends a piece behind what was gathered; last ends the body, with the
// fields of trailer where it is not nil and the body is chunked.
func (w *Writer) Body(b []byte, last bool, trailer *message.Header) error {
	if err := w.frame(b, last); err != nil {
		return err
	}
	chunked := w.kind == h1.Chunked
	if chunked && len(b) > 0 {
		w.pend = h1.AppendChunkHead(w.pend, len(b))
	}
	if len(b) > gatherMax {
		return w.large(b, last, trailer)
	}
	w.pend = append(w.pend, b...)
	if chunked {
		if len(b) > 0 {
			w.pend = append(w.pend, h1.ChunkEnd...)
		}
		if last {
			var err error
			if w.pend, err = appendEnd(w.pend, trailer); err != nil {
				return err
			}
		}
	}
	return w.Flush()
}

// Gather is Body for a whole body that shall stay pending, to be sent by the
// caller together with the bytes that it returns: out, then tail.
func (w *Writer) Gather(b []byte) (out, tail []byte, err error) {
	if err := w.frame(b, true); err != nil {
		return nil, nil, err
	}
	w.any = true
	if len(b) > gatherMax {
		return w.pend, b, nil
	}
	w.pend = append(w.pend, b...)
	return w.pend, nil, nil
}

// frame checks a piece against the announced length.
func (w *Writer) frame(b []byte, last bool) error {
	switch w.kind {
	case h1.Length:
		w.left -= int64(len(b))
		if w.left < 0 || (last && w.left != 0) {
			return ErrLength
		}
	case h1.None:
		if len(b) > 0 {
			return ErrLength
		}
	}
	return nil
}

// large sends what was gathered, the piece and what follows it in one call.
func (w *Writer) large(b []byte, last bool, trailer *message.Header) error {
	var end []byte
	if w.kind == h1.Chunked {
		n := len(w.pend)
		w.pend = append(w.pend, h1.ChunkEnd...)
		if last {
			var err error
			if w.pend, err = appendEnd(w.pend, trailer); err != nil {
				return err
			}
		}
		end = w.pend[n:]
		w.pend = w.pend[:n]
	}
	w.any = true
	_, err := w.wc.Writev(w.pend, b, end)
	w.pend = w.pend[:0]
	return err
}

// appendEnd appends the last chunk and the trailer section.
func appendEnd(dst []byte, trailer *message.Header) ([]byte, error) {
	if trailer == nil || trailer.Len() == 0 {
		return append(dst, h1.LastChunk...), nil
	}
	return h1.AppendTrailer(dst, trailer)
}

// BeginRaw returns the connection when n body bytes (-1: till the end) may be
// written to it unframed, behind what was gathered, which the caller sends
// first; for a chunked body they become one chunk. It returns nil when they may
// not.
func (w *Writer) BeginRaw(n int64) (wc *wire.Conn, first []byte, err error) {
	switch {
	case !w.wc.CanSplice(), n < 0 && w.kind != h1.Close, w.kind == h1.None:
		return nil, nil, nil
	case w.kind == h1.Length && n > w.left:
		return nil, nil, ErrLength
	case w.kind == h1.Chunked:
		w.pend = h1.AppendChunkHead(w.pend, int(n))
	}
	first = w.pend
	w.pend = w.pend[:0]
	w.raw = n
	w.any = w.any || len(first) > 0
	return w.wc, first, nil
}

// Later takes a piece that is not the last one and need not go out before more
// is waited for: a small one is only gathered.
func (w *Writer) Later(b []byte) error {
	if len(b) > gatherMax || len(w.pend)+len(b) > buf.SmallSize-64 {
		return w.Body(b, false, nil)
	}
	if err := w.frame(b, false); err != nil || len(b) == 0 {
		return err
	}
	if w.kind == h1.Chunked {
		w.pend = h1.AppendChunkHead(w.pend, len(b))
	}
	w.pend = append(w.pend, b...)
	if w.kind == h1.Chunked {
		w.pend = append(w.pend, h1.ChunkEnd...)
	}
	return nil
}

// EndRaw says how many bytes were written after BeginRaw. A chunk that was
// announced and not filled cannot be mended: the caller ends the connection.
func (w *Writer) EndRaw(n int64) {
	switch w.kind {
	case h1.Length:
		w.left -= n
	case h1.Chunked:
		if n == w.raw {
			w.pend = append(w.pend, h1.ChunkEnd...)
		}
	}
}
