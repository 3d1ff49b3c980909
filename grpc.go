package cirque

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/message"
)

// This file is what the engine knows of gRPC: how its clients want to hear of
// failures, and that its streams may be silent.

// isGRPC reports whether the request is one of gRPC, by its content type:
// application/grpc, with a subtype behind a plus or not. gRPC-Web is not.
func (s *Session) isGRPC() bool {
	const want = "application/grpc"
	v := s.req.Header.ViewID(message.IDContentType)
	if len(v) < len(want) || !ascii.EqualFold(v[:len(want)], want) {
		return false
	}
	return len(v) == len(want) || v[len(want)] == '+' || v[len(want)] == ';'
}

// grpcStatus returns the code of gRPC for a response of ours. It follows what
// clients of gRPC make of a status by themselves (doc/http-grpc-status-mapping.md of
// the gRPC project), and says more where we know more than the status tells.
func grpcStatus(status int) int {
	switch status {
	case 400, 417, 500, 505:
		return 13 // INTERNAL
	case 401, 407:
		return 16 // UNAUTHENTICATED
	case 403:
		return 7 // PERMISSION_DENIED
	case 404, 405, 501:
		return 12 // UNIMPLEMENTED
	case 408, 504:
		return 4 // DEADLINE_EXCEEDED
	case 413, 414, 431:
		return 8 // RESOURCE_EXHAUSTED
	case 421, 429, 502, 503:
		return 14 // UNAVAILABLE
	case statusClientGone:
		return 1 // CANCELLED
	}
	return 2 // UNKNOWN
}

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
	h.Set("Grpc-Status", strconv.Itoa(grpcStatus(s.resp.Status)))
	h.Set("Grpc-Message", grpcMessage(text))
	h.SetID(message.IDContentType, []byte("application/grpc"))
	s.resp.Status = 200
	s.resp.SetReason("")
	s.local = s.local[:0]
}

// grpcMessage encodes a text as grpc-message has it: what is not printable ASCII, and
// the percent sign, as %XX.
func grpcMessage(text string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
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
	l := s.own.limits.or(ClientLimits{Body: idle, Write: idle, MinRate: -1})
	d.SetBounds(l.over(*d.DefaultBounds()), true, true)
}
