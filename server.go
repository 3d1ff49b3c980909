package cirque

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/trim"
	"github.com/cirqueproxy/cirque/internal/tunnel"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/listen"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// ErrServerClosed is what Serve and ListenAndServe return after Shutdown or
// Close.
var ErrServerClosed = errors.New("cirque: the server was closed")

// Server listens and accepts. Set its fields before the first use and leave
// them. A Server must not be copied.
//
// Each duration: if zero, the default said there is used; if negative, there is
// no limit.
type Server struct {
	// Addr is where ListenAndServe listens: host:port, :port, or unix:/path. If
	// empty, it is ":8080".
	Addr string

	// Proxy serves the requests for which Route is nil or returns nil. If it is
	// nil too, they get 404. Its response and Done hooks also see requests whose
	// head was refused.
	Proxy *Proxy
	// Route returns the Proxy of a request. It is called once per request, after
	// the head was validated and before any hook.
	Route func(s *Session) *Proxy

	// ReadHeaderTimeout bounds a request head, from its first byte: 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout bounds the wait for the next request: 75 s.
	IdleTimeout time.Duration
	// BodyTimeout bounds a wait inside a request body: 60 s.
	BodyTimeout time.Duration
	// WriteTimeout bounds a wait for a client that does not read: 60 s.
	WriteTimeout time.Duration
	// ParkAfter is how long an idle connection keeps its goroutine; then it is
	// only watched: 5 s. If negative, it always does.
	ParkAfter time.Duration

	// MinBodyRate is how many bytes a second a client must send of a body, and
	// take of a response, while we wait for it. If zero, 240. If negative, there
	// is no such bound.
	MinBodyRate int
	// MinBodyGrace is how long we may have waited in all before the rate counts:
	// 10 s.
	MinBodyGrace time.Duration

	// MaxHeaderBytes bounds a request head; a larger one gets 431. If zero,
	// 64 KiB.
	MaxHeaderBytes int
	// MaxFields bounds the fields of a head, 431 beyond. If zero, 100.
	MaxFields int
	// MaxTargetBytes bounds a request target, 414 beyond. If zero, 16 KiB.
	MaxTargetBytes int
	// MaxRequests bounds the requests of one connection. If zero, there is no
	// limit.
	MaxRequests int
	// MaxConns bounds the connections; more wait in the listener's queue. If
	// zero, there is no limit.
	MaxConns int
	// DrainBytes bounds what is read of a body that nobody wanted, so that the
	// connection can be kept. If zero, 256 KiB. If negative, the connection is
	// closed.
	DrainBytes int64
	// DrainTimeout bounds how long that is read: 2 s.
	DrainTimeout time.Duration

	// TunnelDrain is how long tunnels (WebSocket, CONNECT) may go on after Shutdown
	// was called: 10 s. They never end by themselves as requests do, and their
	// clients connect again elsewhere. If negative, they may for as long as Shutdown
	// waits.
	TunnelDrain time.Duration

	// H2C also takes HTTP/2 without TLS, from clients that know beforehand (RFC 9113,
	// section 3.3). With TLS the handshake settles it.
	H2C bool
	// HTTP2 are the limits of HTTP/2.
	HTTP2 HTTP2

	// AllowHalfClose serves a client that has closed its sending side. If false,
	// that means that it left.
	AllowHalfClose bool
	// DrainEarlyUploads reads the rest of an upload whose response is complete,
	// in place of closing the connection.
	DrainEarlyUploads bool
	// AcceptBothLengths serves a request that has one Content-Length beside
	// Transfer-Encoding: chunked. The Content-Length is dropped, the body read in
	// chunks, and the connection closed after the response. If false, such a
	// request gets 400: it is what smuggling is made of, so this is only for a
	// client that cannot be changed.
	AcceptBothLengths bool
	// AllowPaths lists what requests may have in their paths although the origin
	// may read it as another path than hooks and routes did. A request with a
	// problem that is not listed gets 400.
	AllowPaths []message.PathProblem

	// AcceptConn, if not nil, is asked about each connection before a byte is
	// read or sent. An error closes it.
	AcceptConn func(nc net.Conn) error
	// TLS is how ListenAndServeTLS, and ServeTLS without another, do their
	// handshakes.
	TLS *listen.TLS
	// Handshaken, if not nil, is called on the goroutine of a connection whose TLS
	// handshake is complete, before its first request. It may set values for the
	// connection's sessions, and ends the connection by an error.
	Handshaken func(h *Handshake) error
	// BaseContext, if not nil, makes the parent of the sessions' contexts.
	BaseContext func() context.Context
	// Logger gets what the operator should know. If nil, slog.Default() does.
	Logger *slog.Logger

	once    sync.Once
	cfg     downstream.Config
	sweep   *wire.Sweep
	parker  *wire.Parker
	clock   dateCache
	trimmer trim.Trimmer

	requests, panics, accepted, refused atomic.Int64
	ends                                [reason.Len]atomic.Int64 // of connections
	failures                            [reason.Len]atomic.Int64 // of sessions
	tooMany                             chan struct{}            // a slot per allowed connection; nil: no limit

	mu        sync.Mutex
	listeners map[net.Listener]struct{} // Guarded by mu.
	conns     map[clientConn]func()     // Guarded by mu: what to call at the end.
	// handshakes are the connections that have no H1 yet. Guarded by mu.
	handshakes map[net.Conn]struct{}
	tunnels    map[*tunnel.Relay]struct{} // Guarded by mu.
	tunnelsEnd *time.Timer                // Guarded by mu: ends them, after Shutdown.
	noTunnels  bool                       // Guarded by mu: it has.
	closing    bool                       // Guarded by mu.
	emptyc     chan struct{}              // Guarded by mu: closed when the last connection ends.
}

// pick returns v, or def for zero; a negative v is zero: no limit.
func pick[T ~int | ~int64](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	}
	return v
}

func (srv *Server) init() {
	srv.once.Do(func() {
		srv.sweep = wire.NewSweep(0)
		srv.parker, _ = wire.NewParker() // without one, connections keep their goroutines
		srv.listeners = map[net.Listener]struct{}{}
		srv.conns = map[clientConn]func(){}
		srv.handshakes = map[net.Conn]struct{}{}
		srv.tunnels = map[*tunnel.Relay]struct{}{}
		if srv.MaxConns > 0 {
			srv.tooMany = make(chan struct{}, srv.MaxConns)
		}
		srv.cfg = downstream.Config{
			Handler: (*handler)(srv), Parker: srv.parker, H2: srv.HTTP2.config(srv),
			Limits: h1.Limits{
				HeadBytes: pick(srv.MaxHeaderBytes, 64<<10), Fields: pick(srv.MaxFields, 100),
				TargetBytes: pick(srv.MaxTargetBytes, 16<<10),
			},
			Rules:       h1.RequestRules{DropLength: srv.AcceptBothLengths},
			MaxRequests: srv.MaxRequests,
			HeadTimeout: pick(srv.ReadHeaderTimeout, 10*time.Second),
			ParkAfter:   pick(srv.ParkAfter, 5*time.Second),
			Bounds: ClientLimits{
				Idle: srv.IdleTimeout, Body: srv.BodyTimeout, Write: srv.WriteTimeout,
				MinRate: srv.MinBodyRate, MinRateGrace: srv.MinBodyGrace,
				DrainBytes: srv.DrainBytes, DrainTime: srv.DrainTimeout,
			}.over(defaultClientLimits),
			AllowHalfClose: srv.AllowHalfClose, DrainEarly: srv.DrainEarlyUploads,
		}
	})
}

// ServeConn serves one connection and returns when it has ended. It takes
// ownership of nc. A *tls.Conn must have completed its handshake.
func (srv *Server) ServeConn(nc net.Conn) {
	srv.init()
	donec := make(chan struct{})
	srv.serveConn(nc, &listener{}, func() { close(donec) })
	<-donec
}

// serveConn serves nc on the caller's goroutine until it ends or is parked;
// done is called when it has ended.
func (srv *Server) serveConn(nc net.Conn, l *listener, done func()) {
	if srv.AcceptConn != nil {
		if err := srv.AcceptConn(nc); err != nil {
			srv.refused.Add(1)
			srv.ends[reason.FilterRefused].Add(1)
			nc.Close()
			done()
			return
		}
	}
	srv.accepted.Add(1)
	c := newConn(srv, nc, l.name)
	if l.tls != nil {
		tc := srv.handshake(nc, l, c)
		if tc == nil {
			done()
			return
		}
		nc = tc
	} else if tc, ok := nc.(*tls.Conn); ok {
		c.setTLS(tc)
	}
	srv.serveHTTP(nc, c, done)
}

// serveHTTP serves the protocol that the client speaks.
func (srv *Server) serveHTTP(nc net.Conn, c *conn, done func()) {
	wc := wire.New(nc, srv.sweep)
	var cc clientConn
	if srv.speaksHTTP2(wc, c) {
		c.h2 = downstream.NewH2(wc, srv.sweep, &srv.cfg)
		c.h2.User = c
		cc = c.h2
	} else {
		c.h1 = downstream.NewH1(wc, srv.sweep, &srv.cfg)
		c.h1.User, c.h1.Sniffed = c, srv.H2C && c.tls == nil
		cc = c.h1
	}
	srv.mu.Lock()
	if srv.closing {
		srv.mu.Unlock()
		nc.Close()
		wc.Close()
		done()
		return
	}
	srv.conns[cc] = done
	srv.mu.Unlock()
	cc.Serve()
}

// clientConn is a connection of either protocol.
type clientConn interface {
	Serve()
	Drain()
	Kill()
	State() downstream.State
}

// speaksHTTP2 reports whether the client speaks HTTP/2: because TLS says so, or
// because it begins that way where the listener takes that.
//
// RFC 9113, section 3.2 and 3.3.
func (srv *Server) speaksHTTP2(wc *wire.Conn, c *conn) bool {
	if c.tls != nil {
		return c.tls.Protocol == "h2"
	}
	if !srv.H2C || !srv.beginHandshake(wc.NetConn()) {
		return false
	}
	defer srv.endHandshake(wc.NetConn())
	return downstream.BeginsHTTP2(wc, srv.cfg.HeadTimeout)
}

// handler is the Server as its connections see it.
type handler Server

// ServeExchange implements downstream.Handler.
func (h *handler) ServeExchange(d *downstream.H1) {
	(*Server)(h).serveSession(d.User.(*conn).begin(d))
}

// ServeStream implements downstream.Handler.
func (h *handler) ServeStream(d *downstream.H2) {
	srv := (*Server)(h)
	c := d.Conn().User.(*conn)
	s, _ := d.User.(*Session)
	if s == nil || s.keepOut {
		s = &Session{server: srv, conn: c}
		d.User = s
	}
	s.reset(d)
	if status, r, err := d.Refusal(); err != nil {
		srv.refuse(s, &Error{Reason: r, Err: err, status: status})
		return
	}
	srv.serveSession(s)
}

// serveSession finds the Proxy of a session, which serves it.
func (srv *Server) serveSession(s *Session) {
	if s.misdirected() {
		srv.refuse(s, &Error{Reason: reason.Misdirected})
		return
	}
	if p := s.req.PathProblem(); p != message.PathOK && !slices.Contains(srv.AllowPaths, p) {
		srv.refuse(s, &Error{Reason: reason.BadPath, Err: errors.New(p.String())})
		return
	}
	proxy := srv.Proxy
	if srv.Route != nil {
		if err := s.guard(func(s *Session) error {
			if p := srv.Route(s); p != nil {
				proxy = p
			}
			return nil
		}); err != nil {
			s.use(srv.Proxy)
			srv.refuse(s, err)
			return
		}
	}
	s.use(proxy)
	s.serve()
}

// refuse answers a request that no Proxy gets to serve.
func (srv *Server) refuse(s *Session, err error) {
	if s.proxy == nil {
		s.use(srv.Proxy)
	}
	defer s.finish()
	s.fail(err)
}

// RefuseHead implements downstream.Handler.
func (h *handler) RefuseHead(d *downstream.H1, err *h1.Error) {
	s := d.User.(*conn).begin(d)
	(*Server)(h).refuse(s, &Error{Reason: err.Reason, Err: err, status: err.Status})
}

// Parked implements downstream.Handler.
func (h *handler) Parked(d *downstream.H1) {
	d.User.(*conn).session = nil
	h.trimmer.Note()
}

// ParkedH2 implements downstream.Handler.
func (h *handler) ParkedH2(*downstream.H2Conn) { h.trimmer.Note() }

// Ended implements downstream.Handler.
func (h *handler) Ended(d *downstream.H1, r reason.Reason) { (*Server)(h).ended(d, r) }

// EndedH2 implements downstream.Handler.
func (h *handler) EndedH2(c *downstream.H2Conn, r reason.Reason) { (*Server)(h).ended(c, r) }

func (srv *Server) ended(d clientConn, r reason.Reason) {
	srv.ends[r].Add(1)
	srv.mu.Lock()
	done := srv.conns[d]
	delete(srv.conns, d)
	srv.emptiedLocked()
	srv.mu.Unlock()
	if done != nil {
		done()
	}
}

// emptiedLocked tells who waits for it that there are no connections.
func (srv *Server) emptiedLocked() {
	if len(srv.conns)+len(srv.handshakes) == 0 && srv.emptyc != nil {
		close(srv.emptyc)
		srv.emptyc = nil
	}
}

// count adds a session that is over to the counters.
func (srv *Server) count(s *Session) {
	srv.requests.Add(1)
	if s.lastErr != nil {
		srv.failures[s.lastErr.Reason].Add(1)
	}
}

func (srv *Server) logger() *slog.Logger {
	if srv.Logger != nil {
		return srv.Logger
	}
	return slog.Default()
}

// logError is the line of a failed session.
func (srv *Server) logError(s *Session, e *Error) {
	level := slog.LevelWarn
	switch {
	case e.Reason == reason.HookPanic:
		level = slog.LevelError
	case e.Side() == Downstream:
		level = slog.LevelInfo
	}
	srv.logger().LogAttrs(context.Background(), level, "request failed",
		slog.String("side", e.Side().String()), slog.String("reason", e.Reason.String()),
		slog.String("peer", e.Peer), slog.Int("attempt", e.Attempt),
		slog.Bool("sent", e.Sent), slog.Bool("reused", e.Reused),
		slog.Int("status", s.resp.Status), slog.String("method", s.req.Method()),
		slog.String("host", s.req.Host()), slog.String("path", s.req.Path()),
		slog.String("route", s.Route()), slog.String("filter", e.Hook),
		slog.String("client", s.ClientIP()), slog.String("request_id", s.ID()),
		slog.Any("cause", e.Err))
}

// dateCache keeps the Date field's value of the present second.
type dateCache struct {
	p atomic.Pointer[dated]
}

type dated struct {
	unix int64
	text []byte
}

// date returns the Date field's value. RFC 9110, section 5.6.7: IMF-fixdate.
func (s *Session) date() []byte {
	now := s.began
	var c *dateCache
	if s.server != nil {
		c = &s.server.clock
		if d := c.p.Load(); d != nil && d.unix == now.Unix() {
			return d.text
		}
	}
	d := &dated{now.Unix(), now.UTC().AppendFormat(nil, "Mon, 02 Jan 2006 15:04:05 GMT")}
	if c != nil {
		c.p.Store(d)
	}
	return d.text
}
