package cirque

import (
	"bytes"
	"slices"
	"strings"

	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/message"
)

// Hop-by-hop fields stop here, in both directions: those that RFC 9110, section
// 7.6.1 names, their old companions, and whatever Connection lists.
var hopByHop = [...]message.ID{
	message.IDConnection, message.IDKeepAlive, message.IDProxyConnection, message.IDTE,
	message.IDTransferEncoding, message.IDUpgrade,
	message.IDProxyAuthenticate, message.IDProxyAuthorization,
}

// framingFields cannot be taken from a message by naming them in Connection:
// without them it would be another message.
func framingField(id message.ID) bool {
	return id == message.IDHost || id == message.IDContentLength || id == message.IDTransferEncoding
}

// removeHopByHop takes the hop-by-hop fields out of h. Upgrade stays when keep
// says so.
//
// RFC 9110, section 7.6.1: an intermediary removes the fields that Connection
// names, and Connection itself, before it forwards a message.
func removeHopByHop(h *message.Header, keepUpgrade bool) {
	if h.HasID(message.IDConnection) {
		removeNamed(h, keepUpgrade)
	}
	for _, id := range hopByHop {
		if h.HasID(id) && !(keepUpgrade && id == message.IDUpgrade) {
			h.DelID(id)
		}
	}
}

// removeNamed takes the fields out that Connection names.
func removeNamed(h *message.Header, keepUpgrade bool) {
	for i := 0; i < h.Len(); i++ {
		if h.FieldID(i) != message.IDConnection {
			continue
		}
		_, v := h.Field(i)
		if plainOption(v) {
			continue
		}
		for len(v) > 0 {
			var token []byte
			token, v, _ = bytes.Cut(v, comma)
			token = bytes.Trim(token, " \t")
			if plainOption(token) {
				continue
			}
			id := message.Lookup(token)
			if id == message.IDConnection || framingField(id) || (keepUpgrade && id == message.IDUpgrade) {
				continue
			}
			// Deleting before i moves the field that we read: its value stays
			// valid, and i is found again.
			before := h.Len()
			h.Del(string(token))
			if i -= before - h.Len(); i < -1 {
				i = -1
			}
		}
	}
}

var comma = []byte(",")

// plainOption reports whether a connection option names no field.
func plainOption(token []byte) bool {
	switch len(token) {
	case 0:
		return true
	case len("close"):
		return bytes.EqualFold(token, []byte("close"))
	case len("keep-alive"):
		return bytes.EqualFold(token, []byte("keep-alive"))
	}
	return false
}

// cleanResponse takes out of a response what was meant for us alone.
func cleanResponse(r *message.Response, keep bool) {
	if !keep {
		removeHopByHop(&r.Header, r.Status == 101)
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
