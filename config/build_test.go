package config

import (
	"github.com/cirqueproxy/cirque/listen"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/message"
)

func build(t *testing.T, in string) *Built {
	t.Helper()
	c, err := Parse("c", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Build(Options{Filters: []cirque.Filter{{Name: "first"}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	opts := cmp.Options{
		cmpopts.IgnoreUnexported(cirque.Server{}, cirque.Proxy{}, cirque.Peer{}, cirque.Transport{}),
		cmpopts.IgnoreFields(cirque.Peer{}, "TLS"),
		cmpopts.IgnoreFields(cirque.Server{}, "Route", "Proxy", "Logger"),
		cmpopts.IgnoreFields(cirque.Proxy{}, "Peer", "Transport", "Filters"),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

// TestBuildEverything compares what the file that has every key, none with its
// default, becomes.
func TestBuildEverything(t *testing.T) {
	data, err := os.ReadFile("testdata/everything.txt")
	if err != nil {
		t.Fatal(err)
	}
	in, _, _ := strings.Cut(string(data), "----\n")
	b := build(t, in)
	diff(t, "listener", &cirque.Server{
		Addr: "127.0.0.1:0", ReadHeaderTimeout: time.Second, IdleTimeout: 150 * time.Second, BodyTimeout: 500 * time.Millisecond,
		WriteTimeout: time.Hour, ParkAfter: -1, MinBodyRate: -1, MaxHeaderBytes: 8 << 10, MaxFields: 10, MaxTargetBytes: 1000,
		MaxRequests: 5, MaxConns: 1000, DrainBytes: -1, DrainTimeout: 3 * time.Second, TunnelDrain: time.Minute, AllowHalfClose: true, DrainEarlyUploads: true, AcceptBothLengths: true,
		AllowPaths: []message.PathProblem{message.PathHiddenSeparator, message.PathBadEscape},
		HTTP2:      cirque.HTTP2{MaxStreams: 50, StreamWindow: 1 << 20, ConnWindow: 2 << 20, MaxWindow: 16 << 20, MaxCookies: 20, PingEvery: -1, PingTimeout: time.Second},
	}, b.Servers[0].Server)
	if got := b.Servers[0].TLS.Protocols; !slices.Equal(got, []string{"http/1.1", "http/1.0", "h2"}) || !b.Servers[2].H2C {
		t.Errorf("protocols %q, h2c %v", got, b.Servers[2].H2C)
	}
	diff(t, "route", &cirque.Proxy{
		Name: "The API", MaxRequestBody: 10e6, AllowConnect: true, ConnectProtocols: []string{"connect-udp", "other"}, DropInterim: true,
		Timeouts: cirque.Timeouts{
			Connect: time.Second, TLSHandshake: 2 * time.Second, ConnectTotal: -1, FirstByte: 2 * time.Second, Read: 3 * time.Second, Write: 4 * time.Second, Tunnel: -1, Total: 30 * time.Second,
		},
		Retry: cirque.Retry{Attempts: 2, NonIdempotent: true, ReplayBytes: -1, PerTry: time.Second, BudgetPercent: -1},
		Forwarding: cirque.Forwarding{
			NoXForwarded: true, Forwarded: true, ClientCert: true, ClientCertChain: true, Via: "edge", RequestID: "X-Trace",
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		},
	}, b.Proxies[0])
	var names []string
	for _, f := range b.Proxies[0].Filters {
		names = append(names, f.Name)
	}
	diff(t, "filters", []string{"first", "grpcweb", "request_headers", "response_headers"}, names)
	m := b.Groups["api"].Members()
	diff(t, "weights", []int{1, 3, 0}, []int{m[0].Weight, m[1].Weight, m[2].Weight})
	diff(t, "peer", &cirque.Peer{
		Addr: "[::1]:80", Protocol: cirque.ProtocolHTTP2,
		HTTP2:    cirque.HTTP2{MaxStreams: 51, StreamWindow: 2 << 20, ConnWindow: 3 << 20, MaxWindow: 17 << 20, PingEvery: 7 * time.Second, PingTimeout: -1},
		Timeouts: cirque.Timeouts{Connect: time.Second, TLSHandshake: 2 * time.Second, ConnectTotal: 3 * time.Second, FirstByte: -1, Read: -1, Write: -1, Tunnel: time.Minute, Idle: -time.Second},
		MaxConns: 10, MaxQueue: -1, QueueTimeout: -1, MaxRequests: 100, MaxAge: time.Hour, MaxHeadBytes: 1 << 20, AcceptBadLength: true,
	}, m[1].Peer)
	diff(t, "pool", &cirque.Transport{MaxIdleConns: -1, MaxConns: 10000}, b.Transport)
}

// TestBuildDefaults: each limit that is off by default must be one that the
// framework takes for off.
func TestBuildDefaults(t *testing.T) {
	b := build(t, minimal)
	diff(t, "listener", &cirque.Server{
		Addr: ":80", ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second, BodyTimeout: time.Minute, WriteTimeout: time.Minute,
		ParkAfter: 5 * time.Second, MinBodyRate: 240, MaxHeaderBytes: 64 << 10, MaxFields: 100, MaxTargetBytes: 16 << 10, DrainBytes: 256 << 10, DrainTimeout: 2 * time.Second, TunnelDrain: 10 * time.Second,
		HTTP2: cirque.HTTP2{
			MaxStreams: 100, StreamWindow: 256 << 10, ConnWindow: 512 << 10, MaxWindow: 8 << 20, MaxCookies: 512,
			PingEvery: 30 * time.Second, PingTimeout: 5 * time.Second,
		},
	}, b.Servers[0].Server)
	diff(t, "route", &cirque.Proxy{
		Name: "default", Timeouts: cirque.Timeouts{Total: -1},
		Retry:      cirque.Retry{Attempts: 3, ReplayBytes: 64 << 10, BudgetPercent: 20},
		Forwarding: cirque.Forwarding{RequestID: "X-Request-Id"},
	}, b.Proxies[0])
	diff(t, "peer", &cirque.Peer{
		Addr: "localhost:9000", HTTP2: cirque.HTTP2{
			MaxStreams: 100, StreamWindow: 256 << 10, ConnWindow: 512 << 10, MaxWindow: 8 << 20, PingEvery: 30 * time.Second, PingTimeout: 5 * time.Second,
		},
		MaxQueue: 1024, MaxHeadBytes: 64 << 10,
		Timeouts: cirque.Timeouts{Connect: 5 * time.Second, TLSHandshake: 10 * time.Second, ConnectTotal: -1, FirstByte: time.Minute, Read: time.Minute, Write: time.Minute, Tunnel: time.Hour, Idle: time.Minute},
	}, b.Groups["web"].Members()[0].Peer)
	diff(t, "pool", &cirque.Transport{MaxIdleConns: 4096}, b.Transport)
}

// TestBuildSeveral: parts of one configuration share what they should.
func TestBuildSeveral(t *testing.T) {
	b := build(t, `listeners: {a: {address: ":80"}, b: {address: ":81"}}
routes: [{upstream: web}, {upstream: web, match: {host: a.test, listener: b}, forwarding: {via: off, request_id: off}}]
upstreams: {web: {peers: ["localhost:9000"]}}
`)
	if b.Proxies[0].Transport != b.Transport || b.Proxies[1].Transport != b.Transport {
		t.Error("the routes do not share the transport")
	}
	if f := b.Proxies[1].Forwarding; f.Via != "-" || f.RequestID != "-" {
		t.Errorf("off is %q and %q to the framework", f.Via, f.RequestID)
	}
	for _, s := range b.Servers {
		if len(s.Proxy.Filters) != 1 || s.Proxy.Peer != nil || s.Route == nil {
			t.Errorf("server %s: what matches nothing must pass the program's filters and get 404", s.Name)
		}
	}
	if m, ok := b.Index.Match("b", "GET", "a.test", "/"); !ok || m.Rule != 1 {
		t.Errorf("on b: got %+v", m)
	}
	if m, ok := b.Index.Match("a", "GET", "a.test", "/"); !ok || m.Rule != 0 {
		t.Errorf("on a: got %+v", m)
	}
}

func TestBuildSocket(t *testing.T) {
	data, err := os.ReadFile("testdata/everything.txt")
	if err != nil {
		t.Fatal(err)
	}
	file, _, _ := strings.Cut(string(data), "\n----\n")
	c, err := Parse("everything.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Build(Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := listen.Options{
		Mode: 0o600, IPv6Only: true, ReusePort: true, FastOpen: 256, DSCP: 46,
		ReceiveBuffer: 64 << 10, SendBuffer: 128 << 10,
		KeepAlive: listen.KeepAlive{Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3, UserTimeout: 20 * time.Second},
	}
	if got := b.Servers[0].Socket; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := b.Servers[1].Socket; got != (listen.Options{}) {
		t.Errorf("without the key: %+v", got)
	}
}
