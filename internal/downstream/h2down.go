package downstream

import (
	"errors"
	"sync"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/h2"
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// H2 is one request of an HTTP/2 connection, and its exchange.Down.
type H2 struct {
	// User is the Handler's own: it stays when the memory serves another stream.
	User any
	gone func(*h2.Error) // left, made once

	// Owned by the stream's goroutine.
	c        *H2Conn
	st       *h2.Stream
	head     bool   // the request came as HEAD, whatever hooks make of it
	expect   bool   // the client waits for a 100
	connect  bool   // the request came as CONNECT: its DATA is no body
	tunneled bool   // and was granted
	key      string // that we made for the WebSocket handshake, or ""
	finished bool   // the response was written to its end
	aborted  bool

	trailer message.Header // Owned by the goroutine that reads the body.

	mu      sync.Mutex
	watcher exchange.Canceler // Guarded by mu.
	cancel  error             // Guarded by mu: what ends all waits of the session.
}

// begin makes d serve st.
func (d *H2) begin(c *H2Conn, st *h2.Stream) {
	d.c, d.st = c, st
	d.head = st.Req.Method() == "HEAD"
	d.finished, d.aborted = false, false
	d.beginConnect()
	d.expect = st.Req.Header.HasID(message.IDExpect) && st.Req.Length() != 0
	d.cancel = nil
	if d.trailer.Len() > 0 {
		d.trailer.Reset()
	}
	d.SetBounds(c.cfg.Bounds, true, true)
}

// SetBounds gives the request bounds of its own, which hold for waits that begin
// later: those of the reader if read is set, the others if write is. The caller owns
// the sides that it names.
func (d *H2) SetBounds(b Bounds, read, write bool) {
	if read {
		d.st.SetReadTimeout(b.BodyTimeout)
		d.st.SetReadRate(b.MinRate, b.MinRateGrace)
	}
	if write {
		d.st.SetWriteTimeout(b.WriteTimeout)
		d.st.SetWriteRate(b.MinRate, b.MinRateGrace)
	}
}

// DefaultBounds returns those of a request that got none of its own.
func (d *H2) DefaultBounds() *Bounds { return &d.c.cfg.Bounds }

// Conn returns the connection.
func (d *H2) Conn() *H2Conn { return d.c }

// Refusal returns with which status and why the request must be refused; the
// status is 0 when it need not be.
func (d *H2) Refusal() (status int, r reason.Reason, err error) {
	f := d.st.Refusal
	if f == nil {
		return 0, reason.None, nil
	}
	switch f.Status {
	case 431:
		r = reason.HeadTooLarge
	case 414:
		r = reason.TargetTooLong
	case 417:
		r = reason.BadExpect
	default:
		r = reason.BadRequest
	}
	return f.Status, r, errors.New(f.Detail)
}

// Request implements exchange.Down.
func (d *H2) Request() *message.Request { return &d.st.Req }

// ReadBody implements exchange.Down.
func (d *H2) ReadBody() ([]byte, bool, error) {
	if d.connect {
		return nil, true, nil
	}
	b, last, err := d.st.ReadBody(&d.trailer)
	if err != nil {
		return nil, false, d.bodyError(err)
	}
	return b, last, nil
}

// Trailer implements exchange.Down.
func (d *H2) Trailer() *message.Header { return &d.trailer }

// bodyError gives a failed read of the request body its reason.
func (d *H2) bodyError(err error) error {
	switch {
	case errors.Is(err, wire.ErrTooSlow):
		return &reason.Error{Reason: reason.ClientTooSlow, Err: err}
	case errors.Is(err, wire.ErrTimeout):
		return &reason.Error{Reason: reason.BodyTimeout, Err: err}
	}
	return streamReason(err)
}

// streamReason gives the end of a client's stream its reason.
func streamReason(err error) error {
	var known *reason.Error
	var e *h2.Error
	switch {
	case errors.As(err, &known):
		return known
	case !errors.As(err, &e):
		return reason.Wrap(reason.ClientGone, err)
	case e.Remote && !e.Conn && e.Code != h2frame.Cancel && e.Code != h2frame.NoError:
		return &reason.Error{Reason: reason.ClientReset, Err: err}
	case e.Remote:
		return &reason.Error{Reason: reason.ClientGone, Err: err}
	}
	return &reason.Error{Reason: reason.ProtocolError, Err: err}
}

// endOf is streamReason for the other side's waits. It hides the errors of our own
// connection: an io.EOF among them would look there as if the origin had sent it.
func endOf(e *h2.Error) error {
	err := &reason.Error{Reason: reason.ClientGone, Err: errors.New(e.Error())}
	var re *reason.Error
	if errors.As(streamReason(e), &re) {
		err.Reason = re.Reason
	}
	return err
}

// BodyReady implements exchange.Down.
func (d *H2) BodyReady() bool { return d.connect || d.st.BodyReady() }

// BodyEnded implements exchange.Down.
func (d *H2) BodyEnded() bool { return d.connect || d.st.BodyEnded() }

// Continue implements exchange.Down.
func (d *H2) Continue() error {
	if !d.expect {
		return nil
	}
	var resp message.Response
	resp.Status = 100
	return d.WriteInterim(&resp)
}

// WriteInterim implements exchange.Down.
func (d *H2) WriteInterim(resp *message.Response) error {
	if resp.Status == 100 {
		d.expect = false
	}
	if err := checkHead(resp); err != nil {
		return err
	}
	if err := d.st.WriteInterim(resp); err != nil {
		return d.writeError(err)
	}
	return d.Flush()
}

// checkHead refuses what hooks may have put into a head and must not be sent.
func checkHead(resp *message.Response) error {
	if name, bad := resp.Header.Invalid(); bad {
		return hookField(errors.New(name))
	}
	if resp.Status < 100 || resp.Status > 999 {
		return hookField(errors.New("the status is not between 100 and 999"))
	}
	return nil
}

// writeError gives a failed write to the client its reason.
func (d *H2) writeError(err error) error {
	if err == nil {
		return nil
	}
	d.aborted = true
	switch {
	case errors.Is(err, wire.ErrTooSlow):
		return &reason.Error{Reason: reason.ClientTooSlow, Err: err}
	case errors.Is(err, wire.ErrTimeout):
		return &reason.Error{Reason: reason.ClientWriteStop, Err: err}
	case errors.Is(err, h2.ErrLength):
		return &reason.Error{Reason: reason.BadHookBody, Err: err}
	}
	return streamReason(err)
}

// Bodiless implements exchange.Down.
func (d *H2) Bodiless(status int) bool {
	return status == 204 || status == 304 || status < 200 || d.head
}

// WriteHead implements exchange.Down.
//
// RFC 9113, section 8.1: a response without a body ends with its head.
func (d *H2) WriteHead(resp *message.Response) error {
	if d.st.Started() {
		return errSecondHead
	}
	if err := checkHead(resp); err != nil {
		return err
	}
	if d.connect && resp.Status < 300 {
		return d.writeSwitch(resp)
	}
	length, told := resp.Length(), resp.Length()
	end := length == 0 && resp.Trailer.Len() == 0
	if d.Bodiless(resp.Status) {
		end, length = true, 0
		if resp.Status == 204 {
			told = -1 // RFC 9110, section 8.6
		}
	}
	if err := d.st.WriteHead(resp, length, told, end); err != nil {
		return d.writeError(err)
	}
	d.finished = end
	return nil
}

// WriteBody implements exchange.Down.
func (d *H2) WriteBody(b []byte, last bool, trailer *message.Header) error {
	if d.finished {
		if len(b) > 0 {
			return d.writeError(h2.ErrLength)
		}
		return d.Flush()
	}
	if last && trailer != nil && trailer.Len() > 0 {
		if name, bad := trailer.Invalid(); bad {
			return hookField(errors.New(name))
		}
		if err := d.st.WriteBody(b, false, true); err != nil {
			return d.writeError(err)
		}
		if err := d.st.WriteTrailer(trailer); err != nil {
			return d.writeError(err)
		}
		d.finished = true
		return nil
	}
	if err := d.st.WriteBody(b, last, false); err != nil {
		return d.writeError(err)
	}
	d.finished = last
	return nil
}

// WriteLater implements exchange.Down.
func (d *H2) WriteLater(b []byte) error { return d.writeError(d.st.WriteBody(b, false, true)) }

// Flush implements exchange.Down.
func (d *H2) Flush() error { return d.writeError(d.st.Flush()) }

// Room implements exchange.Down.
func (d *H2) Room() int { return max(d.st.Room(), 1) }

// Started implements exchange.Down.
func (d *H2) Started() bool { return d.st.Started() }

// Abort implements exchange.Down.
func (d *H2) Abort(cause error) {
	d.aborted = true
	switch {
	case d.tunneled:
		d.st.Reset(h2frame.Cancel) // RFC 8441, section 5
	case !d.finished:
		d.st.Reset(abortCode(cause))
	}
}

// abortCode returns with what a response is cut.
//
// RFC 9113, section 7: of an origin's codes those that say something of the request;
// the others are about its connection, or would have the client try again although a
// part of a response has come.
func abortCode(cause error) h2frame.Code {
	var e *h2.Error
	if errors.As(cause, &e) && e.Remote && !e.Conn {
		switch e.Code {
		case h2frame.Cancel, h2frame.EnhanceYourCalm, h2frame.InadequateSecurity, h2frame.ConnectError:
			return e.Code
		}
	}
	return h2frame.InternalError
}

// BeginRawIn implements exchange.Down.
func (d *H2) BeginRawIn() (*wire.Conn, int64) { return nil, 0 }

// EndRawIn implements exchange.Down.
func (d *H2) EndRawIn(int64) {}

// BeginRawOut implements exchange.Down.
func (d *H2) BeginRawOut(int64) (*wire.Conn, []byte, error) { return nil, nil, nil }

// EndRawOut implements exchange.Down.
func (d *H2) EndRawOut(int64) {}

// Watch implements exchange.Down.
func (d *H2) Watch(w exchange.Canceler) {
	d.mu.Lock()
	d.watcher = w
	cause := d.cancel
	d.mu.Unlock()
	if cause != nil {
		w.Cancel(cause)
	}
	d.st.Watch(d.gone)
}

// left tells the session that the client abandoned the stream.
func (d *H2) left(e *h2.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watcher != nil {
		d.watcher.Cancel(endOf(e))
	}
}

// Unwatch implements exchange.Down.
func (d *H2) Unwatch() {
	d.st.Unwatch()
	d.mu.Lock()
	d.watcher = nil
	d.mu.Unlock()
}

// CancelWait implements exchange.Down.
func (d *H2) CancelWait(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cancel = cause
	if d.watcher != nil {
		d.watcher.Cancel(cause)
	}
	d.st.Interrupt(cause, cause)
}

// InterruptBody implements exchange.Down.
func (d *H2) InterruptBody(cause error) { d.st.Interrupt(cause, nil) }

// ResumeBody implements exchange.Down.
func (d *H2) ResumeBody() { d.st.ClearInterrupt() }

var _ exchange.Down = (*H2)(nil)
