package downstream

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/h1io"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// This file is H1 as an exchange.Down.

// Request implements exchange.Down.
func (c *H1) Request() *message.Request { return &c.req }

// BodyReady implements exchange.Down.
func (c *H1) BodyReady() bool { return c.in.Ready() }

// BodyEnded implements exchange.Down.
func (c *H1) BodyEnded() bool { return c.in.Ended() }

// Trailer implements exchange.Down.
func (c *H1) Trailer() *message.Header { return &c.trailer }

// ReadBody implements exchange.Down.
func (c *H1) ReadBody() ([]byte, bool, error) {
	b, last, err := c.in.Next()
	if err != nil {
		err = c.BodyError(err)
	} else if c.unrated {
		c.unrated = false
		c.wc.SetMinRate(c.bounds.MinRate, c.bounds.MinRateGrace)
	}
	return b, last, err
}

// BodyError gives a failed read of the request body its reason.
func (c *H1) BodyError(err error) error {
	var he *h1.Error
	switch {
	case errors.As(err, &he):
		return &reason.Error{Reason: he.Reason, Err: err}
	case errors.Is(err, wire.ErrTooSlow):
		return &reason.Error{Reason: reason.ClientTooSlow, Err: err}
	case errors.Is(err, wire.ErrFull):
		return &reason.Error{Reason: reason.TrailerTooLarge, Err: err}
	case errors.Is(err, wire.ErrTimeout):
		return &reason.Error{Reason: reason.BodyTimeout, Err: err}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &reason.Error{Reason: reason.ClientGone, Err: err}
	case errors.Is(err, errClosed):
		return &reason.Error{Reason: reason.ServerClosed, Err: err}
	default:
		return reason.Wrap(reason.ClientReset, err)
	}
}

// writeError gives a failed write to the client its reason.
func (c *H1) writeError(err error) error {
	if err == nil {
		return nil
	}
	c.aborted = true
	var he *h1.Error
	switch {
	case errors.As(err, &he):
		return &reason.Error{Reason: he.Reason, Err: err}
	case errors.Is(err, wire.ErrTooSlow):
		return &reason.Error{Reason: reason.ClientTooSlow, Err: err}
	case errors.Is(err, wire.ErrTimeout):
		return &reason.Error{Reason: reason.ClientWriteStop, Err: err}
	case errors.Is(err, h1io.ErrLength):
		return &reason.Error{Reason: reason.BadHookBody, Err: err}
	case errors.Is(err, errClosed):
		return &reason.Error{Reason: reason.ServerClosed, Err: err}
	default:
		return reason.Wrap(reason.ClientGone, err)
	}
}

// Continue implements exchange.Down.
func (c *H1) Continue() error {
	if !c.expect {
		return nil
	}
	c.expect = false
	_, err := c.wc.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	return c.writeError(err)
}

// WriteInterim implements exchange.Down. A client of HTTP/1.0 gets none
// (RFC 9110, section 15.2).
func (c *H1) WriteInterim(resp *message.Response) error {
	if c.meta.Minor == 0 {
		return nil
	}
	if resp.Status == 100 {
		c.expect = false
	}
	pend, err := h1.AppendResponseHead(c.out.Pending(), resp, h1.OutFraming{Kind: h1.None, NoBody: true})
	if err != nil {
		return err
	}
	c.out.Head(pend, h1.None, 0)
	return c.writeError(c.out.Flush())
}

// bodiless reports whether a response to the present request has no body
// whatever its fields say.
//
// RFC 9112, section 6.3: HEAD, 1xx, 204 and 304 end with their head.
func (c *H1) bodiless(status int) bool {
	return status == 204 || status == 304 || status < 200 || c.head
}

// Bodiless implements exchange.Down.
func (c *H1) Bodiless(status int) bool { return c.bodiless(status) }

// Hijack gives the connection to a new owner. What the client has sent and
// nobody has read comes first from it.
func (c *H1) Hijack() net.Conn {
	c.out.Release()
	c.in.Settle()
	c.hijacked, c.started = true, true // nothing of ours may follow on it
	nc, unread := c.wc.Detach()
	if len(unread) == 0 {
		return nc
	}
	return &unreadConn{Conn: nc, unread: unread}
}

// unreadConn is a connection with bytes that were read from it before.
type unreadConn struct {
	net.Conn
	unread []byte
}

// Read implements net.Conn.
func (c *unreadConn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// SetReadDeadline bounds the reads of the present exchange; the zero time is no
// bound.
func (c *H1) SetReadDeadline(at time.Time) { c.wc.SetReadDeadline(c.onSweep(at)) }

// SetWriteDeadline is SetReadDeadline for writes.
func (c *H1) SetWriteDeadline(at time.Time) { c.wc.SetWriteDeadline(c.onSweep(at)) }

func (c *H1) onSweep(at time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	return max(c.sweep.Now()+time.Until(at), 1)
}

// Tunnel implements exchange.Down. What the client sent behind its request is still
// in the connection's buffer, and is read only now that the origin has agreed.
func (c *H1) Tunnel(*message.Response) (exchange.Tunnel, error) {
	c.tunneled = true
	c.lingering = true // a tunnel that we end with bytes unread must not lose our last ones
	return h1io.NewTunnel(c.wc), nil
}

// WriteHead implements exchange.Down.
func (c *H1) WriteHead(resp *message.Response) error {
	if c.started {
		return errSecondHead
	}
	f := h1.OutFraming{Kind: h1.Length, Length: resp.Length()}
	switch {
	case c.tunneled:
		f = h1.OutFraming{Kind: h1.Close, Length: -1, NoBody: true}
	case c.bodiless(resp.Status):
		f = h1.OutFraming{Kind: h1.None, Length: resp.Length(), NoBody: true}
	case f.Length < 0 && c.meta.Minor == 0:
		// RFC 9112, section 6.1: a client of HTTP/1.0 cannot read chunks.
		f.Kind = h1.Close
		c.keep, c.lingering = false, c.lingering || c.keep
	case f.Length < 0:
		f.Kind = h1.Chunked
	}
	f.Connection = c.connection(resp.Status)
	pend, err := h1.AppendResponseHead(c.out.Pending(), resp, f)
	if err != nil {
		return hookField(err)
	}
	c.out.Head(pend, f.Kind, f.Length)
	c.started = true
	return nil
}

// errSecondHead keeps a second response from being taken for that to the next
// request.
var errSecondHead = &reason.Error{Reason: reason.HookError, Err: errors.New("the request was answered already")}

func hookField(err error) error {
	return &reason.Error{Reason: reason.BadHookField, Err: err}
}

// connection decides whether the connection lives on and says so.
//
// RFC 9112, section 9.6: a server that will close says `close` in its last
// response.
func (c *H1) connection(status int) string {
	switch {
	case c.tunneled && status == 101:
		return "upgrade"
	case c.tunneled:
		return ""
	case c.upgrading:
		// The client may already have sent bytes of the other protocol: they
		// are never parsed as a request.
		c.keep, c.lingering = false, true
	case !c.in.Ended() && !c.drainable():
		c.keep, c.lingering = false, true
	case !c.keep:
	// A client that did not ask for the end may be sending its next request:
	// a reset for that must not destroy this response.
	case c.draining.Load():
		c.keep, c.lingering, c.end = false, true, reason.Shutdown
	case c.cfg.MaxRequests > 0 && c.requests >= c.cfg.MaxRequests:
		c.keep, c.lingering, c.end = false, true, reason.RequestLimit
	}
	switch {
	case !c.keep:
		return "close"
	case c.keep && c.meta.Minor == 0:
		return "keep-alive"
	}
	return ""
}

// drainable reports whether the unread rest of the body is worth reading for
// the sake of the connection. A client that waits for a 100 may send it or not:
// nobody can tell what its next bytes are.
func (c *H1) drainable() bool {
	if c.cfg.DrainEarly {
		return true
	}
	left := c.in.Left()
	return !c.expect && left >= 0 && left <= c.bounds.DrainBytes
}

// DropReady reads and drops what came of the request body already, which
// nobody wants: with luck that is all of it. Nothing else may be reading it.
func (c *H1) DropReady() {
	for budget := c.bounds.DrainBytes; budget > 0 && !c.in.Ended() && c.in.Ready(); {
		b, _, err := c.in.Next()
		if err != nil {
			return
		}
		budget -= int64(len(b))
	}
}

// CloseAfter makes the present response the last one of the connection.
func (c *H1) CloseAfter(r reason.Reason) {
	c.keep, c.lingering = false, c.lingering || c.keep
	if c.end == reason.None {
		c.end = r
	}
}

// WriteBody implements exchange.Down.
func (c *H1) WriteBody(b []byte, last bool, trailer *message.Header) error {
	err := c.out.Body(b, last, trailer)
	if err == nil {
		c.finished = c.finished || last
		return nil
	}
	return c.writeError(err)
}

// WriteLater implements exchange.Down.
func (c *H1) WriteLater(b []byte) error { return c.writeError(c.out.Later(b)) }

// Flush implements exchange.Down.
func (c *H1) Flush() error { return c.writeError(c.out.Flush()) }

// Room implements exchange.Down.
func (c *H1) Room() int { return 0 }

// Started implements exchange.Down.
func (c *H1) Started() bool { return c.started }

// Abort implements exchange.Down. What is buffered goes out first: the client
// shall see how far the response came.
func (c *H1) Abort(error) {
	if c.started && !c.aborted {
		_ = c.out.Flush()
	}
	c.aborted, c.keep = true, false
}

// BeginRawIn implements exchange.Down.
func (c *H1) BeginRawIn() (*wire.Conn, int64) { return c.in.BeginRaw() }

// EndRawIn implements exchange.Down.
func (c *H1) EndRawIn(n int64) { c.in.EndRaw(n) }

// BeginRawOut implements exchange.Down.
func (c *H1) BeginRawOut(n int64) (*wire.Conn, []byte, error) {
	wc, first, err := c.out.BeginRaw(n)
	return wc, first, c.writeError(err)
}

// EndRawOut implements exchange.Down.
func (c *H1) EndRawOut(n int64) { c.out.EndRaw(n) }

// InterruptBody implements exchange.Down.
func (c *H1) InterruptBody(cause error) { c.wc.InterruptRead(cause) }

// ResumeBody implements exchange.Down.
func (c *H1) ResumeBody() { c.clearInterrupt() }

// CancelWait implements exchange.Down.
func (c *H1) CancelWait(cause error) {
	c.watchMu.Lock()
	defer c.watchMu.Unlock()
	c.cancel = cause
	if c.watcher != nil {
		c.watcher.Cancel(cause)
	}
	c.wc.InterruptRead(cause)
	c.wc.InterruptWrite(cause)
}
