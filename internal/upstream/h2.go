package upstream

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/h2"
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// Up is a connection, or a stream of one, that an exchange took from the pool.
type Up interface {
	exchange.Up
	// NetConn returns the connection below, for its addresses.
	NetConn() net.Conn
	// Facts returns what make returned for the connection, which is called once
	// for as long as it lives.
	Facts(make func(net.Conn) any) any
}

// H2 is a stream to an origin, and the exchange.Up of one attempt.
type H2 struct {
	// Immutable after its connection was chosen.
	conn   *h2Conn
	st     *h2.Stream
	reused bool

	// Owned by the exchange.
	firstByte, read time.Duration
	begun           bool   // Send was called
	received        bool   // the final head was read
	head            bool   // the request is a HEAD
	protocol        string // that an extended CONNECT asks for, or ""
	accept          string // what the client wants to hear of its key
	switched        bool   // the origin agreed

	// Owned by the exchange's reading goroutine.
	resp     *message.Response
	trailers bool // they were announced: more than the body is to come
	stalled  bool // the last read of the body timed out

	// Owned by the goroutine that writes the request, until an error is looked at.
	sentAny     bool
	unprocessed bool // the origin did not look at the request
	sentBytes   atomic.Int64
}

// Wire returns the connection that carries the stream among others.
func (u *H2) Wire() *wire.Conn { return u.conn.h2.Wire() }

// NetConn implements Up.
func (u *H2) NetConn() net.Conn { return u.Wire().NetConn() }

// Facts implements Up.
func (u *H2) Facts(make func(net.Conn) any) any {
	u.conn.factsOnce.Do(func() { u.conn.facts = make(u.NetConn()) })
	return u.conn.facts
}

// SetTimeouts implements exchange.Up.
func (u *H2) SetTimeouts(firstByte, read, write time.Duration) {
	u.firstByte, u.read = firstByte, read
	if u.received {
		u.st.SetReadTimeout(read)
	} else {
		u.st.SetReadTimeout(firstByte)
	}
	if !u.begun {
		u.st.SetWriteTimeout(write)
	}
}

// Reused implements exchange.Up.
func (u *H2) Reused() bool { return u.reused }

// Sent implements exchange.Up.
func (u *H2) Sent() bool { return u.sentAny && !u.unprocessed }

// Cancel implements exchange.Canceler.
func (u *H2) Cancel(cause error) { u.st.Interrupt(cause, cause) }

// Send implements exchange.Up.
func (u *H2) Send(req *message.Request, body []byte, last bool) error {
	if name, bad := req.Header.Invalid(); bad || req.InvalidHead() != "" {
		return &reason.Error{Reason: reason.BadHookField, Err: errors.New(req.InvalidHead() + name)}
	}
	// RFC 9113, section 8.3.1: the scheme is that of the connection on which the
	// origin answers.
	if u.conn.secure {
		req.SetScheme("https")
	} else {
		req.SetScheme("http")
	}
	u.begun, u.head = true, req.Method() == "HEAD"
	if u.upgrades(req) {
		return u.sendConnect(req)
	}
	trailers := last && req.Trailer.Len() > 0
	end := last && len(body) == 0 && !trailers && req.Length() <= 0
	if err := u.st.WriteRequest(req, "", end); err != nil {
		return u.writeError(err)
	}
	u.sentAny = true
	switch {
	case end:
		return u.writeError(u.st.Flush())
	case len(body) == 0 && !last:
		return u.writeError(u.st.Flush())
	}
	return u.SendBody(body, last, &req.Trailer)
}

// BytesSent returns how many bytes of body were sent; field sections, which are
// compressed, are not counted.
func (u *H2) BytesSent() int64 { return u.sentBytes.Load() }

// SendBody implements exchange.Up.
func (u *H2) SendBody(b []byte, last bool, trailer *message.Header) error {
	u.sentBytes.Add(int64(len(b)))
	if !last || trailer == nil || trailer.Len() == 0 {
		return u.writeError(u.st.WriteBody(b, last, false))
	}
	if name, bad := trailer.Invalid(); bad {
		return &reason.Error{Reason: reason.BadHookField, Err: errors.New(name)}
	}
	if err := u.st.WriteBody(b, false, true); err != nil {
		return u.writeError(err)
	}
	return u.writeError(u.st.WriteTrailer(trailer))
}

// writeError gives a failed write its reason.
func (u *H2) writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wire.ErrTimeout):
		return &reason.Error{Reason: reason.UpstreamWriteTimeout, Err: err}
	case errors.Is(err, h2.ErrLength):
		return &reason.Error{Reason: reason.BadHookBody, Err: err}
	}
	return u.ended(err, reason.UpstreamClosed)
}

// ReadHead implements exchange.Up.
func (u *H2) ReadHead(resp *message.Response) error {
	u.resp = resp
	if err := u.st.ReadHead(resp); err != nil {
		if errors.Is(err, wire.ErrTimeout) {
			return &reason.Error{Reason: reason.UpstreamTimeout, Err: err}
		}
		return u.ended(err, reason.UpstreamClosed)
	}
	if resp.Status >= 200 {
		u.received = true
		u.st.SetReadTimeout(u.read)
	}
	if u.protocol != "" && resp.Status >= 200 && resp.Status < 300 {
		u.agreed(resp)
		return nil
	}
	if resp.Length() > 0 && resp.Header.HasID(message.IDTrailer) && !u.head {
		// HTTP/2 has trailers behind a body whose length was told, HTTP/1 has not:
		// there the length gives way (RFC 9112, section 7.1.2).
		resp.SetLength(-1)
		u.trailers = true
	}
	return nil
}

// lateEnd is how long the end of a stream may be late when the body is complete by
// its length. An origin that forgets it would hold the client's connection for as long
// as a body may pause.
const lateEnd = 250 * time.Millisecond

// ReadBody implements exchange.Up.
func (u *H2) ReadBody() ([]byte, bool, error) {
	complete := !u.trailers && u.st.BodyWhole()
	if complete {
		u.st.SetReadTimeout(lateEnd)
	}
	b, last, err := u.st.ReadBody(&u.resp.Trailer)
	u.stalled = errors.Is(err, wire.ErrTimeout)
	switch {
	case err == nil:
		return b, last, nil
	case u.stalled && complete:
		u.stalled = false
		return nil, true, nil
	case u.stalled:
		return nil, false, &reason.Error{Reason: reason.UpstreamReadTimeout, Err: err}
	}
	return nil, false, u.ended(err, reason.UpstreamTruncated)
}

// ended gives the end of the stream its reason; lost is for a connection that
// just ended.
func (u *H2) ended(err error, lost reason.Reason) error {
	var known *reason.Error
	var e *h2.Error
	switch {
	case errors.As(err, &known):
		return known
	case !errors.As(err, &e):
		return reason.Wrap(reason.UpstreamReset, err)
	case e.Code == h2frame.HTTP11Required && e.Remote && u.conn.fallBack():
		// RFC 9113, section 7: the request is to be made with HTTP/1.1.
		u.unprocessed = true
		return &reason.Error{Reason: reason.UpstreamRefused, Err: err}
	case e.Unprocessed:
		u.unprocessed = true
		return &reason.Error{Reason: reason.UpstreamRefused, Err: err}
	case errors.Is(err, h2.ErrPing):
		return &reason.Error{Reason: reason.UpstreamPingTimeout, Err: err}
	case e.Remote && e.Conn:
		return &reason.Error{Reason: lost, Err: err}
	case e.Remote:
		return &reason.Error{Reason: reason.UpstreamReset, Err: err}
	case e.Code == h2frame.EnhanceYourCalm && !e.Conn:
		return &reason.Error{Reason: reason.UpstreamHeadTooLarge, Err: err}
	case errors.Is(err, h2.ErrNotHTTP2) && u.conn.fallBack():
		u.unprocessed = true
		return &reason.Error{Reason: reason.UpstreamRefused, Err: err}
	}
	return &reason.Error{Reason: reason.UpstreamProtocolError, Err: err}
}

// BodyReady implements exchange.Up.
func (u *H2) BodyReady() bool { return u.st.BodyReady() }

// BeginRawIn implements exchange.Up.
func (u *H2) BeginRawIn() (*wire.Conn, int64) { return nil, 0 }

// EndRawIn implements exchange.Up.
func (u *H2) EndRawIn(int64) {}

// BeginRawOut implements exchange.Up.
func (u *H2) BeginRawOut(int64) (*wire.Conn, []byte, error) { return nil, nil, nil }

// EndRawOut implements exchange.Up.
func (u *H2) EndRawOut(int64) {}

// Release implements exchange.Up.
func (u *H2) Release() { u.st.Done() }

// Close implements exchange.Up.
func (u *H2) Close() {
	if u.stalled {
		// An origin that stalls here may have lost more than this stream: no other
		// shall wait for it on the same connection.
		u.conn.h2.Drain()
	}
	u.st.Reset(h2frame.Cancel)
	u.st.Done()
}

var _ Up = (*H2)(nil)
