// Package exchange is where protocols meet the engine: Down is one request as
// it came from a client with the way to answer it, Up is the same request on
// its way to an origin. The forward loop knows only these two; a protocol is
// an implementation of one of them. The package holds no logic and knows no
// session, no hook and no pool.
package exchange

import (
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// Down faces the client: one request and its response. Its methods belong to
// the session's goroutine, but for ReadBody, Trailer, BeginRawIn and EndRawIn, which
// belong to the goroutine that moves the request body.
type Down interface {
	// Request returns the request; it is valid until the exchange ends.
	Request() *message.Request

	// ReadBody returns the next piece of the request body, borrowed until the
	// next call. With last the body has ended (the piece may hold bytes).
	ReadBody() (b []byte, last bool, err error)
	// Trailer returns the fields behind the body, when ReadBody has said last. It
	// does not touch Request().Trailer, which others may be looking at.
	Trailer() *message.Header
	// BodyReady reports whether ReadBody would answer without waiting.
	BodyReady() bool
	// BodyEnded reports whether the whole request body was read. It may be
	// called from the session's goroutine while another reads the body.
	BodyEnded() bool
	// Continue sends 100 (Continue) if the client waits for one.
	Continue() error

	// WriteInterim sends a 1xx response, other than 101.
	WriteInterim(resp *message.Response) error
	// WriteHead takes the final head; it may stay in a buffer until WriteBody
	// or Flush. The framing follows from resp.Length() and the protocol.
	WriteHead(resp *message.Response) error
	// WriteBody sends a piece; last ends the body, with the fields of trailer
	// where it is not nil and the protocol can carry them.
	WriteBody(b []byte, last bool, trailer *message.Header) error
	// WriteLater is WriteBody for a piece that is not the last one and may stay in
	// the buffer until Flush or the next WriteBody.
	WriteLater(b []byte) error
	// Room returns for how many bytes of body the client has given credit, 1 for none,
	// or 0 where that is the connection's affair.
	Room() int
	// Flush sends what WriteHead and WriteLater left in the buffer.
	Flush() error
	// Bodiless reports whether a response with the status has no body, because
	// of the status or of the method with which the request came.
	Bodiless(status int) bool
	// Started reports whether a byte of the final head was handed to WriteHead.
	Started() bool
	// Abort cuts the exchange visibly: the client must not take what it got
	// for a whole response. Cause may say how: an HTTP/2 origin's reset is passed on
	// where it means something to a client.
	Abort(cause error)

	// Tunnel makes what follows the next head another protocol than HTTP, and
	// returns the client's end of it; resp, about to be given to WriteHead, is what
	// was agreed. The end is nil where the protocol can carry none. After an error
	// an ordinary response may follow.
	Tunnel(resp *message.Response) (Tunnel, error)

	// BeginRawIn returns the connection and the number of body bytes (-1: till
	// its end) that follow on it unframed, or nil where there are none; what
	// was moved is told to EndRawIn.
	BeginRawIn() (*wire.Conn, int64)
	EndRawIn(n int64)
	// BeginRawOut returns the connection to which n body bytes (-1: till the end)
	// may be written unframed behind first, which the caller sends too, or nil.
	BeginRawOut(n int64) (wc *wire.Conn, first []byte, err error)
	EndRawOut(n int64)

	// Watch calls c.Cancel(cause) when the client leaves before Unwatch. Cancel
	// runs at most once and never after Unwatch returned.
	Watch(c Canceler)
	Unwatch()
	// CancelWait ends the present wait of the session and all later ones, from
	// another goroutine. ResumeBody makes it possible to answer after it.
	CancelWait(cause error)
	// InterruptBody makes a ReadBody of another goroutine return cause, now and
	// until ResumeBody.
	InterruptBody(cause error)
	ResumeBody()
}

// Up is one attempt on a connection to an origin.
type Up interface {
	Canceler

	// SetTimeouts bounds the waits for a head, between two reads of the body and
	// for a write that makes no progress; zero is no bound. It holds for reads
	// that begin later, for writes only before Send.
	SetTimeouts(firstByte, read, write time.Duration)

	// Send takes the head and the first piece of the body. When last is true it
	// may keep them until ReadHead; head and body must stay valid until then.
	Send(req *message.Request, body []byte, last bool) error
	// SendBody sends a further piece. Trailer is as in Down.WriteBody.
	SendBody(b []byte, last bool, trailer *message.Header) error

	// ReadHead reads the next head, interim ones too, into resp. After a
	// timeout it may be called again.
	ReadHead(resp *message.Response) error
	// ReadBody returns the next piece, borrowed until the next call. With last
	// the body has ended and the trailer of the response is filled. After a timeout
	// it may be called again.
	ReadBody() (b []byte, last bool, err error)
	// BodyReady reports whether ReadBody would answer without waiting.
	BodyReady() bool

	// Tunnel returns the origin's end of a tunnel, when the final head was a 101 or
	// nothing was sent for a CONNECT; nil where there can be none. What came behind
	// the head comes first from it. Close ends it.
	Tunnel() Tunnel

	// BeginRawIn, EndRawIn, BeginRawOut and EndRawOut are as in Down.
	BeginRawIn() (*wire.Conn, int64)
	EndRawIn(n int64)
	BeginRawOut(n int64) (wc *wire.Conn, first []byte, err error)
	EndRawOut(n int64)

	// Sent reports whether a byte of the request may have reached the origin.
	Sent() bool
	// Reused reports whether the connection served an earlier exchange.
	Reused() bool
	// Release ends the attempt: the connection goes back to the pool when both
	// messages were complete and it may be used again, else it is closed.
	Release()
	// Close ends the attempt and closes its connection.
	Close()
}

// Tunnel is one end of a tunnel: bytes that follow a 101 or a CONNECT. One goroutine
// reads from it while another writes to it; methods said to be for any goroutine may
// be called from others.
type Tunnel interface {
	// SetIdle bounds each wait, in place of all bounds that the exchange had. It
	// comes before reads and writes.
	SetIdle(d time.Duration)
	// Read returns the next bytes, lent until the next call. With last the other
	// end has ended its direction (there may be bytes). After a timeout it may be
	// called again.
	Read() (b []byte, last bool, err error)
	// Write sends b.
	Write(b []byte) error
	// CloseWrite ends our direction; the other one goes on.
	CloseWrite() error
	// Received returns how many bytes came. It is for any goroutine.
	Received() int64
	// Interrupt makes the present waits and all later ones return cause. It is for
	// any goroutine.
	Interrupt(cause error)
	// Watch calls gone, at most once, when the other end abandons the tunnel after
	// it has ended its direction, where no read can tell.
	Watch(gone func(cause error))
	// Unwatch ends Watch: gone is not called after it has returned.
	Unwatch()
	// Wire returns the connection if the tunnel's bytes lie on it as they are, so
	// that the kernel may move them; else nil.
	Wire() *wire.Conn
}

// Canceler ends a wait from another goroutine.
type Canceler interface {
	// Cancel makes the present wait and all later ones return cause.
	Cancel(cause error)
}
