package cirque

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/listen"
	"github.com/cirqueproxy/cirque/reason"
)

// conn is what the sessions of one client connection share.
type conn struct {
	// Immutable after newConn.
	server        *Server
	h1            *downstream.H1     // nil for HTTP/2, and behind a door that has no connection of ours
	h2            *downstream.H2Conn // nil for HTTP/1, and behind a door
	clientAddr    netip.AddrPort
	clientIP      string
	clientIPBytes []byte
	localAddr     net.Addr
	listener      string
	scheme        []byte
	tls           *TLSDigest       // nil: no TLS
	terms         *listen.Acceptor // nil: no TLS of ours
	tlsState      func() *tls.ConnectionState

	// Owned by the connection's goroutine.
	session *Session // for the next request
	proto   string   // of the present request, behind a door

	slotsMu sync.Mutex
	slots   []slot // Guarded by slotsMu: requests of HTTP/2 run side by side.
}

func newConn(srv *Server, nc net.Conn, listener string) *conn {
	c := &conn{server: srv, localAddr: nc.LocalAddr(), listener: listener, scheme: schemeHTTP}
	c.setClient(addrPort(nc.RemoteAddr()))
	return c
}

var schemeHTTP, schemeHTTPS = []byte("http"), []byte("https")

func (c *conn) setClient(ap netip.AddrPort) {
	c.clientAddr = ap
	if ap.IsValid() {
		c.clientIP = ap.Addr().Unmap().WithZone("").String()
		c.clientIPBytes = []byte(c.clientIP)
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case interface{ AddrPort() netip.AddrPort }:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// begin returns the Session for the next request.
func (c *conn) begin(down exchange.Down) *Session {
	s := c.session
	if s == nil || s.keepOut {
		s = &Session{server: c.server, conn: c}
		c.session = s
	}
	s.reset(down)
	return s
}

// reset makes a Session ready for a request.
func (s *Session) reset(down exchange.Down) {
	s.down, s.req = down, down.Request()
	s.began = time.Now()
	s.proxy, s.plan = nil, &emptyPlan
	s.upReq.Reset()
	s.resp.Reset()
	clear(s.tried)
	s.tried = s.tried[:0]
	for _, b := range s.slots {
		if b != nil {
			b.clear()
		}
	}
	s.peer, s.up, s.h1up, s.wire, s.upConn, s.lastErr = nil, nil, nil, nil, nil, nil
	s.attempt = Attempt{}
	s.attempts, s.stale, s.interims, s.idLen, s.localFrom = 0, 0, 0, 0, -1
	s.newConn = false
	s.phase, s.sentBody = phaseRequest, 0
	s.responded, s.respHooks, s.noRetry, s.failedByHook = false, false, false, false
	s.foreign, s.answering = false, false
	if s.own.set {
		s.own = own{}
	}
	s.local = s.local[:0]
	if cap(s.local) > maxKeptLocal {
		s.local = nil
	}
	s.total = nil
}

// maxKeptLocal bounds the memory of local responses that an idle connection
// keeps.
const maxKeptLocal = 4 << 10

var emptyPlan plan

func (s *Session) use(p *Proxy) {
	s.proxy = p
	if p != nil {
		_ = p.Validate()
		s.plan = p.plan
	}
}

func (c *conn) protocol(s *Session) string {
	switch {
	case c.proto != "":
		return c.proto
	case c.h2 != nil:
		return "HTTP/2.0"
	case c.h1 != nil && c.h1.Meta().Minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// version returns the protocol version as the Via field has it.
func (c *conn) version(s *Session) string {
	p := c.protocol(s)
	if len(p) > len("HTTP/") {
		return p[len("HTTP/"):]
	}
	return p
}

// tunnels reports whether the connection can carry another protocol than HTTP.
func (c *conn) tunnels() bool { return c.h1 != nil || c.h2 != nil }

func (c *conn) requests() int {
	switch {
	case c.h1 != nil:
		return c.h1.Requests()
	case c.h2 != nil:
		return c.h2.Requests()
	}
	return 1
}

func (c *conn) closeAfter() {
	switch {
	case c.h1 != nil:
		c.h1.CloseAfter(reason.KeepAliveOff)
	case c.h2 != nil:
		c.h2.Drain()
	}
}

func (c *conn) setReadDeadline(t time.Time) error {
	if c.h1 == nil {
		return http.ErrNotSupported
	}
	c.h1.SetReadDeadline(t)
	return nil
}

func (c *conn) setWriteDeadline(t time.Time) error {
	if c.h1 == nil {
		return http.ErrNotSupported
	}
	c.h1.SetWriteDeadline(t)
	return nil
}
