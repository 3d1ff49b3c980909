// Package hop takes out of a header section what was meant for one connection
// alone. It knows messages only.
package hop

import (
	"bytes"

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

// Remove takes the hop-by-hop fields out of h. Upgrade stays when keep
// says so.
//
// RFC 9110, section 7.6.1: an intermediary removes the fields that Connection
// names, and Connection itself, before it forwards a message.
func Remove(h *message.Header, keepUpgrade bool) {
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
