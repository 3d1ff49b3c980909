package cirque

import (
	"slices"
	"strings"

	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/internal/hop"
	"github.com/cirqueproxy/cirque/message"
)

// cleanResponse takes out of a response what was meant for us alone.
func cleanResponse(r *message.Response, keep bool) {
	if !keep {
		hop.Remove(&r.Header, r.Status == 101)
	}
}

// upgradeWanted returns whether the request asks for a protocol that may be
// passed on. An upgrade to HTTP/2 is not: past it nobody would match routes
// against the requests inside. An upgrade with a body is served without it.
//
// RFC 9110, section 7.8: a server ignores an Upgrade in a request of HTTP/1.0.
func upgradeWanted(s *Session) bool {
	req := s.req
	if s.Protocol() == "HTTP/1.0" {
		return false
	}
	if req.Length() != 0 || !req.Header.HasToken(message.IDConnection, "upgrade") || !req.Header.HasID(message.IDUpgrade) {
		return false
	}
	for _, v := range req.Header.Values("Upgrade") {
		if len(v) >= 2 && (v[0]|0x20) == 'h' && (v[1] == '2' || (v[1]|0x20) == 't') {
			return false
		}
	}
	return true
}

// protocolAllowed reports whether the session's request may ask for the protocol
// that it does. In HTTP/2 that is WebSocket alone, and what the Proxy adds: who asks
// there counts on it, while HTTP/1.1 goes on without.
//
// RFC 8441, section 4: a server answers 501 to a protocol that it does not know.
func (s *Session) protocolAllowed() bool {
	d, ok := s.down.(*downstream.H2)
	if !ok {
		return true
	}
	p := d.Extended()
	switch {
	case p == "" || strings.EqualFold(p, "websocket"):
		return true
	case s.proxy == nil || !upgradeWanted(s):
		return false
	}
	return slices.ContainsFunc(s.proxy.ConnectProtocols, func(a string) bool { return strings.EqualFold(a, p) })
}
