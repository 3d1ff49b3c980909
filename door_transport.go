package cirque

import (
	"net/http"

	"github.com/cirqueproxy/cirque/internal/nethttp"
	"github.com/cirqueproxy/cirque/internal/upstream"
)

// This file is the third door to net/http: the pool as an http.RoundTripper, and an
// http.RoundTripper as an upstream.

// RoundTripper returns an http.RoundTripper that sends every request to p over
// the Transport's pool: same connections, same limits, same counters as the
// sessions that use p. Bodies stream in both directions.
func (t *Transport) RoundTripper(p *Peer) http.RoundTripper { return &roundTripper{t, p} }

type roundTripper struct {
	t *Transport
	p *Peer
}

// RoundTrip implements http.RoundTripper. A connection of the pool that turns
// out to be dead before anything was sent is replaced.
func (rt *roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := nethttp.NewBody(r)
	if err != nil {
		return nil, err
	}
	for stale := 0; ; stale++ {
		resp, again, err := rt.try(r, body, stale)
		if err == nil {
			return resp, nil
		}
		if !again || !body.Rewind() {
			body.Close()
			return nil, err
		}
	}
}

func (rt *roundTripper) try(r *http.Request, body *nethttp.Body, stale int) (*http.Response, bool, error) {
	w := &nethttp.Watcher{Context: r.Context()}
	reuse := reuseFor(r.Method)
	if stale >= maxStale {
		reuse = upstream.ReuseNone
	}
	d := rt.p.Timeouts.or(defaultTimeouts)
	u, err := rt.t.get(rt.p, rt.p.target(), d.want(reuse, w))
	if err != nil {
		return nil, false, toError(err, 0)
	}
	u.SetTimeouts(positive(d.FirstByte), positive(d.Read), positive(d.Write))
	proto := "HTTP/1.1"
	if _, ok := u.(*upstream.H2); ok {
		proto = "HTTP/2.0"
	}
	return nethttp.Ask(u, r, body, w, proto, func(err error) error { return toError(err, 0) })
}

// newRoundTrip returns the session's attempt on a RoundTripper.
func newRoundTrip(s *Session, rt http.RoundTripper) *nethttp.Up {
	s.keepOut = true
	return nethttp.NewUp(rt, nethttp.Target{
		Scheme: string(s.conn.scheme), Host: s.peer.Addr, Continue: s.down.Continue,
	})
}
