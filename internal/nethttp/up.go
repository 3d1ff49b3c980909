package nethttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// Up is an exchange.Up over an http.RoundTripper. What that does and what it returns
// runs in goroutines of their own, since neither need look at a context: all waits
// are bounded, whatever is behind them.
type Up struct {
	// Immutable after NewUp.
	rt     http.RoundTripper
	target Target
	ctx    context.Context
	cancel context.CancelCauseFunc
	body   *io.PipeWriter // of a request that was not given whole
	pipe   *io.PipeReader

	// Owned by the exchange.
	req             *http.Request
	resultc         chan result
	resp            *http.Response // nil until it came
	trailer         *message.Header
	firstByte, read time.Duration
	sent            bool

	// Owned by the reading goroutine of the exchange.
	wantc chan struct{} // asks for a piece; nil until the first
	gotc  chan piece
	asked bool // a piece is being read

	// Owned by the goroutine that writes the request, once there is one.
	write time.Duration
}

// Target is where requests go.
type Target struct {
	Scheme, Host string
	// Continue is called before a body is waited for.
	Continue func() error
}

type result struct {
	resp *http.Response
	err  error
}

type piece struct {
	b   []byte
	err error
}

// NewUp returns an attempt on rt.
func NewUp(rt http.RoundTripper, target Target) *Up {
	t := &Up{rt: rt, target: target, resultc: make(chan result, 1)}
	t.pipe, t.body = io.Pipe()
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	return t
}

// SetTimeouts implements exchange.Up.
func (t *Up) SetTimeouts(firstByte, read, write time.Duration) {
	t.firstByte, t.read = firstByte, read
	if !t.sent {
		t.write = write
	}
}

// Send implements exchange.Up.
func (t *Up) Send(req *message.Request, body []byte, last bool) error {
	if err := t.request(req); err != nil {
		return &reason.Error{Reason: reason.BadRequest, Err: err}
	}
	t.sent = true
	switch {
	case !last:
		if err := t.target.Continue(); err != nil {
			return err
		}
		t.req.Body = t.pipe
	case len(body) > 0:
		t.req.Body = io.NopCloser(strings.NewReader(string(body)))
		if t.req.ContentLength < 0 {
			t.req.ContentLength = int64(len(body))
		}
		t.req.Trailer = nil
	default:
		t.req.ContentLength, t.req.Trailer = 0, nil
	}
	go t.roundTrip()
	if !last && len(body) > 0 {
		return t.SendBody(body, false, nil)
	}
	return nil
}

// roundTrip is the goroutine of the RoundTripper.
func (t *Up) roundTrip() {
	var got result
	defer func() {
		if v := recover(); v != nil {
			got.err = fmt.Errorf("the RoundTripper panicked: %v", v)
		}
		if got.err != nil {
			t.pipe.CloseWithError(got.err)
		}
		t.resultc <- got
	}()
	got.resp, got.err = t.rt.RoundTrip(t.req)
	if got.resp == nil && got.err == nil {
		got.err = errors.New("the RoundTripper returned neither a response nor an error")
	}
}

// request sets the request as net/http has it.
func (t *Up) request(req *message.Request) error {
	u, err := url.ParseRequestURI(req.Target())
	if err != nil {
		return err
	}
	u.Scheme, u.Host = t.target.Scheme, t.target.Host
	r := (&http.Request{
		Method: req.Method(), URL: u, Host: req.Authority(), Header: http.Header{},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: req.Length(),
	}).WithContext(t.ctx)
	for name, value := range req.Header.All() {
		switch key := http.CanonicalHeaderKey(name); key {
		case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect":
		default:
			r.Header[key] = append(r.Header[key], value)
		}
	}
	r.Trailer = announced(r.Header)
	r.Header.Del("Trailer")
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = nil // none, rather than net/http's
	}
	t.req = r
	return nil
}

// SendBody implements exchange.Up.
func (t *Up) SendBody(b []byte, last bool, trailer *message.Header) error {
	if len(b) > 0 {
		if t.write > 0 {
			stalled := time.AfterFunc(t.write, func() {
				t.pipe.CloseWithError(&reason.Error{Reason: reason.UpstreamWriteTimeout})
			})
			defer stalled.Stop()
		}
		if _, err := t.body.Write(b); err != nil {
			return reason.Wrap(reason.UpstreamReset, err)
		}
	}
	if !last {
		return nil
	}
	if trailer != nil {
		// The RoundTripper looks at them after it has read the body to its end.
		for name, value := range trailer.All() {
			if key := http.CanonicalHeaderKey(name); t.req.Trailer != nil {
				if _, ok := t.req.Trailer[key]; ok {
					t.req.Trailer.Add(key, value)
				}
			}
		}
	}
	return t.body.Close()
}

// ReadHead implements exchange.Up.
func (t *Up) ReadHead(resp *message.Response) error {
	late, stop := after(t.firstByte)
	defer stop()
	var got result
	select {
	case got = <-t.resultc:
	case <-late:
		return &reason.Error{Reason: reason.UpstreamTimeout}
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
	if got.err != nil {
		t.resultc <- got // for Close: there is nothing to wait for
		if cause := context.Cause(t.ctx); cause != nil {
			return cause
		}
		return reason.Wrap(reason.UpstreamClosed, got.err)
	}
	t.resp = got.resp
	resp.Reset()
	t.trailer = &resp.Trailer
	resp.Status = got.resp.StatusCode
	if _, text, ok := strings.Cut(got.resp.Status, " "); ok {
		resp.SetReason(text)
	}
	CopyHeader(&resp.Header, got.resp.Header)
	resp.SetLength(got.resp.ContentLength)
	if got.resp.StatusCode == http.StatusSwitchingProtocols {
		return &reason.Error{Reason: reason.UpstreamUnexpectedSwitch}
	}
	return nil
}

// after returns what tells that d has passed, if d is positive.
func after(d time.Duration) (<-chan time.Time, func() bool) {
	if d <= 0 {
		return nil, func() bool { return false }
	}
	timer := time.NewTimer(d)
	return timer.C, timer.Stop
}

// ReadBody implements exchange.Up.
func (t *Up) ReadBody() ([]byte, bool, error) {
	if t.resp.Body == http.NoBody {
		return nil, true, nil
	}
	if t.wantc == nil {
		t.wantc, t.gotc = make(chan struct{}, 1), make(chan piece, 1)
		go readPieces(t.resp.Body, t.wantc, t.gotc)
	}
	if !t.asked {
		t.asked = true
		t.wantc <- struct{}{}
	}
	late, stop := after(t.read)
	defer stop()
	var got piece
	select {
	case got = <-t.gotc:
		t.asked = false
	case <-late:
		return nil, false, &reason.Error{Reason: reason.UpstreamReadTimeout}
	case <-t.ctx.Done():
		return nil, false, context.Cause(t.ctx)
	}
	switch {
	case errors.Is(got.err, io.EOF):
		CopyHeader(t.trailer, t.resp.Trailer)
		return got.b, true, nil
	case got.err != nil:
		if cause := context.Cause(t.ctx); cause != nil {
			return nil, false, cause
		}
		return nil, false, &reason.Error{Reason: reason.UpstreamTruncated, Err: got.err}
	}
	return got.b, false, nil
}

// readPieces is the goroutine of a response body: it reads a piece for each that is
// wanted, and closes the body when no more are.
func readPieces(body io.ReadCloser, wantc <-chan struct{}, gotc chan<- piece) {
	mem := buf.Get(buf.Small)
	defer mem.Free()
	defer body.Close()
	defer func() {
		if v := recover(); v != nil {
			gotc <- piece{nil, fmt.Errorf("the response's body panicked: %v", v)}
		}
	}()
	for range wantc {
		n, err := body.Read(mem.B)
		gotc <- piece{mem.B[:n], err}
	}
}

// BodyReady implements exchange.Up.
func (t *Up) BodyReady() bool { return t.resp.Body == http.NoBody }

// Tunnel implements exchange.Up: there is none here.
func (t *Up) Tunnel() exchange.Tunnel { return nil }

// BeginRawIn implements exchange.Up.
func (t *Up) BeginRawIn() (*wire.Conn, int64) { return nil, 0 }

// EndRawIn implements exchange.Up.
func (t *Up) EndRawIn(int64) {}

// BeginRawOut implements exchange.Up.
func (t *Up) BeginRawOut(int64) (*wire.Conn, []byte, error) { return nil, nil, nil }

// EndRawOut implements exchange.Up.
func (t *Up) EndRawOut(int64) {}

// Sent implements exchange.Up.
func (t *Up) Sent() bool { return t.sent }

// Reused implements exchange.Up.
func (t *Up) Reused() bool { return false }

// Cancel implements exchange.Canceler.
func (t *Up) Cancel(cause error) {
	t.cancel(cause)
	t.pipe.CloseWithError(cause)
}

// Release implements exchange.Up.
func (t *Up) Release() { t.Close() }

// Close implements exchange.Up.
func (t *Up) Close() {
	t.cancel(nil)
	t.pipe.CloseWithError(context.Canceled)
	switch {
	case t.wantc != nil:
		close(t.wantc)
	case t.resp != nil:
		t.resp.Body.Close()
	case t.sent:
		// A response may come after nobody waits for it.
		go func() {
			if got := <-t.resultc; got.resp != nil {
				got.resp.Body.Close()
			}
		}()
	}
}

var _ exchange.Up = (*Up)(nil)
