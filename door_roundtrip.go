package cirque

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// This file is one half of the third door to net/http: an http.RoundTripper as
// an upstream. The other half is in door_transport.go.

// roundTrip is an exchange.Up over an http.RoundTripper.
type roundTrip struct {
	s      *Session
	rt     http.RoundTripper
	cancel context.CancelCauseFunc
	ctx    context.Context

	body    *io.PipeWriter // nil when the request was given whole
	resultc chan roundTripResult
	resp    *http.Response
	trailer *message.Header // of what ReadHead filled
	mem     *buf.Buffer
	sent    bool

	firstByte, read, write time.Duration
}

type roundTripResult struct {
	resp *http.Response
	err  error
}

func newRoundTrip(s *Session, rt http.RoundTripper) *roundTrip {
	s.keepOut = true
	t := &roundTrip{s: s, rt: rt, resultc: make(chan roundTripResult, 1)}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	return t
}

// SetTimeouts implements exchange.Up.
func (t *roundTrip) SetTimeouts(firstByte, read, write time.Duration) {
	t.firstByte, t.read, t.write = firstByte, read, write
}

// Send implements exchange.Up.
func (t *roundTrip) Send(req *message.Request, body []byte, last bool) error {
	r, err := t.request(req)
	if err != nil {
		return &reason.Error{Reason: reason.BadRequest, Err: err}
	}
	t.sent = true
	var pr *io.PipeReader
	switch {
	case !last:
		if err := t.s.down.Continue(); err != nil {
			return err
		}
		pr, t.body = io.Pipe()
		r.Body = pr
	case len(body) > 0:
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if r.ContentLength < 0 {
			r.ContentLength = int64(len(body))
		}
	default:
		r.ContentLength = 0
	}
	go func() {
		resp, err := t.rt.RoundTrip(r)
		if err != nil && pr != nil {
			pr.CloseWithError(err)
		}
		t.resultc <- roundTripResult{resp, err}
	}()
	if !last && len(body) > 0 {
		return t.SendBody(body, false, nil)
	}
	return nil
}

// request returns the upstream request as net/http has it.
func (t *roundTrip) request(req *message.Request) (*http.Request, error) {
	u, err := url.ParseRequestURI(req.Target())
	if err != nil {
		return nil, err
	}
	u.Scheme, u.Host = string(t.s.conn.scheme), t.s.peer.Addr
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
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = nil // none, rather than net/http's
	}
	return r, nil
}

// SendBody implements exchange.Up.
func (t *roundTrip) SendBody(b []byte, last bool, _ *message.Header) error {
	if len(b) > 0 {
		if _, err := t.body.Write(b); err != nil {
			return reason.Wrap(reason.UpstreamReset, err)
		}
	}
	if last {
		return t.body.Close()
	}
	return nil
}

// ReadHead implements exchange.Up.
func (t *roundTrip) ReadHead(resp *message.Response) error {
	var got roundTripResult
	select {
	case got = <-t.resultc:
	case <-t.ctx.Done():
		go t.abandon()
		return context.Cause(t.ctx)
	}
	if got.err != nil {
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
	copyHTTPHeader(&resp.Header, got.resp.Header)
	resp.SetLength(got.resp.ContentLength)
	if got.resp.StatusCode == http.StatusSwitchingProtocols {
		return &reason.Error{Reason: reason.UpstreamUnexpectedSwitch}
	}
	return nil
}

// abandon closes a response that comes after nobody waits for it.
func (t *roundTrip) abandon() {
	if got := <-t.resultc; got.resp != nil {
		got.resp.Body.Close()
	}
}

// copyHTTPHeader copies a net/http header in a stable order.
func copyHTTPHeader(dst *message.Header, src http.Header) {
	names := make([]string, 0, len(src))
	for name := range src {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range src[name] {
			dst.Add(name, v)
		}
	}
}

// ReadBody implements exchange.Up.
func (t *roundTrip) ReadBody() ([]byte, bool, error) {
	if t.mem == nil {
		t.mem = buf.Get(buf.Small)
	}
	n, err := t.resp.Body.Read(t.mem.B)
	switch {
	case errors.Is(err, io.EOF):
		copyHTTPHeader(t.trailer, t.resp.Trailer)
		return t.mem.B[:n], true, nil
	case err != nil:
		if cause := context.Cause(t.ctx); cause != nil {
			return nil, false, cause
		}
		return nil, false, &reason.Error{Reason: reason.UpstreamTruncated, Err: err}
	}
	return t.mem.B[:n], false, nil
}

// BodyReady implements exchange.Up.
func (t *roundTrip) BodyReady() bool { return t.resp.Body == http.NoBody }

// Tunnel implements exchange.Up: there is none here.
func (t *roundTrip) Tunnel() exchange.Tunnel { return nil }

// BeginRawIn implements exchange.Up.
func (t *roundTrip) BeginRawIn() (*wire.Conn, int64) { return nil, 0 }

// EndRawIn implements exchange.Up.
func (t *roundTrip) EndRawIn(int64) {}

// BeginRawOut implements exchange.Up.
func (t *roundTrip) BeginRawOut(int64) (*wire.Conn, []byte, error) { return nil, nil, nil }

// EndRawOut implements exchange.Up.
func (t *roundTrip) EndRawOut(int64) {}

// Sent implements exchange.Up.
func (t *roundTrip) Sent() bool { return t.sent }

// Reused implements exchange.Up.
func (t *roundTrip) Reused() bool { return false }

// Cancel implements exchange.Canceler.
func (t *roundTrip) Cancel(cause error) {
	t.cancel(cause)
	if t.body != nil {
		t.body.CloseWithError(cause)
	}
}

// Release implements exchange.Up.
func (t *roundTrip) Release() { t.Close() }

// Close implements exchange.Up.
func (t *roundTrip) Close() {
	if t.resp != nil {
		t.resp.Body.Close()
	}
	t.cancel(nil)
	if t.mem != nil {
		t.mem.Free()
		t.mem = nil
	}
}
