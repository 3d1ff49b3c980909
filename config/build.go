package config

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/balance"
	"github.com/cirqueproxy/cirque/grpcweb"
	"github.com/cirqueproxy/cirque/listen"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/route"
)

// Options are what a program gives to servers besides their configuration.
type Options struct {
	// Logger gets what the operator should know. If nil, slog.Default() does.
	Logger *slog.Logger
	// Filters come before those that the configuration makes, on every route
	// and on what matches no route. Access logs and metrics are such.
	Filters []cirque.Filter
}

// Built is a configuration as running parts. Nothing in it has been started or
// bound.
type Built struct {
	// Servers are in the order of the listeners.
	Servers []Server
	// Transport has the connections of all servers.
	Transport *cirque.Transport
	// Index finds the Proxy of a request; its rules are in the order of the
	// routes.
	Index *route.Index
	// Proxies are in the order of the routes.
	Proxies []*cirque.Proxy
	// Groups are the upstreams by name.
	Groups map[string]*balance.Group

	ready []ready
}

// ready is a peer that connections are kept ready to.
type ready struct {
	peer *cirque.Peer
	n    int
}

// KeepReady keeps the connections ready that the configuration wants, until ctx
// ends.
func (b *Built) KeepReady(ctx context.Context) {
	var wg sync.WaitGroup
	for _, r := range b.ready {
		wg.Go(func() { b.Transport.KeepReady(ctx, r.peer, r.n) })
	}
	wg.Wait()
}

// Server is a listener of the configuration as a server, which has to be given
// a net.Listener with the method Name() string that returns Name, since routes
// can be limited to listeners by it.
type Server struct {
	Name, Address string
	Socket        listen.Options
	TLS           *listen.TLS // nil: plain
	*cirque.Server
}

// Build makes the servers of a configuration that Parse returned.
func (c *Config) Build(o Options) (*Built, error) {
	b := &Built{
		Transport: &cirque.Transport{MaxIdleConns: c.Pool.MaxIdle, MaxConns: counted(c.Pool.MaxConnections)},
		Groups:    map[string]*balance.Group{},
	}
	for _, u := range c.Upstreams {
		g, err := u.group(c.dir)
		if err != nil {
			return nil, err
		}
		b.Groups[u.Name] = g
		for _, m := range g.Members() {
			if u.Preconnect > 0 && m.Weight > 0 {
				b.ready = append(b.ready, ready{m.Peer, u.Preconnect})
			}
		}
	}
	rules := make([]route.Rule, len(c.Routes))
	for i, r := range c.Routes {
		p := r.proxy(b.Groups[r.Upstream], b.Transport, o.Filters)
		if err := p.Validate(); err != nil {
			return nil, err
		}
		b.Proxies = append(b.Proxies, p)
		rules[i] = r.rule(p)
	}
	var err error
	if b.Index, err = route.New(rules...); err != nil {
		return nil, err
	}
	// What matches no route passes the program's filters too: its 404 is logged
	// and counted.
	unmatched := &cirque.Proxy{Filters: o.Filters, Transport: b.Transport}
	if err := unmatched.Validate(); err != nil {
		return nil, err
	}
	for _, l := range c.Listeners {
		srv := l.server()
		srv.Proxy, srv.Route, srv.Logger = unmatched, b.Index.Route, o.Logger
		t, err := l.TLS.listen(c.dir)
		if err != nil {
			return nil, fmt.Errorf("listeners.%s.tls: %w", l.Name, err)
		}
		b.Servers = append(b.Servers, Server{l.Name, l.Address, l.Socket.options(), t, srv})
	}
	return b, nil
}

// options returns the socket's options as they are bound.
func (s *Socket) options() listen.Options {
	if s == nil {
		return listen.Options{}
	}
	mode, _ := strconv.ParseUint(s.Mode, 8, 32) // one of a list
	return listen.Options{
		Mode: fs.FileMode(mode), IPv6Only: s.IPv6Only, ReusePort: s.ReusePort,
		FastOpen: max(s.FastOpen, 0), DSCP: s.DSCP,
		ReceiveBuffer: int(max(s.ReceiveBuffer, 0)), SendBuffer: int(max(s.SendBuffer, 0)),
		KeepAlive: listen.KeepAlive{
			Idle: max(s.KeepAlive, 0), Interval: s.KeepAliveInterval,
			Count: s.KeepAliveCount, UserTimeout: max(s.UserTimeout, 0),
		},
	}
}

// pathProblems are what allow_paths may list.
var pathProblems = map[string]message.PathProblem{
	"above_root": message.PathAboveRoot, "nul": message.PathNUL,
	"bad_escape": message.PathBadEscape, "hidden_separator": message.PathHiddenSeparator,
}

func (l *Listener) server() *cirque.Server {
	srv := &cirque.Server{
		Addr:              l.Address,
		ReadHeaderTimeout: l.Timeouts.Head,
		IdleTimeout:       l.Timeouts.Idle,
		BodyTimeout:       l.Timeouts.Body,
		WriteTimeout:      l.Timeouts.Write,
		ParkAfter:         l.Timeouts.ParkAfter,
		MinBodyRate:       int(l.Limits.MinBodyRate),
		MaxHeaderBytes:    int(l.Limits.Head),
		MaxFields:         l.Limits.Fields,
		MaxTargetBytes:    int(l.Limits.Target),
		MaxRequests:       counted(l.Limits.Requests),
		MaxConns:          counted(l.Limits.Connections),
		DrainBytes:        l.Limits.Drain,
		DrainTimeout:      l.Timeouts.Drain,
		TunnelDrain:       l.Timeouts.TunnelDrain,
		AllowHalfClose:    l.AllowHalfClose,
		DrainEarlyUploads: l.DrainEarlyUploads,
		AcceptBothLengths: l.AcceptBothLengths,
		H2C:               l.H2C,
		HTTP2:             l.HTTP2.framework(),
	}
	for _, p := range l.AllowPaths {
		srv.AllowPaths = append(srv.AllowPaths, pathProblems[*p])
	}
	return srv
}

func (r *Route) proxy(g *balance.Group, t *cirque.Transport, before []cirque.Filter) *cirque.Proxy {
	s := &r.Settings
	p := &cirque.Proxy{
		Name: r.Name, Peer: g.Peer, Transport: t,
		Filters:        append(append([]cirque.Filter(nil), before...), s.filters()...),
		Timeouts:       s.Timeouts.framework(),
		MaxRequestBody: max(s.MaxRequestBody, 0),
		AllowConnect:   s.AllowConnect,
		DropInterim:    s.DropInterim,
		Forwarding:     s.Forwarding.framework(),
		Retry: cirque.Retry{
			Attempts: s.Retry.Attempts, NonIdempotent: s.Retry.NonIdempotent,
			ReplayBytes: int(s.Retry.ReplayBuffer), PerTry: max(s.Retry.PerTry, 0),
			BudgetPercent: s.Retry.BudgetPercent,
		},
	}
	p.Timeouts.Total = s.Timeouts.Total
	for _, name := range s.ConnectProtocols {
		p.ConnectProtocols = append(p.ConnectProtocols, *name)
	}
	return p
}

func (t Timeouts) framework() cirque.Timeouts {
	return cirque.Timeouts{Connect: t.Connect, TLSHandshake: t.TLSHandshake, ConnectTotal: t.ConnectTotal, FirstByte: t.FirstByte, Read: t.Read, Write: t.Write, Tunnel: t.Tunnel}
}

func (f *Forwarding) framework() cirque.Forwarding {
	out := cirque.Forwarding{NoXForwarded: !f.XForwarded, Forwarded: f.Forwarded, Via: orDash(f.Via), RequestID: orDash(f.RequestID),
		ClientCert: f.ClientCert != "off", ClientCertChain: f.ClientCert == "chain"}
	for _, s := range f.TrustedProxies {
		if p, err := parsePrefix(*s); err == nil { // Parse refused the others
			out.TrustedProxies = append(out.TrustedProxies, p)
		}
	}
	return out
}

// orDash writes off as the framework does.
func orDash(s string) string {
	if s == "off" {
		return "-"
	}
	return s
}

func (u *Upstream) group(dir string) (*balance.Group, error) {
	t, err := u.TLS.peerTLS(dir)
	if err != nil {
		return nil, fmt.Errorf("upstreams.%s.tls: %w", u.Name, err)
	}
	members := make([]balance.Member, len(u.Peers))
	for i, p := range u.Peers {
		members[i] = balance.Member{Peer: u.peer(p, t), Weight: p.Weight}
	}
	return balance.Weighted(members...)
}

func (u *Upstream) peer(p *Peer, t *cirque.PeerTLS) *cirque.Peer {
	out := &cirque.Peer{
		Addr:            p.Address,
		TLS:             t,
		HTTP2:           u.HTTP2.framework(),
		Protocol:        protocols[u.Protocol],
		Timeouts:        u.Timeouts.framework(),
		MaxConns:        counted(u.MaxConnections),
		MaxQueue:        u.MaxQueue,
		QueueTimeout:    u.QueueTimeout,
		MaxRequests:     counted(u.MaxRequests),
		MaxAge:          max(u.MaxAge, 0),
		MaxHeadBytes:    int(u.MaxResponseHead),
		AcceptBadLength: u.AcceptBadLength,
	}
	out.Timeouts.Idle = u.Timeouts.Idle
	if !u.KeepAlive {
		out.Timeouts.Idle = -1 * time.Second
	}
	if u.MaxQueue == 0 {
		out.MaxQueue = -1
	}
	return out
}

// filters are those that a route's settings make.
func (s *Settings) filters() []cirque.Filter {
	var out []cirque.Filter
	if s.GRPCWeb {
		out = append(out, grpcweb.New())
	}
	if e := s.RequestHeaders; !e.empty() {
		out = append(out, cirque.Filter{Name: "request_headers", UpstreamRequest: func(s *cirque.Session) error {
			e.apply(&s.UpstreamRequest().Header)
			return nil
		}})
	}
	if e := s.ResponseHeaders; !e.empty() {
		out = append(out, cirque.Filter{Name: "response_headers", Response: func(s *cirque.Session) error {
			e.apply(&s.Response().Header)
			return nil
		}})
	}
	return out
}

func (e *HeaderEdits) empty() bool { return len(e.Remove)+len(e.Set)+len(e.Add) == 0 }

func (e *HeaderEdits) apply(h *message.Header) {
	for _, n := range e.Remove {
		h.Del(*n)
	}
	for i, f := range e.Set {
		// A list of values stands as fields of one name, one after the other.
		if i > 0 && e.Set[i-1].Name == f.Name {
			h.Add(f.Name, f.Value)
			continue
		}
		h.Set(f.Name, f.Value)
	}
	for _, f := range e.Add {
		h.Add(f.Name, f.Value)
	}
}
