package h1

import (
	"crypto/sha1"
	"encoding/base64"
)

// WebSocketAccept returns the Sec-WebSocket-Accept with which a server shows that it
// read a handshake with the key.
//
// RFC 6455, section 4.2.2, item 5.4: the hash of the key and a constant.
func WebSocketAccept(key []byte) string {
	h := sha1.New()
	h.Write(key)
	h.Write([]byte("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}
