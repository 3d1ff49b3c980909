package nethttp

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// Down is an exchange.Down over net/http's server.
type Down struct {
	w  http.ResponseWriter
	r  *http.Request
	rc *http.ResponseController

	req     message.Request
	trailer message.Header
	mem     *buf.Buffer
	started bool
	aborted bool
	ended   atomic.Bool
	watch   Watcher
}

// NewDown returns the exchange of a request. It belongs to the handler that r came to.
func NewDown(w http.ResponseWriter, r *http.Request) *Down {
	d := &Down{w: w, r: r, rc: http.NewResponseController(w)}
	Request(&d.req, r, r.ContentLength)
	// Without it net/http reads the rest of the request before a response goes
	// out, and waits for a read of ours that waits for the client.
	_ = d.rc.EnableFullDuplex()
	return d
}

// Aborted reports whether the response has to be cut visibly.
func (d *Down) Aborted() bool { return d.aborted }

// Release gives back what the exchange holds, when it is over.
func (d *Down) Release() {
	d.watch.Unwatch()
	if d.mem != nil {
		d.mem.Free()
		d.mem = nil
	}
}

// Request implements exchange.Down.
func (d *Down) Request() *message.Request { return &d.req }

// ReadBody implements exchange.Down.
func (d *Down) ReadBody() ([]byte, bool, error) {
	if d.BodyEnded() {
		return nil, true, nil
	}
	if d.mem == nil {
		d.mem = buf.Get(buf.Small)
	}
	n, err := d.r.Body.Read(d.mem.B)
	switch {
	case errors.Is(err, io.EOF):
		CopyHeader(&d.trailer, d.r.Trailer)
		d.ended.Store(true)
		return d.mem.B[:n], true, nil
	case err != nil:
		return nil, false, &reason.Error{Reason: reason.ClientGone, Err: err}
	}
	return d.mem.B[:n], false, nil
}

// Trailer implements exchange.Down.
func (d *Down) Trailer() *message.Header { return &d.trailer }

// BodyReady implements exchange.Down.
func (d *Down) BodyReady() bool { return d.BodyEnded() }

// BodyEnded implements exchange.Down.
func (d *Down) BodyEnded() bool { return d.req.Length() == 0 || d.ended.Load() }

// Continue implements exchange.Down: net/http sends it by itself.
func (d *Down) Continue() error { return nil }

// WriteInterim implements exchange.Down.
func (d *Down) WriteInterim(resp *message.Response) error {
	if resp.Status == http.StatusContinue {
		return nil // net/http sends its own
	}
	for name, value := range resp.Header.All() {
		d.w.Header().Add(name, value)
	}
	d.w.WriteHeader(resp.Status)
	clear(d.w.Header())
	return nil
}

// WriteHead implements exchange.Down.
func (d *Down) WriteHead(resp *message.Response) error {
	if name, bad := resp.Header.Invalid(); bad {
		return &reason.Error{Reason: reason.BadHookField, Err: errors.New(name)}
	}
	h := d.w.Header()
	for name, value := range resp.Header.All() {
		if !strings.EqualFold(name, "Content-Length") {
			h.Add(name, value)
		}
	}
	if n := resp.Length(); n >= 0 {
		h.Set("Content-Length", strconv.FormatInt(n, 10))
	}
	d.started = true
	d.w.WriteHeader(resp.Status)
	if resp.Length() < 0 {
		return d.Flush() // else net/http makes up a length when the body is short
	}
	return nil
}

// WriteBody implements exchange.Down.
func (d *Down) WriteBody(b []byte, last bool, trailer *message.Header) error {
	if len(b) > 0 {
		if _, err := d.w.Write(b); err != nil {
			d.aborted = true
			return &reason.Error{Reason: reason.ClientGone, Err: err}
		}
	}
	if last && trailer != nil {
		for name, value := range trailer.All() {
			d.w.Header().Add(http.TrailerPrefix+name, value)
		}
	}
	if !last {
		return d.Flush()
	}
	return nil
}

// WriteLater implements exchange.Down.
func (d *Down) WriteLater(b []byte) error {
	if _, err := d.w.Write(b); err != nil {
		d.aborted = true
		return &reason.Error{Reason: reason.ClientGone, Err: err}
	}
	return nil
}

// Flush implements exchange.Down.
func (d *Down) Flush() error {
	if err := d.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		d.aborted = true
		return &reason.Error{Reason: reason.ClientGone, Err: err}
	}
	return nil
}

// Bodiless implements exchange.Down.
func (d *Down) Bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified || d.r.Method == http.MethodHead
}

// Room implements exchange.Down.
func (d *Down) Room() int { return 0 }

// Started implements exchange.Down.
func (d *Down) Started() bool { return d.started }

// Abort implements exchange.Down.
func (d *Down) Abort(error) { d.aborted = true }

// Tunnel implements exchange.Down: there is none here.
func (d *Down) Tunnel(*message.Response) (exchange.Tunnel, error) { return nil, nil }

// BeginRawIn implements exchange.Down.
func (d *Down) BeginRawIn() (*wire.Conn, int64) { return nil, 0 }

// EndRawIn implements exchange.Down.
func (d *Down) EndRawIn(int64) {}

// BeginRawOut implements exchange.Down.
func (d *Down) BeginRawOut(int64) (*wire.Conn, []byte, error) { return nil, nil, nil }

// EndRawOut implements exchange.Down.
func (d *Down) EndRawOut(int64) {}

// Watch implements exchange.Down.
func (d *Down) Watch(c exchange.Canceler) {
	d.watch.Context = d.r.Context()
	d.watch.Watch(gone{c})
}

// gone gives the end of a request's context its reason.
type gone struct{ c exchange.Canceler }

// Cancel implements exchange.Canceler.
func (g gone) Cancel(cause error) {
	g.c.Cancel(&reason.Error{Reason: reason.ClientGone, Err: cause})
}

// Unwatch implements exchange.Down.
func (d *Down) Unwatch() { d.watch.Unwatch() }

// CancelWait implements exchange.Down.
func (d *Down) CancelWait(cause error) {
	d.watch.Cancel(cause)
	_ = d.rc.SetReadDeadline(past)
	_ = d.rc.SetWriteDeadline(past)
}

// InterruptBody implements exchange.Down. Closing the body would wait for the
// read that it shall end.
func (d *Down) InterruptBody(error) { _ = d.rc.SetReadDeadline(past) }

// ResumeBody implements exchange.Down.
func (d *Down) ResumeBody() { _ = d.rc.SetWriteDeadline(time.Time{}) }

var past = time.Unix(1, 0)
