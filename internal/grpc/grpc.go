// Package grpc holds what a proxy says to clients of gRPC in fields: which status
// stands for one of HTTP, and how a message is written. It knows no messages.
package grpc

import (
	"strings"

	"github.com/cirqueproxy/cirque/internal/ascii"
)

// Is reports whether a content type is gRPC's: application/grpc, with a subtype behind
// a plus or not. That of gRPC-Web is not.
func Is(contentType []byte) bool {
	const want = "application/grpc"
	v := contentType
	if len(v) < len(want) || !ascii.EqualFold(v[:len(want)], want) {
		return false
	}
	return len(v) == len(want) || v[len(want)] == '+' || v[len(want)] == ';'
}

// Status returns the code of gRPC for a response of ours. It follows what
// clients of gRPC make of a status by themselves (doc/http-grpc-status-mapping.md of
// the gRPC project), and says more where we know more than the status tells.
func Status(status int) int {
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
	case 499: // the client left
		return 1 // CANCELLED
	}
	return 2 // UNKNOWN
}

// Message encodes a text as grpc-message has it: what is not printable ASCII, and
// the percent sign, as %XX.
func Message(text string) string {
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
