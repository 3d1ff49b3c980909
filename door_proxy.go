package cirque

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"

	"github.com/cirqueproxy/cirque/internal/nethttp"
)

// This file is the second door to net/http: a Proxy as an http.Handler.

// ServeHTTP implements http.Handler, so that a Proxy mounts where an
// httputil.ReverseProxy stood. All hooks run. What only a connection of our own
// can do does not work here: tunnels, and splice(2).
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d := nethttp.NewDown(w, r)
	c := &conn{scheme: schemeHTTP, proto: r.Proto}
	if r.TLS != nil {
		c.scheme, c.tls = schemeHTTPS, newTLSDigest(r.TLS)
		c.tlsState = func() *tls.ConnectionState { return r.TLS }
	}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		c.localAddr = a
	}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.setClient(ap)
	}
	s := c.begin(d)
	defer d.Release()
	s.use(p)
	s.serve()
	if d.Aborted() {
		// net/http's way to cut a response visibly.
		panic(http.ErrAbortHandler)
	}
}
