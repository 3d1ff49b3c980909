// Package h1io moves one HTTP/1 body over a wire.Conn in either direction:
// framing on one side, plain pieces on the other. Both roles use it; it knows
// no request, no response and no policy.
package h1io

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// rawMin is the least number of unframed bytes for which moving them by splice
// is worth the two system calls a pipe costs.
const rawMin = 16 << 10

// Reader reads one body. One goroutine uses it at a time; Ended and Left may be
// called from others.
type Reader struct {
	wc      *wire.Conn
	trailer *message.Header
	chunked h1.ChunkDecoder
	left    atomic.Int64 // of a body with a length
	lent    int          // bytes of the wire buffer behind the piece handed out last
	kind    h1.Framing

	// What peek decoded and Next did not hand out yet.
	peeked   bool
	payload  int
	consumed int
	done     bool
	err      error

	ended atomic.Bool
}

// Start begins a body of the given framing. Trailer receives the fields of a
// trailer section.
func (r *Reader) Start(wc *wire.Conn, kind h1.Framing, length int64, trailer *message.Header) {
	r.wc, r.kind, r.trailer = wc, kind, trailer
	r.left.Store(length)
	r.lent, r.peeked, r.err = 0, false, nil
	if kind == h1.Chunked {
		r.chunked.Reset()
	}
	r.ended.Store(kind == h1.None || (kind == h1.Length && length == 0))
}

// Ended reports whether the body was read to its end.
func (r *Reader) Ended() bool { return r.ended.Load() }

// Framing returns the kind of framing of the body.
func (r *Reader) Framing() h1.Framing { return r.kind }

// Left returns how many bytes of a body with a length were not read yet, and
// -1 when that is not known. Like Ended it may be called from any goroutine.
func (r *Reader) Left() int64 {
	switch {
	case r.Ended():
		return 0
	case r.kind == h1.Length:
		return r.left.Load()
	default:
		return -1
	}
}

// Settle gives back the piece handed out last. What stays buffered follows it
// on the connection.
func (r *Reader) Settle() {
	if r.lent > 0 {
		r.wc.Discard(r.lent)
		r.lent = 0
	}
}

// Ready reports whether Next would answer without waiting.
func (r *Reader) Ready() bool {
	if r.Ended() {
		return true
	}
	r.Settle()
	return r.peek()
}

// peek looks at what is buffered and reports whether it makes a piece.
func (r *Reader) peek() bool {
	if r.peeked {
		return true
	}
	b := r.wc.Buffered()
	if len(b) == 0 {
		return false
	}
	switch r.kind {
	case h1.Length:
		left := r.left.Load()
		n := int(min(int64(len(b)), left))
		r.payload, r.consumed, r.done = n, n, int64(n) == left
		r.left.Store(left - int64(n))
	case h1.Chunked:
		r.payload, r.consumed, r.done, r.err = r.chunked.Decode(b, r.trailer)
		if r.payload == 0 && !r.done && r.err == nil {
			r.wc.Discard(r.consumed)
			return false
		}
	default:
		r.payload, r.consumed, r.done = len(b), len(b), false
	}
	r.peeked = true
	return true
}

// Next returns the next piece, borrowed until the next call of any method but
// Ended. The error is io.ErrUnexpectedEOF when the connection ended inside the
// body, an *h1.Error for malformed chunks, or one of the wire's.
func (r *Reader) Next() (b []byte, last bool, err error) {
	r.Settle()
	if r.Ended() {
		return nil, true, nil
	}
	if r.err != nil && !r.peeked {
		return nil, false, r.err
	}
	for !r.peek() {
		if err := r.wc.Fill(); err != nil {
			return r.failed(err)
		}
	}
	r.peeked = false
	if r.err != nil && r.payload == 0 {
		return nil, false, r.err
	}
	b = r.wc.Buffered()[:r.payload]
	r.lent = r.consumed
	if r.done {
		r.ended.Store(true)
	}
	return b, r.done, nil // an error behind the piece comes next
}

func (r *Reader) failed(err error) ([]byte, bool, error) {
	if !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	if r.kind == h1.Close {
		// RFC 9112, section 8: a body that ends with the connection is complete only
		// if the connection was closed completely.
		if err == wire.ErrCut {
			return nil, false, io.ErrUnexpectedEOF
		}
		r.ended.Store(true)
		return nil, true, nil
	}
	return nil, false, io.ErrUnexpectedEOF
}

// BeginRaw returns the connection and how many body bytes follow on it without
// framing between them (-1: till the connection's end), when they are many
// enough to be moved by other means than Next. It returns nil otherwise.
func (r *Reader) BeginRaw() (*wire.Conn, int64) {
	r.Settle()
	if r.Ended() || r.peeked || len(r.wc.Buffered()) > 0 || !r.wc.CanSplice() {
		return nil, 0
	}
	n := int64(-1)
	switch r.kind {
	case h1.Length:
		n = r.left.Load()
	case h1.Chunked:
		n = r.chunked.ChunkLeft()
	}
	if n >= 0 && n < rawMin {
		return nil, 0
	}
	r.wc.ReleaseBuffer()
	return r.wc, n
}

// EndRaw says how many bytes were moved after BeginRaw. For a body that ends
// with the connection the caller reached that end.
func (r *Reader) EndRaw(n int64) {
	switch r.kind {
	case h1.Length:
		r.ended.Store(r.left.Add(-n) == 0)
	case h1.Chunked:
		r.chunked.Skip(n)
	default:
		r.ended.Store(true)
	}
}
