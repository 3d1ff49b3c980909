package cirque

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/internal/grpc"
	"github.com/cirqueproxy/cirque/message"
)

// This file is what the engine knows of gRPC: how its clients want to hear of
// failures, and that its streams may be silent.

// isGRPC reports whether the request is one of gRPC.
func (s *Session) isGRPC() bool { return grpc.Is(s.req.Header.ViewID(message.IDContentType)) }

// maxGRPCMessage bounds what of a local body becomes a grpc-message: it is a field,
// and clients bound those.
const maxGRPCMessage = 1 << 10

// grpcLocal makes of a local response that reports a failure what a client of gRPC
// understands: 200, grpc-status and grpc-message in the head, and no body. The text
// of a plain body is the message.
func (s *Session) grpcLocal() {
	h := &s.resp.Header
	if s.resp.Status < 400 || !s.isGRPC() || h.Has("Grpc-Status") {
		return
	}
	text := message.StatusText(s.resp.Status)
	if t := h.ViewID(message.IDContentType); len(s.local) > 0 && bytes.HasPrefix(t, []byte("text/plain")) {
		text = strings.TrimSpace(string(s.local[:min(len(s.local), maxGRPCMessage)]))
	}
	h.Set("Grpc-Status", strconv.Itoa(grpc.Status(s.resp.Status)))
	h.Set("Grpc-Message", grpc.Message(text))
	h.SetID(message.IDContentType, []byte("application/grpc"))
	s.resp.Status = 200
	s.resp.SetReason("")
	s.local = s.local[:0]
}

// relaxGRPC takes the bounds away that mean an upload to one that stalls: a stream of
// gRPC may rightly be silent for long, in either direction. What bounds its silence
// is what bounds a tunnel's; a client that is gone is found by pings. What a hook set
// stays.
func (s *Session) relaxGRPC() {
	d, ok := s.down.(*downstream.H2)
	if !ok || !s.isGRPC() {
		return
	}
	idle := orElse(s.own.timeouts.Tunnel, orElse(s.proxy.Timeouts.Tunnel, defaultTimeouts.Tunnel))
	// As if a hook had said so: what hooks say later is on top of it.
	s.own.limits, s.own.set = s.own.limits.or(ClientLimits{Body: idle, Write: idle, MinRate: -1}), true
	d.SetBounds(s.own.limits.over(*d.DefaultBounds()), true, true)
}
