package config

import "time"

// Config is a checked configuration with every value in effect. It is immutable
// after Parse. In all parts a limit that is turned off is [Off].
type Config struct {
	Listeners []*Listener
	Defaults  Settings // of Routes, which hold them already
	Routes    []*Route
	Upstreams []*Upstream
	Pool      Pool
	Admin     *Admin // nil: none
	Log       Log

	dir string // where relative paths begin
}

// Listener is where clients connect.
type Listener struct {
	Name              string
	Address           string
	TLS               *TLS // nil: plain
	H2C               bool
	HTTP2             HTTP2
	Timeouts          ListenerTimeouts
	Limits            ListenerLimits
	Socket            *Socket // nil: the system's defaults
	AllowHalfClose    bool
	DrainEarlyUploads bool
	AcceptBothLengths bool
	AllowPaths        []*string
}

// ListenerTimeouts bound the waits for clients.
type ListenerTimeouts struct {
	Head, Idle, Body, Write, Drain, ParkAfter, TunnelDrain time.Duration
}

// ListenerLimits bound what clients may use.
type ListenerLimits struct {
	Head        int64
	Fields      int
	Target      int64
	Requests    int
	Connections int
	MinBodyRate int64
	Drain       int64
}

// Socket holds options of a listening socket.
type Socket struct {
	Mode                                      string // octal
	IPv6Only, ReusePort                       bool
	FastOpen, DSCP, KeepAliveCount            int
	ReceiveBuffer, SendBuffer                 int64
	KeepAlive, KeepAliveInterval, UserTimeout time.Duration
}

// Route is a kind of requests and what happens to them.
type Route struct {
	Name     string
	Match    *Match // nil: everything else
	Upstream string
	Settings Settings
	Line     int // of the file, where the route begins
}

// Match says which requests a route gets; an empty field matches all.
type Match struct {
	Listener, Host, Path, PathPrefix, PathRegex, Method []*string
}

// Settings are what routes and their defaults have in common.
type Settings struct {
	Timeouts         RouteTimeouts
	Retry            Retry
	MaxRequestBody   int64
	Forwarding       Forwarding
	RequestHeaders   HeaderEdits
	ResponseHeaders  HeaderEdits
	AllowConnect     bool
	ConnectProtocols []*string
	GRPCWeb          bool
	DropInterim      bool
}

// Timeouts bound the waits for origins.
type Timeouts struct {
	Connect, TLSHandshake, ConnectTotal, FirstByte, Read, Write, Tunnel time.Duration
}

// RouteTimeouts are Timeouts, of which a zero one leaves the upstream's value,
// and the one that only a route has.
type RouteTimeouts struct {
	Timeouts
	Total time.Duration
}

// UpstreamTimeouts are Timeouts and the one that only an upstream has.
type UpstreamTimeouts struct {
	Timeouts
	Idle time.Duration
}

// Retry says which failed attempts are followed by another.
type Retry struct {
	Attempts      int
	PerTry        time.Duration
	NonIdempotent bool
	ReplayBuffer  int64
	BudgetPercent int
}

// Forwarding says what origins are told of clients.
type Forwarding struct {
	XForwarded     bool
	Forwarded      bool
	TrustedProxies []*string
	ClientCert     string // off, leaf or chain
	Via            string // "" for a name of the process's own, "off" for none
	RequestID      string // the field's name, "off" for none
}

// HeaderEdits change the fields of a message: first those in Remove go, then
// those in Set take the place of what there is, then those in Add come on top.
type HeaderEdits struct {
	Remove []*string
	Set    []*Field
	Add    []*Field
}

// Field is a header field.
type Field struct{ Name, Value string }

// Upstream is a group of peers that serve the same thing.
type Upstream struct {
	Name            string
	Peers           []*Peer
	TLS             *UpstreamTLS // nil: plain
	Protocol        string
	HTTP2           HTTP2
	Timeouts        UpstreamTimeouts
	KeepAlive       bool
	Preconnect      int
	MaxConnections  int
	MaxQueue        int
	QueueTimeout    time.Duration // zero: the connect timeout
	MaxRequests     int
	MaxAge          time.Duration
	MaxResponseHead int64
	AcceptBadLength bool
}

// Peer is an endpoint of an upstream.
type Peer struct {
	Address string
	Weight  int
}

// Pool bounds the connections to all upstreams together.
type Pool struct {
	MaxIdle        int
	SSLKeyLog      bool
	MaxConnections int
}

// Admin is where operators look at the running server.
type Admin struct{ Address string }

// Log says what is logged.
type Log struct {
	Level  string
	Format string
	Access *AccessLog // nil: none
}

// AccessLog is the line per request.
type AccessLog struct {
	Output string
	Format string
	Fields []*string // of the json format; empty: accesslog's default
}
