package config

import (
	"time"

	"github.com/cirqueproxy/cirque"
)

// HTTP2 holds the limits of the connections of HTTP/2 on one side.
type HTTP2 struct {
	MaxStreams, MaxCookies                    int
	StreamWindow, ConnectionWindow, MaxWindow int64
	PingEvery, PingTimeout                    time.Duration
}

// http2Keys are those that listeners and upstreams have in common.
var http2Keys = []key[HTTP2]{
	at("max_streams", count(1, maxCount, noOff), func(h *HTTP2) *int { return &h.MaxStreams }, "100",
		"The requests that run at a time on one connection. The other end may want fewer."),
	at("stream_window", size(noOff), func(h *HTTP2) *int64 { return &h.StreamWindow }, "256KiB",
		"How much of a body the other end may send on one stream before it is read. It grows with the round trip."),
	at("connection_window", size(noOff), func(h *HTTP2) *int64 { return &h.ConnectionWindow }, "512KiB",
		"The same for all streams of a connection together. At least 64KiB."),
	at("max_window", size(noOff), func(h *HTTP2) *int64 { return &h.MaxWindow }, "8MiB",
		"What the window of a stream grows to; that of a connection grows to twice as much."),
	at("ping_every", duration(orOff), func(h *HTTP2) *time.Duration { return &h.PingEvery }, "30s",
		"How long nothing may have come, while there are requests, before the other end is asked whether it lives."),
	at("ping_timeout", duration(orOff), func(h *HTTP2) *time.Duration { return &h.PingTimeout }, "5s",
		"How long it may take to answer. After that the connection is closed."),
}

var listenerHTTP2Kind = object(append(http2Keys,
	at("max_cookies", count(1, maxCount, noOff), func(h *HTTP2) *int { return &h.MaxCookies }, "512",
		"The cookie fields of a request, which HTTP/2 may send one by one. They do not count as fields, but as bytes of the head."))...)

var upstreamHTTP2Kind = object(http2Keys...)

func (h *HTTP2) framework() cirque.HTTP2 {
	return cirque.HTTP2{
		MaxStreams: h.MaxStreams, MaxCookies: h.MaxCookies,
		StreamWindow: int(h.StreamWindow), ConnWindow: int(h.ConnectionWindow), MaxWindow: int(h.MaxWindow),
		PingEvery: h.PingEvery, PingTimeout: h.PingTimeout,
	}
}

// The windows that there can be.
//
// RFC 9113, section 6.9.2: a connection's is 65,535 bytes at first and cannot be made
// smaller; section 6.9.1: none is over 2^31-1 bytes.
const (
	minConnectionWindow = 1<<16 - 1
	largestWindow       = 1<<31 - 1
)

// checkHTTP2 reports windows that there cannot be. At is the path of h, which
// belongs to parent.
func (r *reader) checkHTTP2(at string, h *HTTP2, parent any) {
	for _, w := range []struct {
		name  string
		bytes *int64
	}{{"stream_window", &h.StreamWindow}, {"connection_window", &h.ConnectionWindow}, {"max_window", &h.MaxWindow}} {
		if *w.bytes > largestWindow {
			r.failAt(w.bytes, parent, "%s.%s: a window of HTTP/2 has less than 2GiB", at, w.name)
		}
	}
	if h.ConnectionWindow < minConnectionWindow && !r.broken[&h.ConnectionWindow] {
		r.failAt(&h.ConnectionWindow, parent, "%s.connection_window: the window of a connection has at least 64KiB", at)
	}
	if h.MaxWindow < h.StreamWindow && !r.broken[&h.MaxWindow] && !r.broken[&h.StreamWindow] {
		r.failAt(&h.MaxWindow, parent, "%s.max_window: it is less than stream_window, %s", at, formatSize(h.StreamWindow))
	}
}

// checkProtocols reports what a listener cannot speak.
func (r *reader) checkProtocols(l *Listener) {
	at := "listeners." + l.Name
	r.checkHTTP2(at+".http2", &l.HTTP2, l)
	if l.TLS == nil {
		return
	}
	if l.H2C {
		r.failAt(&l.H2C, l, "%s.h2c: it is HTTP/2 without TLS, and there is tls, which offers HTTP/2 without this", at)
	}
	seen := map[string]bool{}
	for i, p := range l.TLS.Protocols {
		if seen[*p] && *p != "" {
			r.failAt(p, l.TLS, "%s.tls.protocols.%d: %s is there already", at, i+1, *p)
		}
		seen[*p] = true
	}
}
