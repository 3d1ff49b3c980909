package cirque

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/hop"
	"github.com/cirqueproxy/cirque/internal/upstream"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// This file is the other half of the third door: the pool as an
// http.RoundTripper.

// RoundTripper returns an http.RoundTripper that sends every request to p over
// the Transport's pool: same connections, same limits, same counters as the
// sessions that use p.
func (t *Transport) RoundTripper(p *Peer) http.RoundTripper { return &roundTripper{t, p} }

type roundTripper struct {
	t *Transport
	p *Peer
}

// RoundTrip implements http.RoundTripper. A connection of the pool that turns
// out to be dead before anything was sent is replaced.
func (rt *roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := readAll(r)
	if err != nil {
		return nil, err
	}
	for stale := 0; ; stale++ {
		resp, again, err := rt.try(r, body, stale)
		if err == nil || !again {
			return resp, err
		}
	}
}

// readAll takes the request body, which http.RoundTripper must close.
func readAll(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

func (rt *roundTripper) try(r *http.Request, body []byte, stale int) (*http.Response, bool, error) {
	w := &contextWatcher{ctx: r.Context()}
	target := rt.p.target()
	reuse := reuseFor(r.Method)
	if stale >= maxStale {
		reuse = upstream.ReuseNone
	}
	d := rt.p.Timeouts.or(defaultTimeouts)
	u, err := rt.t.get(rt.p, target, d.want(reuse, w))
	if err != nil {
		return nil, false, toError(err, 0)
	}
	u.SetTimeouts(positive(d.FirstByte), positive(d.Read), positive(d.Write))
	var req message.Request
	fromHTTP(&req, r, int64(len(body)))
	w.Watch(u)
	var resp message.Response
	err = u.Send(&req, body, true)
	for interims := 0; err == nil; interims++ {
		if interims > maxInterim {
			err = &Error{Reason: reason.UpstreamInterimLimit}
			break
		}
		if err = u.ReadHead(&resp); err == nil && resp.Status >= 200 {
			return toHTTP(r, &resp, u, w), false, nil
		}
		if err == nil && resp.Status == http.StatusSwitchingProtocols {
			err = errors.New("cirque: the origin switched protocols")
		}
	}
	w.Unwatch()
	again := !u.Sent() && u.Reused()
	u.Close()
	if cause := r.Context().Err(); cause != nil {
		return nil, false, cause
	}
	return nil, again, toError(err, 0)
}

// fromHTTP makes a message of a net/http request.
func fromHTTP(req *message.Request, r *http.Request, length int64) {
	req.SetMethod(r.Method)
	if r.Method == "" {
		req.SetMethod(http.MethodGet)
	}
	req.SetTarget(r.URL.RequestURI())
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	req.SetAuthority(host)
	copyHTTPHeader(&req.Header, r.Header)
	hop.Remove(&req.Header, false)
	req.SetLength(length)
}

// toHTTP makes a net/http response of a message whose body is still on u.
func toHTTP(r *http.Request, resp *message.Response, u upstream.Up, w *contextWatcher) *http.Response {
	cleanResponse(resp, false)
	h := &http.Response{
		Status: http.StatusText(resp.Status), StatusCode: resp.Status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, ContentLength: resp.Length(), Request: r,
		Body: &responseReader{u: u, w: w},
	}
	for name, value := range resp.Header.All() {
		h.Header.Add(name, value)
	}
	h.Status = http.StatusText(resp.Status)
	if text := resp.Reason(); text != "" {
		h.Status = text
	}
	return h
}

// responseReader is the body of a response on a pooled connection.
type responseReader struct {
	u      upstream.Up
	w      *contextWatcher
	rest   []byte
	last   bool
	once   sync.Once
	closed atomic.Bool
	mu     sync.Mutex // held by Read: Close may be called beside it
}

// Read implements io.Reader.
func (b *responseReader) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	for len(b.rest) == 0 {
		if b.last {
			b.end(upstream.Up.Release)
			return 0, io.EOF
		}
		var err error
		if b.rest, b.last, err = b.u.ReadBody(); err != nil {
			b.end(upstream.Up.Close)
			return 0, toError(err, 0)
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (b *responseReader) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.w.cancel(http.ErrBodyReadAfterClose) // ends a Read that waits
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(upstream.Up.Close)
	return nil
}

func (b *responseReader) end(how func(upstream.Up)) {
	b.once.Do(func() {
		b.w.Unwatch()
		how(b.u)
	})
}

// contextWatcher ends waits when a context does.
type contextWatcher struct {
	ctx  context.Context
	stop func() bool

	mu   sync.Mutex
	live exchange.Canceler // Guarded by mu: nil when nothing is watched.
	over error             // Guarded by mu: what ended all waits.
}

// cancel ends the present wait and all later ones.
func (w *contextWatcher) cancel(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = cause
	if w.live != nil {
		w.live.Cancel(cause)
	}
}

// Watch implements upstream.Watcher.
func (w *contextWatcher) Watch(c exchange.Canceler) {
	w.Unwatch()
	w.mu.Lock()
	w.live = c
	over := w.over
	w.mu.Unlock()
	if over != nil {
		c.Cancel(over)
	}
	w.stop = context.AfterFunc(w.ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.live != nil {
			w.live.Cancel(context.Cause(w.ctx))
		}
	})
}

// Unwatch implements upstream.Watcher.
func (w *contextWatcher) Unwatch() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
	w.mu.Lock()
	w.live = nil
	w.mu.Unlock()
}
