package config

import "time"

// This file is the table of keys: each key's name, kind, place in the tree,
// default and meaning.

// fileKind is the whole file.
var fileKind = object(
	at("listeners", named(listenerKind, func(l *Listener) *string { return &l.Name }),
		func(c *Config) *[]*Listener { return &c.Listeners }, "",
		"Where clients connect, by names of your choice.").must(),
	at("upstreams", named(upstreamKind, func(u *Upstream) *string { return &u.Name }),
		func(c *Config) *[]*Upstream { return &c.Upstreams }, "",
		"Groups of peers that serve the same thing, by names of your choice.").must(),
	// Before routes, which begin with them.
	at("defaults", hidden(object(settingKeys...)), func(c *Config) *Settings { return &c.Defaults }, "",
		"What holds for all routes: all keys of a route but name, match and upstream. A key that a route gives takes the place of the same key here.").
		unset("nothing"),
	at("routes", list(routeKind, func(r *reader, dst *Route) { dst.Settings = r.cfg.Defaults }),
		func(c *Config) *[]*Route { return &c.Routes }, "",
		"Which requests go where. The most specific match wins, whatever the order: exact host, longest wildcard, any host; exact path, longest prefix, regular expressions in file order; method. What nothing matches gets 404.").must(),
	at("pool", poolKind, func(c *Config) *Pool { return &c.Pool }, "",
		"Bounds for the connections to all upstreams together."),
	at("admin", optional(adminKind), func(c *Config) **Admin { return &c.Admin }, "",
		"A listener for operators, with /metrics, /healthz and /readyz.").unset("none"),
	at("log", logKind, func(c *Config) *Log { return &c.Log }, "", "What is logged."),
)

var listenerKind = object(
	at("address", text("an address such as 127.0.0.1:8080, :8080 or unix:/path", checkListenAddress),
		func(l *Listener) *string { return &l.Address }, "",
		"host:port, :port for all addresses of the machine, or unix:/path. Port 0 takes a free one. A socket file has mode 0660; one that is left over is removed.").must(),
	at("tls", optional(tlsKind), func(l *Listener) **TLS { return &l.TLS }, "",
		"Serve HTTPS.").unset("plain HTTP"),
	at("h2c", boolean, func(l *Listener) *bool { return &l.H2C }, "false",
		"Also take HTTP/2 without TLS, on the same port as HTTP/1.1, from clients that know beforehand that it is spoken. With tls the handshake settles it; see tls.protocols."),
	at("http2", listenerHTTP2Kind, func(l *Listener) *HTTP2 { return &l.HTTP2 }, "",
		"How much the connections of HTTP/2 clients may use, besides timeouts and limits."),
	at("timeouts", object(
		at("head", duration(orOff), func(t *ListenerTimeouts) *time.Duration { return &t.Head }, "10s",
			"A request head, from its first byte to its last."),
		at("idle", duration(orOff), func(t *ListenerTimeouts) *time.Duration { return &t.Idle }, "75s",
			"The wait for the next request on a connection."),
		at("body", duration(orOff), func(t *ListenerTimeouts) *time.Duration { return &t.Body }, "60s",
			"A wait inside a request body."),
		at("write", duration(orOff), func(t *ListenerTimeouts) *time.Duration { return &t.Write }, "60s",
			"A wait for a client that does not read its response."),
		at("drain", duration(orOff), func(t *ListenerTimeouts) *time.Duration { return &t.Drain }, "2s",
			"How long the body that limits.drain speaks of is read."),
		at("park_after", duration(orOff), func(t *ListenerTimeouts) *time.Duration { return &t.ParkAfter }, "5s",
			"How long an idle connection keeps memory of its own before it is only watched. off: always."),
		at("tunnel_drain", duration(orOff), func(t *ListenerTimeouts) *time.Duration { return &t.TunnelDrain }, "10s",
			"How long tunnels (WebSocket, CONNECT) go on after the server was told to stop. off: as long as it waits for requests."),
	), func(l *Listener) *ListenerTimeouts { return &l.Timeouts }, "", "How long clients may take."),
	at("limits", object(
		at("head", size(noOff), func(l *ListenerLimits) *int64 { return &l.Head }, "64KiB",
			"A request head; a larger one gets 431."),
		at("fields", count(1, 10000, noOff), func(l *ListenerLimits) *int { return &l.Fields }, "100",
			"The fields of a request head; more get 431."),
		at("target", size(noOff), func(l *ListenerLimits) *int64 { return &l.Target }, "16KiB",
			"A request target; a longer one gets 414."),
		at("requests_per_connection", count(1, maxCount, orOff), func(l *ListenerLimits) *int { return &l.Requests }, "off",
			"The requests of a connection, which is closed after the last."),
		at("connections", count(1, maxCount, orOff), func(l *ListenerLimits) *int { return &l.Connections }, "off",
			"The open connections; more wait unaccepted."),
		at("min_body_rate", size(orOff), func(l *ListenerLimits) *int64 { return &l.MinBodyRate }, "240B",
			"What a client must send each second of a body that is waited for, after 10 s."),
		at("drain", size(orOff), func(l *ListenerLimits) *int64 { return &l.Drain }, "256KiB",
			"What is read, for timeouts.drain at most, of a body that nobody wanted, so that the connection can be kept. off: it is closed at once."),
	), func(l *Listener) *ListenerLimits { return &l.Limits }, "", "How much clients may use."),
	at("socket", optional(notEmpty(socketKind, "")), func(l *Listener) **Socket { return &l.Socket }, "",
		"Options of the socket, which the connections accepted on it inherit. TCP_NODELAY is always on.").unset("the system's defaults"),
	at("allow_half_close", boolean, func(l *Listener) *bool { return &l.AllowHalfClose }, "false",
		"Serve a client that has closed its sending side. Otherwise that means that it left."),
	at("drain_early_uploads", boolean, func(l *Listener) *bool { return &l.DrainEarlyUploads }, "false",
		"Read the rest of an upload whose response is complete, in place of closing the connection."),
	at("accept_both_lengths", boolean, func(l *Listener) *bool { return &l.AcceptBothLengths }, "false",
		"Serve a request that has a Content-Length beside Transfer-Encoding: chunked: the length is dropped, and the connection closed after the response. Otherwise it gets 400, since it is what smuggling is made of."),
	at("allow_paths", list(oneOf("above_root", "nul", "bad_escape", "hidden_separator"), nil),
		func(l *Listener) *[]*string { return &l.AllowPaths }, "",
		"What paths may hold although an origin may read them as another path than routes do: .. above the root, an encoded NUL, a % without two digits, an encoded slash or a backslash. A path with what is not listed gets 400.").
		unset("none"),
)

var socketKind = object(
	at("mode", oneOf("0600", "0660", "0666", "0700", "0770", "0777"), func(s *Socket) *string { return &s.Mode }, "0660",
		"The mode of a Unix socket's file."),
	at("ipv6_only", boolean, func(s *Socket) *bool { return &s.IPv6Only }, "false",
		"Let a socket on [::] take IPv6 alone."),
	at("reuse_port", boolean, func(s *Socket) *bool { return &s.ReusePort }, "false",
		"Share the address with sockets of other processes; the kernel spreads connections over them. Linux only."),
	at("fast_open", count(1, maxCount, orOff), func(s *Socket) *int { return &s.FastOpen }, "off",
		"TCP Fast Open: how many connections with data in their SYN may wait. Linux only."),
	at("dscp", count(0, 63, noOff), func(s *Socket) *int { return &s.DSCP }, "0",
		"The class of the packets that are sent."),
	at("receive_buffer", size(orOff), func(s *Socket) *int64 { return &s.ReceiveBuffer }, "off",
		"The kernel's receive buffer of a connection. off: it finds the size itself."),
	at("send_buffer", size(orOff), func(s *Socket) *int64 { return &s.SendBuffer }, "off",
		"The kernel's send buffer of a connection. off: it finds the size itself."),
	at("keep_alive", duration(orOff), func(s *Socket) *time.Duration { return &s.KeepAlive }, "off",
		"The silence after which a connection is probed. off: never; the timeouts find what probes would."),
	at("keep_alive_interval", duration(noOff), func(s *Socket) *time.Duration { return &s.KeepAliveInterval }, "15s",
		"The time between probes."),
	at("keep_alive_count", count(1, 100, noOff), func(s *Socket) *int { return &s.KeepAliveCount }, "9",
		"The unanswered probes that end a connection."),
	at("user_timeout", duration(orOff), func(s *Socket) *time.Duration { return &s.UserTimeout }, "off",
		"How long what was sent may stay unacknowledged, where connections are probed. off: as the kernel has it."),
)

// maxCount bounds numbers of things to what an int has on all systems.
const maxCount = 1<<31 - 1

var routeKind = object(append([]key[Route]{
	at("name", text("a name", checkRouteName), func(r *Route) *string { return &r.Name }, "",
		"What the route is called in logs and metrics.").unset("made from its match"),
	at("match", optional(notEmpty(matchKind, "; leave match out for everything else")), func(r *Route) **Match { return &r.Match }, "",
		"Which requests the route gets. All keys that are given must match; of a list, one value.").unset("everything else"),
	at("upstream", text("the name of an upstream", nil), func(r *Route) *string { return &r.Upstream }, "",
		"Which upstream serves them.").must(),
}, lift(func(r *Route) *Settings { return &r.Settings }, settingKeys)...)...)

var matchKind = object(
	at("listener", oneOrMore(text("the name of a listener", nil)), func(m *Match) *[]*string { return &m.Listener }, "",
		"The listeners that the route is limited to. It does not make a match more specific.").unset("all"),
	at("host", oneOrMore(text("a host", nil)), func(m *Match) *[]*string { return &m.Host }, "",
		"The host without port: api.example.com, or *.example.com for all names below example.com.").unset("all"),
	at("path", oneOrMore(text("a path", nil)), func(m *Match) *[]*string { return &m.Path }, "",
		"The whole path, without query. All three kinds of paths are compared with the path's normal form; only one of them can be given.").unset("all"),
	at("path_prefix", oneOrMore(text("a path", nil)), func(m *Match) *[]*string { return &m.PathPrefix }, "",
		"The first segments of the path: /api matches /api and /api/x, not /apis.").unset("all"),
	at("path_regex", oneOrMore(text("a regular expression", nil)), func(m *Match) *[]*string { return &m.PathRegex }, "",
		"A regular expression in Go's syntax for the whole path.").unset("all"),
	at("method", oneOrMore(text("a method", nil)), func(m *Match) *[]*string { return &m.Method }, "",
		"The method, such as GET. HEAD is another.").unset("all"),
)

// settingKeys are those that routes and defaults have in common.
var settingKeys = []key[Settings]{
	at("timeouts", object(append(
		lift(func(t *RouteTimeouts) *Timeouts { return &t.Timeouts }, timeoutKeys(false)),
		at("total", duration(orOff), func(t *RouteTimeouts) *time.Duration { return &t.Total }, "off",
			"From the request's head to the response's end."))...),
		func(s *Settings) *RouteTimeouts { return &s.Timeouts }, "", "How long origins may take."),
	at("retry", retryKind, func(s *Settings) *Retry { return &s.Retry }, "",
		"What is tried again. What was not sent, and what an idempotent request can repeat, is."),
	at("max_request_body", size(orOff), func(s *Settings) *int64 { return &s.MaxRequestBody }, "off",
		"A request body; a larger one gets 413."),
	at("forwarding", forwardingKind, func(s *Settings) *Forwarding { return &s.Forwarding }, "",
		"What origins are told of clients."),
	at("request_headers", editsKind(true), func(s *Settings) *HeaderEdits { return &s.RequestHeaders }, "",
		"Changes to the fields that the origin gets, after all others."),
	at("response_headers", editsKind(false), func(s *Settings) *HeaderEdits { return &s.ResponseHeaders }, "",
		"Changes to the fields that the client gets, also with a response that the proxy made."),
	at("allow_connect", boolean, func(s *Settings) *bool { return &s.AllowConnect }, "false",
		"Let CONNECT open a tunnel to the peer. Otherwise it gets 405."),
	at("grpc_web", boolean, func(s *Settings) *bool { return &s.GRPCWeb }, "false",
		"Serve clients of gRPC-Web by gRPC: its peers must speak HTTP/2 (protocol http2 or h2c, or auto with tls)."),
	at("connect_protocols", list(text("a protocol's name", checkToken), nil), func(s *Settings) *[]*string { return &s.ConnectProtocols }, "",
		"What clients of HTTP/2 may ask for by extended CONNECT besides websocket. Others get 501.").unset("none"),
	at("drop_interim", boolean, func(s *Settings) *bool { return &s.DropInterim }, "false",
		"Keep 1xx responses, other than 100 and 101, from clients."),
}

// timeoutKeys are those that routes and upstreams have in common. A route's are
// the upstream's where they are not set.
func timeoutKeys(defaults bool) []key[Timeouts] {
	k := func(name, def string, get func(*Timeouts) *time.Duration, doc string) key[Timeouts] {
		if !defaults {
			return at(name, duration(orOff), get, "", doc).unset("the upstream's")
		}
		return at(name, duration(orOff), get, def, doc)
	}
	return []key[Timeouts]{
		k("connect", "5s", func(t *Timeouts) *time.Duration { return &t.Connect }, "Making a connection."),
		k("tls_handshake", "10s", func(t *Timeouts) *time.Duration { return &t.TLSHandshake }, "The TLS handshake after it."),
		k("connect_total", "off", func(t *Timeouts) *time.Duration { return &t.ConnectTotal }, "Both together."),
		k("first_byte", "60s", func(t *Timeouts) *time.Duration { return &t.FirstByte },
			"From the request's end to the response's head."),
		k("read", "60s", func(t *Timeouts) *time.Duration { return &t.Read }, "Between two reads of a response."),
		k("write", "60s", func(t *Timeouts) *time.Duration { return &t.Write }, "A write of the request that makes no progress."),
		k("tunnel", "1h", func(t *Timeouts) *time.Duration { return &t.Tunnel }, "A tunnel in which nothing moves."),
	}
}

var retryKind = object(
	at("attempts", count(1, 100, noOff), func(r *Retry) *int { return &r.Attempts }, "3",
		"How many attempts a request has in all. 1 means that nothing is tried again."),
	at("per_try", duration(orOff), func(r *Retry) *time.Duration { return &r.PerTry }, "off",
		"The wait of one attempt for its response head, after which there may be another."),
	at("non_idempotent", boolean, func(r *Retry) *bool { return &r.NonIdempotent }, "false",
		"Also repeat POST and PATCH after they were sent. The origin may then see them twice."),
	at("replay_buffer", size(orOff), func(r *Retry) *int64 { return &r.ReplayBuffer }, "64KiB",
		"How much of a request body is held for another attempt. off: nothing is."),
	at("budget_percent", count(1, 100, orOff), func(r *Retry) *int { return &r.BudgetPercent }, "20",
		"How many percent of the last seconds' requests may be repeated, above a floor of 10 a second."),
)

var forwardingKind = object(
	at("x_forwarded", boolean, func(f *Forwarding) *bool { return &f.XForwarded }, "true",
		"Set X-Forwarded-For, -Proto and -Host."),
	at("forwarded", boolean, func(f *Forwarding) *bool { return &f.Forwarded }, "false",
		"Set Forwarded."),
	at("trusted_proxies", list(text("an address or prefix such as 10.0.0.0/8", checkPrefix), nil),
		func(f *Forwarding) *[]*string { return &f.TrustedProxies }, "",
		"Clients that are proxies of yours: what they say of their client is kept and added to, not replaced.").unset("none"),
	at("client_cert", oneOf("off", "leaf", "chain"), func(f *Forwarding) *string { return &f.ClientCert }, "off",
		"Send the certificate of a client that identified itself by one: leaf in Client-Cert, chain also what came with it, in Client-Cert-Chain. What clients send in these fields never reaches an origin."),
	at("via", text("a name or off", checkToken), func(f *Forwarding) *string { return &f.Via }, "",
		"The name of this proxy in Via, by which it also detects loops. off: Via is neither added nor looked at.").
		unset("one of the process's own"),
	at("request_id", text("a field name or off", checkToken), func(f *Forwarding) *string { return &f.RequestID }, "X-Request-Id",
		"The field with the request's id. off: none is sent."),
)

func editsKind(request bool) kind[HeaderEdits] {
	return object(
		at("remove", list(text("a field name", checkEdit(request, false)), nil), func(e *HeaderEdits) *[]*string { return &e.Remove }, "",
			"Fields to remove, first.").unset("none"),
		at("set", fields(checkEdit(request, true)), func(e *HeaderEdits) *[]*Field { return &e.Set }, "",
			"Fields to set in place of those with the same name.").unset("none"),
		at("add", fields(checkEdit(request, false)), func(e *HeaderEdits) *[]*Field { return &e.Add }, "",
			"Fields to add to those with the same name.").unset("none"),
	)
}

var upstreamKind = object(
	at("peers", list(short(peerKind, peerAddress, func(p *Peer) *string { return &p.Address }), nil),
		func(u *Upstream) *[]*Peer { return &u.Peers }, "",
		"The endpoints: host:port or unix:/path, or a mapping with address and weight. Each gets its turn as often as its weight says.").must(),
	at("tls", optional(upstreamTLSKind), func(u *Upstream) **UpstreamTLS { return &u.TLS }, "",
		"Speak TLS to the peers. {} verifies them by the system's CAs and the host in their addresses.").unset("plain"),
	at("protocol", oneOf("auto", "http1", "http2", "h2c"), func(u *Upstream) *string { return &u.Protocol }, "auto",
		"What is spoken: auto lets the handshake decide with TLS, and is HTTP/1 without; http2 is HTTP/2 with TLS, h2c without."),
	at("http2", upstreamHTTP2Kind, func(u *Upstream) *HTTP2 { return &u.HTTP2 }, "",
		"How much a connection of HTTP/2 to a peer may use. A request that finds max_streams of them on one goes to another."),
	at("timeouts", object(append(
		lift(func(t *UpstreamTimeouts) *Timeouts { return &t.Timeouts }, timeoutKeys(true)),
		at("idle", duration(noOff), func(t *UpstreamTimeouts) *time.Duration { return &t.Idle }, "60s",
			"How long an unused connection is kept."))...),
		func(u *Upstream) *UpstreamTimeouts { return &u.Timeouts }, "", "How long peers may take."),
	at("keep_alive", boolean, func(u *Upstream) *bool { return &u.KeepAlive }, "true",
		"Use a connection for more than one request."),
	at("preconnect", count(1, 1000, orOff), func(u *Upstream) *int { return &u.Preconnect }, "off",
		"How many unused connections to each peer are kept ready, from the start on: a request then need not wait for one to be made."),
	at("max_connections", count(1, maxCount, orOff), func(u *Upstream) *int { return &u.MaxConnections }, "off",
		"The connections to each peer, busy and idle ones together."),
	at("max_queue", count(0, maxCount, noOff), func(u *Upstream) *int { return &u.MaxQueue }, "1024",
		"How many requests may wait for one of max_connections."),
	at("queue_timeout", duration(orOff), func(u *Upstream) *time.Duration { return &u.QueueTimeout }, "",
		"How long they may wait.").unset("timeouts.connect"),
	at("max_requests_per_connection", count(1, maxCount, orOff), func(u *Upstream) *int { return &u.MaxRequests }, "off",
		"The requests of one connection."),
	at("max_connection_age", duration(orOff), func(u *Upstream) *time.Duration { return &u.MaxAge }, "off",
		"How long a connection is used."),
	at("max_response_head", size(noOff), func(u *Upstream) *int64 { return &u.MaxResponseHead }, "64KiB",
		"A response head; a larger one gives the client 502."),
	at("accept_bad_length", boolean, func(u *Upstream) *bool { return &u.AcceptBadLength }, "false",
		"Read a response whose Content-Length is invalid or repeated as ended by the connection's end, in place of a 502."),
)

var peerAddress = text("an address such as 127.0.0.1:9000 or unix:/path", checkPeerAddress)

var peerKind = object(
	at("address", peerAddress, func(p *Peer) *string { return &p.Address }, "", "host:port or unix:/path.").must(),
	at("weight", count(0, 65536, noOff), func(p *Peer) *int { return &p.Weight }, "1",
		"The peer's share of the requests, relative to the others'. 0: none."),
)

var poolKind = object(
	at("max_idle", count(1, maxCount, orOff), func(p *Pool) *int { return &p.MaxIdle }, "4096",
		"The unused connections; the one that is unused for the longest time goes first."),
	at("max_connections", count(1, maxCount, orOff), func(p *Pool) *int { return &p.MaxConnections }, "off",
		"All connections, busy and unused."),
	at("ssl_key_log", boolean, func(p *Pool) *bool { return &p.SSLKeyLog }, "false",
		"Append the secrets of TLS connections to peers to the file that the environment variable SSLKEYLOGFILE names. Whoever reads it can read them: for debugging."),
)

var adminKind = object(
	at("address", text("an address such as 127.0.0.1:2020 or unix:/path", checkListenAddress), func(a *Admin) *string { return &a.Address }, "",
		"As of a listener. Whoever reaches it sees the server's numbers.").must(),
)

var logKind = object(
	at("level", oneOf("debug", "info", "warn", "error"), func(l *Log) *string { return &l.Level }, "info",
		"The least level of the lines that go to the standard error."),
	at("format", oneOf("text", "json"), func(l *Log) *string { return &l.Format }, "text", "Their format."),
	at("access", optional(accessKind), func(l *Log) **AccessLog { return &l.Access }, "",
		"A line for each request.").unset("none"),
)

var accessKind = object(
	at("output", text("stdout, stderr or a path", nil), func(a *AccessLog) *string { return &a.Output }, "stdout",
		"stdout, stderr, or the path of a file to append to."),
	at("format", text("json, common, combined, or a text with variables", checkAccessFormat), func(a *AccessLog) *string { return &a.Format }, "json",
		"json, common, combined, or a text with variables such as $client and $status."),
	at("fields", list(text("a variable", checkAccessField), nil), func(a *AccessLog) *[]*string { return &a.Fields }, "",
		"The variables in a line of the format json, in order.").unset("the most useful ones"),
)
