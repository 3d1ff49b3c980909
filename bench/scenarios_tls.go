//go:build linux

package main

import (
	"crypto/tls"
	"time"
)

// shake says what a scenario asks of the handshakes that it measures.
type shake int

const (
	noShakes      shake = iota
	fullShakes          // none may be a resumed one
	resumedShakes       // all must be
)

const (
	// grpcSize is the payload of a small message, grpcStreamSize that of one in
	// a stream.
	grpcSize       = 128
	grpcStreamSize = kib
	transferSize   = 100 * mib
)

// tlsScenarios are those with TLS or HTTP/2 on a side. All that have TLS have
// TLS 1.3 with a P-256 certificate, AES-128-GCM and X25519 alone, but for one.
func tlsScenarios() []scenario {
	streams := func(t target) loadSpec { return loadSpec{conns: 16, streams: 32, target: t} }
	small := streams(target{size: kib})
	calls := func(size, messages int) loadSpec {
		l := streams(target{size: size})
		l.messages = messages
		return l
	}
	one := func(t target) loadSpec { return loadSpec{conns: 1, streams: 1, once: true, target: t} }
	up, down := one(target{size: kib, upload: transferSize}), one(target{size: transferSize})
	perConn := loadSpec{conns: 16, perConn: true, target: target{size: kib}}
	const delay = 20 * time.Millisecond
	all := []scenario{
		{name: "tls-keepalive-64", about: "TLS 1.3, HTTP/1 keep-alive, 1 KiB, 64 connections", tls: true,
			load: loadSpec{conns: 64, target: target{size: kib}}},
		{name: "tls-handshake", about: "full TLS 1.3 handshakes, P-256, X25519: a connection for each request, 16 at a time", tls: true,
			load: perConn, shakes: fullShakes, unit: "connection"},
		{name: "tls-handshake-resumed", about: "TLS 1.3 handshakes that resume a session by its ticket, with X25519: a connection for each request, 16 at a time",
			tls: true, load: perConn, shakes: resumedShakes, unit: "connection"},
		{name: "tls-handshake-hybrid", about: "full TLS 1.3 handshakes, P-256, with the post-quantum hybrid X25519MLKEM768", tls: true,
			load: perConn, shakes: fullShakes, group: tls.X25519MLKEM768, unit: "connection"},
		{name: "h2-tls", about: "HTTP/2 over TLS to HTTP/1, 1 KiB, 16 connections of 32 streams", tls: true, load: small},
		{name: "h2c", about: "HTTP/2 without TLS to HTTP/1, 1 KiB, 16 connections of 32 streams", load: small},
		{name: "h2c-h2c", about: "HTTP/2 without TLS on both sides, 1 KiB, 16 connections of 32 streams", load: small, h2Origin: true},
		{name: "h2-tls-h2c", about: "HTTP/2 over TLS to HTTP/2 without, 1 KiB, 16 connections of 32 streams", tls: true, load: small, h2Origin: true},
		{name: "grpc-unary", about: "gRPC, unary calls with 128 bytes each way, HTTP/2 without TLS on both sides, 16 connections of 32 calls",
			load: calls(grpcSize, 1), h2Origin: true, unit: "call"},
		{name: "grpc-stream", about: "gRPC, calls of 100 messages of 1 KiB, each sent back before the next is sent; otherwise the same",
			load: calls(grpcStreamSize, 100), h2Origin: true, unit: "message"},
		{name: "h2-upload", about: "upload of 100 MiB over HTTP/2 and TLS on a new connection", tls: true, load: up, transfer: true},
		{name: "h2-upload-20ms", about: "the same through a relay that makes a round trip take 20 ms", tls: true, load: up, transfer: true, delay: delay},
		{name: "h2-download", about: "download of 100 MiB over HTTP/2 and TLS on a new connection", tls: true, load: down, transfer: true},
		{name: "h2-download-20ms", about: "the same through a relay that makes a round trip take 20 ms", tls: true, load: down, transfer: true, delay: delay},
		{name: "tls-idle", about: "idle keep-alive connections with TLS 1.3, 30 s after the last of as many concurrent requests", tls: true,
			// The answers wait until thousands of handshakes are over.
			load: loadSpec{once: true, target: target{size: kib, delayMS: 15_000}}, idle: true},
	}
	for i := range all {
		all[i].without = map[string]string{"fasthttp": "it has no HTTP/2, and its program here no TLS"}
		if all[i].h2Origin && all[i].load.messages == 0 {
			all[i].without["nginx"] = "it speaks HTTP/2 to origins for gRPC alone"
		}
	}
	return all
}

// h2 reports whether clients speak HTTP/2.
func (s *scenario) h2() bool { return s.load.streams > 0 }

// grpc reports whether what is sent are calls of gRPC.
func (s *scenario) grpc() bool { return s.load.messages > 0 }

// per is what CPU is counted by.
func (s *scenario) per() string {
	if s.unit == "" {
		return "request"
	}
	return s.unit
}

// tlsOf is what clients offer in s, or nil if they speak no TLS.
func (b *bench) tlsOf(s *scenario) *tlsSpec {
	if !s.tls {
		return nil
	}
	spec := &tlsSpec{cert: b.cert.der, group: tls.X25519, protocol: protoHTTP1}
	if s.group != 0 {
		spec.group = s.group
	}
	if s.h2() {
		spec.protocol = protoHTTP2
	}
	return spec
}
