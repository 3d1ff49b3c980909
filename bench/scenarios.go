//go:build linux

package main

import (
	"crypto/tls"
	"time"
)

// scenario is one question.
type scenario struct {
	name  string
	about string
	load  loadSpec

	// stretch makes the measured part this many times as long as the flag
	// says; 0 is 1.
	stretch int
	warm    time.Duration // 0: a second
	threads int           // of every proxy; 0: one for each CPU that it has
	twoCPUs bool          // the proxy has all CPUs, and shares one with the load
	logs    bool          // everyone writes an access log

	originIdle time.Duration // the origin closes idle connections after it

	idle    bool // RSS for each idle connection
	latency bool // open loop at half of nginx's saturation

	// See scenarios_tls.go. Clients speak HTTP/2 if load has streams.
	tls      bool
	h2Origin bool        // the origin speaks HTTP/2, without TLS
	group    tls.CurveID // the key exchange; 0: X25519
	shakes   shake
	transfer bool              // one large body at a time: what is measured is the throughput
	delay    time.Duration     // of a round trip between client and proxy
	unit     string            // what CPU is counted by; empty: request
	without  map[string]string // peers that are left out, and why
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

// scenarios in the order in which they run.
func scenarios() []scenario { return append(plainScenarios(), tlsScenarios()...) }

func plainScenarios() []scenario {
	get := func(conns, size int) loadSpec { return loadSpec{conns: conns, target: target{size: size}} }
	put := func(conns, size int) loadSpec {
		return loadSpec{conns: conns, target: target{size: kib, upload: size}}
	}
	return []scenario{
		{name: "keepalive-4", about: "keep-alive, 1 KiB, 4 connections", load: get(4, kib)},
		{name: "keepalive-64", about: "keep-alive, 1 KiB, 64 connections", load: get(64, kib)},
		{name: "keepalive-512", about: "keep-alive, 1 KiB, 512 connections", load: get(512, kib)},
		{name: "keepalive-64-log", about: "keep-alive, 1 KiB, 64 connections, access logs on everywhere", load: get(64, kib), logs: true},
		{name: "connect", about: "a connection for each request, 1 KiB, 16 at a time",
			load: loadSpec{conns: 16, perConn: true, target: target{size: kib}}},
		{name: "download-64k", about: "download of 64 KiB, 16 connections", load: get(16, 64*kib)},
		{name: "download-1m", about: "download of 1 MiB, 16 connections", load: get(16, mib)},
		{name: "upload-1k", about: "upload of 1 KiB, 64 connections", load: put(64, kib)},
		{name: "upload-1m", about: "upload of 1 MiB, 16 connections", load: put(16, mib)},
		{name: "slow", about: "an origin that takes 100 ms, 1,000 requests in flight",
			load: loadSpec{conns: 1000, target: target{size: kib, delayMS: 100}}},
		{name: "two-cpus", about: "keep-alive, 1 KiB, 64 connections, the proxy on two CPUs, one of which it shares with load and origin",
			load: get(64, kib), twoCPUs: true},
		// With one client connection for each request in flight every pool
		// would be drawn down to the same depth each time, and none would ever
		// connect again: who is in flight must vary, as it does with real
		// clients.
		{name: "reuse", about: "8 and 128 requests in flight, changing each second, from 512 client connections in turn; the origin takes 5 ms and closes after 5 s idle; 4 workers or threads",
			load:    loadSpec{conns: 512, inFlight: 128, swing: 8, target: target{size: kib, delayMS: 5}},
			stretch: 4, warm: 6 * time.Second, threads: 4, originIdle: 5 * time.Second},
		{name: "latency", about: "open loop at half of nginx's saturation, 64 connections, from when each request was due",
			load: get(64, kib), stretch: 6, latency: true},
		{name: "idle", about: "idle keep-alive connections, 30 s after the last of as many concurrent requests",
			load: loadSpec{once: true, target: target{size: kib, delayMS: 1000}}, idle: true},
	}
}
