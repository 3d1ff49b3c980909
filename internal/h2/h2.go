// Package h2 is one HTTP/2 connection, for either role: it reads frames and
// hands out streams, keeps both sides' flow control, and gathers what streams
// send into few writes. Frame layout and stream states are internal/h2frame and
// internal/h2stream; what a request means, whom it goes to and why it ended in
// the proxy's own words is the affair of internal/downstream and
// internal/upstream.
package h2

import (
	"errors"
	"fmt"
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
)

// Config is what the connections of a listener or a peer share. Durations of
// zero mean no limit; numbers must be set. Immutable once a connection uses it.
type Config struct {
	// Handler serves the streams that a client opens; Server only.
	Handler Handler
	// MaxStreams bounds the streams that a client may have open, and, doubled, the
	// handlers that run: a client that resets what it opens (CVE-2023-44487) must not
	// make more work than one that waits, and one that gives up a stream and opens
	// another one must not be refused while the first one's handler learns of it.
	MaxStreams int
	// HeadBytes bounds a decoded field section, counted as RFC 9113, section
	// 6.5.2 does, and a compressed one: an index of one byte may stand for
	// kilobytes.
	HeadBytes int
	// Fields bounds the fields of a section. Cookie crumbs are not among them.
	Fields int
	// Crumbs bounds the cookie fields of a request, which are joined to one: a
	// browser with many cookies sends each by itself.
	Crumbs int
	// TargetBytes bounds a request target.
	TargetBytes int
	// StreamWindow and ConnWindow are the first receive windows of a stream and
	// of the connection: what the other end may send unread.
	StreamWindow, ConnWindow int
	// MaxWindow is how far a stream's window may grow where the round trip asks
	// for it; the connection's may be twice that.
	MaxWindow int
	// Windows bounds what all connections together may grow.
	Windows *WindowBudget

	HeadTimeout  time.Duration // of a field section and of a frame from its first byte on
	IdleTimeout  time.Duration // without a stream
	WriteTimeout time.Duration // of a write, and of a stream that waits for credit
	PingEvery    time.Duration // a ping when nothing came for so long; 0: none
	PingTimeout  time.Duration // for its answer
	// Connect offers (Server) extended CONNECT, RFC 8441.
	Connect bool
}

// Handler gets the streams of a client.
type Handler interface {
	// ServeStream answers the request of st, on a goroutine of its own. The stream
	// ends when it returns.
	ServeStream(st *Stream)
}

var (
	errNotHTTP2       = &Error{Code: h2frame.ProtocolError, Conn: true, Err: ErrNotHTTP2}
	errMissingPreface = &Error{Code: h2frame.ProtocolError, Err: errors.New("the connection does not begin with the preface of HTTP/2")}
	// ErrClosed says that this end closed the connection.
	ErrClosed = errors.New("the connection was closed")
	// ErrFull says that no further stream can be opened at the moment.
	ErrFull = errors.New("the connection has as many streams as it may")
	// ErrLength says that a body is not as long as its head says.
	ErrLength = errors.New("the body is not as long as its head says")
	// ErrNotHTTP2 says that the other end speaks something else.
	ErrNotHTTP2 = errors.New("the other end does not speak HTTP/2")
	errEnded    = errors.New("the connection has ended")
	// errMisplaced is an error of whoever uses a Stream.
	errMisplaced = &Error{Code: h2frame.InternalError, Err: errors.New("a head or trailer that has no place here")}
)

// Error is why a stream or a connection ended before it was complete.
type Error struct {
	Code h2frame.Code
	// Remote says that the other end said so; Conn that the whole connection
	// ended and not only the stream.
	Remote, Conn bool
	// Unprocessed says that the other end did not look at the stream: it may be
	// sent again (RFC 9113, section 8.7).
	Unprocessed bool
	Err         error // what is known besides; may be nil
}

// Error says what ended, with which code, and who said so.
func (e *Error) Error() string {
	who, what := "sent", "stream"
	if e.Remote {
		who = "received"
	}
	if e.Conn {
		what = "connection"
	}
	if e.Err != nil {
		return fmt.Sprintf("HTTP/2 %s error %s, %s: %v", what, e.Code, who, e.Err)
	}
	return fmt.Sprintf("HTTP/2 %s error %s, %s", what, e.Code, who)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
