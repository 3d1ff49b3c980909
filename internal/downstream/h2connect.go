package downstream

import (
	"crypto/rand"
	"encoding/base64"
	"errors"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// This file is CONNECT over HTTP/2, with and without :protocol. To the engine an
// extended CONNECT is what it is in HTTP/1.1, a GET that asks for an upgrade: hooks,
// routes and origins of either version need to know one form only. (RFC 8441 was
// made so that the two say the same.)

// beginConnect makes the request what the engine knows.
func (d *H2) beginConnect() {
	req := &d.st.Req
	d.connect, d.tunneled, d.key = req.Method() == "CONNECT" && d.st.Refusal == nil, false, ""
	if !d.connect {
		return
	}
	// RFC 9113, section 8.5: what follows is no body. It waits, within its window,
	// until there is a tunnel.
	req.SetLength(0)
	req.Header.DelID(message.IDContentLength)
	if d.st.Protocol == "" {
		return
	}
	req.SetMethod("GET")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", d.st.Protocol)
	if ascii.EqualFold(d.st.Protocol, "websocket") {
		// RFC 8441, section 5: the handshake of HTTP/2 has no key, that of HTTP/1.1
		// needs one.
		d.key = newKey()
		req.Header.Set("Sec-WebSocket-Key", d.key)
	}
}

// newKey returns a key as RFC 6455, section 4.1, item 7 wants it: 16 random bytes.
func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// Extended returns which protocol an extended CONNECT asks for, or "".
func (d *H2) Extended() string {
	if !d.connect {
		return ""
	}
	return d.st.Protocol
}

var (
	errNoSwitch  = &reason.Error{Reason: reason.UpstreamNoSwitch, Err: errors.New("a 2xx would be a tunnel to the client")}
	errBadSwitch = &reason.Error{Reason: reason.UpstreamNoSwitch, Err: errors.New("the switch is to another protocol")}
	errBadAccept = &reason.Error{Reason: reason.UpstreamNoSwitch, Err: errors.New("Sec-WebSocket-Accept is not that of the key")}
)

// Tunnel implements exchange.Down.
//
// RFC 6455, section 4.1: who sent the key checks what the server made of it; here
// that is us.
func (d *H2) Tunnel(resp *message.Response) (exchange.Tunnel, error) {
	switch {
	case !d.connect:
		return nil, nil
	case d.st.Protocol == "":
	case !ascii.EqualFold(resp.Header.ViewID(message.IDUpgrade), d.st.Protocol):
		return nil, errBadSwitch
	case d.key != "" && string(resp.Header.ViewID(message.IDSecWebSocketAccept)) != h1.WebSocketAccept([]byte(d.key)):
		return nil, errBadAccept
	}
	d.tunneled = true
	return d.st.Tunnel(), nil
}

// writeSwitch sends the head that begins a tunnel. Another 2xx must not be sent: to
// this client it would be one.
//
// RFC 8441, section 4: a 2xx takes the place of the 101.
func (d *H2) writeSwitch(resp *message.Response) error {
	if !d.tunneled {
		return errNoSwitch
	}
	status := resp.Status
	resp.Status = 200
	resp.Header.DelID(message.IDSecWebSocketAccept)
	err := d.st.WriteHead(resp, -1, -1, false)
	resp.Status = status
	return d.writeError(err)
}
