package cirque

import (
	"time"

	"github.com/cirqueproxy/cirque/internal/h2"
)

// HTTP2 are the limits of HTTP/2 connections, on one side. Each field: if zero, the
// default said there is used.
type HTTP2 struct {
	// MaxStreams bounds the streams of one connection: 100. A peer's own limit
	// counts too.
	MaxStreams int
	// StreamWindow is how many bytes of a body the other end may send unread on one
	// stream at first: 256 KiB. It grows with the round trip, up to MaxWindow.
	StreamWindow int
	// ConnWindow is the same for all streams of a connection: 512 KiB.
	ConnWindow int
	// MaxWindow bounds what a stream's window grows to: 8 MiB. A connection's
	// grows to twice that.
	MaxWindow int
	// MaxCookies bounds the cookie fields of a request, which come one by one:
	// 512.
	MaxCookies int
	// PingEvery is how long nothing may have come before the other end is asked
	// whether it lives, while there are streams: 30 s. If negative, it is not asked.
	PingEvery time.Duration
	// PingTimeout bounds its answer: 5 s.
	PingTimeout time.Duration
}

// windowBudget bounds what the windows of all connections of the process may grow
// together.
var windowBudget = h2.NewWindowBudget(256 << 20)

// defaults returns the limits that do not differ between the sides.
func (h HTTP2) defaults() h2.Config {
	return h2.Config{
		MaxStreams:   pick(h.MaxStreams, 100),
		StreamWindow: pick(h.StreamWindow, 256<<10), ConnWindow: pick(h.ConnWindow, 512<<10),
		MaxWindow: pick(h.MaxWindow, 8<<20), Windows: windowBudget,
		Crumbs:    pick(h.MaxCookies, 512),
		PingEvery: pick(h.PingEvery, 30*time.Second), PingTimeout: pick(h.PingTimeout, 5*time.Second),
	}
}

// config returns the limits of a Server's connections.
func (h HTTP2) config(srv *Server) *h2.Config {
	c := h.defaults()
	c.HeadBytes, c.Fields = pick(srv.MaxHeaderBytes, 64<<10), pick(srv.MaxFields, 100)
	c.TargetBytes = pick(srv.MaxTargetBytes, 16<<10)
	c.HeadTimeout = pick(srv.ReadHeaderTimeout, 10*time.Second)
	c.IdleTimeout = pick(srv.IdleTimeout, 75*time.Second)
	c.WriteTimeout = pick(srv.WriteTimeout, 60*time.Second)
	c.Connect = true
	return &c
}

// upstream returns the limits of connections to a peer.
func (h HTTP2) upstream(head int) *h2.Config {
	c := h.defaults()
	c.HeadBytes, c.Fields = head, maxResponseFields
	return &c
}
