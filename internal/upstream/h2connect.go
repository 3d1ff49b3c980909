package upstream

import (
	"bytes"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/message"
)

// This file is an upgrade to an origin of HTTP/2: an extended CONNECT (RFC 8441),
// whose 2xx is to the engine the 101 that it would be in HTTP/1.1.

// upgrades reports whether the request asks for another protocol, and notes which:
// the first that it names, since CONNECT has room for one.
func (u *H2) upgrades(req *message.Request) bool {
	v, _, _ := bytes.Cut(req.Header.ViewID(message.IDUpgrade), []byte(","))
	v = bytes.Trim(v, " \t")
	u.protocol, u.accept, u.switched = "", "", false
	if !ascii.IsToken(v) {
		return false
	}
	u.protocol = string(v)
	if key := req.Header.ViewID(message.IDSecWebSocketKey); key != nil && ascii.EqualFold(v, "websocket") {
		u.accept = h1.WebSocketAccept(key)
	}
	return true
}

// sendConnect sends the head of an extended CONNECT.
//
// RFC 8441, section 5: with the fields of the handshake but for the key.
func (u *H2) sendConnect(req *message.Request) error {
	method := req.Method()
	req.SetMethod("CONNECT")
	req.SetLength(-1)
	req.Header.DelID(message.IDContentLength)
	req.Header.DelID(message.IDSecWebSocketKey)
	err := u.st.WriteRequest(req, u.protocol, false)
	req.SetMethod(method)
	req.SetLength(0)
	if err != nil {
		return u.writeError(err)
	}
	u.sentAny = true
	return u.writeError(u.st.Flush())
}

// agreed makes a 101 of the origin's 2xx.
func (u *H2) agreed(resp *message.Response) {
	u.switched = true
	resp.Status = 101
	resp.SetReason("")
	resp.SetLength(0)
	resp.Header.DelID(message.IDContentLength)
	resp.Header.Set("Upgrade", u.protocol)
	if u.accept != "" {
		resp.Header.Set("Sec-WebSocket-Accept", u.accept)
	}
}

// Tunnel implements exchange.Up.
func (u *H2) Tunnel() exchange.Tunnel {
	if !u.switched {
		return nil
	}
	return u.st.Tunnel()
}
