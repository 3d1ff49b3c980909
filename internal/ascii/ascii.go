// Package ascii holds the character classes and small comparisons of RFC 9110
// that every codec needs. It knows no message.
package ascii

import (
	"encoding/binary"
	"math/bits"
)

const (
	isToken = 1 << iota
	isValue
	isHost
)

var class = func() (t [256]byte) {
	for c := range 256 {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			t[c] |= isToken | isHost
		}
		if c == '\t' || (c >= ' ' && c != 0x7f) {
			t[c] |= isValue
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= isToken
	}
	for _, c := range "-._~%!$&'()*+,;=" {
		t[c] |= isHost
	}
	return t
}()

var lower = func() (t [256]byte) {
	for c := range 256 {
		t[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			t[c] = byte(c) + 'a' - 'A'
		}
	}
	return t
}()

// Lower returns c in lower case.
func Lower(c byte) byte { return lower[c] }

// IsTokenByte reports whether c may be part of a token.
//
// RFC 9110, section 5.6.2: token = 1*tchar.
func IsTokenByte(c byte) bool { return class[c]&isToken != 0 }

// TokenLen returns the length of the longest token at the start of b.
func TokenLen(b []byte) int {
	for i, c := range b {
		if class[c]&isToken == 0 {
			return i
		}
	}
	return len(b)
}

// IsToken reports whether s is a token.
func IsToken[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if class[s[i]]&isToken == 0 {
			return false
		}
	}
	return len(s) > 0
}

// IsHostByte reports whether c may stand in a registered name.
//
// RFC 3986, section 3.2.2: reg-name = *( unreserved / pct-encoded / sub-delims ).
func IsHostByte(c byte) bool { return class[c]&isHost != 0 }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// IsValue reports whether v may be a field value: no control character but
// the tab.
//
// RFC 9110, section 5.5: CR, LF and NUL are dangerous, other CTLs invalid.
func IsValue[T string | []byte](v T) bool {
	i := 0
	if b, ok := any(v).([]byte); ok {
		for ; i+8 <= len(b); i += 8 {
			x := binary.LittleEndian.Uint64(b[i:])
			del := x ^ (0x7f * ones)
			if ((x-0x20*ones)&^x|(del-ones)&^del)&highs != 0 {
				break // perhaps only a tab
			}
		}
	}
	for ; i < len(v); i++ {
		if class[v[i]]&isValue == 0 {
			return false
		}
	}
	return true
}

// PlainLen returns the length of the longest start of b without control
// characters and spaces.
func PlainLen(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ (0x7f * ones)
		if hit := ((x-0x21*ones)&^x | (del-ones)&^del) & highs; hit != 0 {
			// The lowest hit is exact; those above it may come from a borrow.
			return i + bits.TrailingZeros64(hit)/8
		}
	}
	for ; i < len(b); i++ {
		if b[i] <= ' ' || b[i] == 0x7f {
			return i
		}
	}
	return i
}

// EqualFold reports whether a and b are equal but for the case of letters.
func EqualFold[A, B string | []byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}

// TrimOWS returns b without optional whitespace around it.
//
// RFC 9110, section 5.6.3: OWS = *( SP / HTAB ).
func TrimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// NextElement returns the first element of a comma separated list, trimmed, and
// what follows it. Elements may be empty.
//
// RFC 9110, section 5.6.1.
func NextElement(list []byte) (element, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return TrimOWS(list[:i]), list[i+1:]
		}
	}
	return TrimOWS(list), nil
}

// HasToken reports whether a comma separated list has the token.
func HasToken(list []byte, token string) bool {
	for len(list) > 0 {
		var e []byte
		if e, list = NextElement(list); EqualFold(e, token) {
			return true
		}
	}
	return false
}

// IsHex reports whether c is a hexadecimal digit.
func IsHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// Unhex returns the value of a hexadecimal digit.
func Unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}

// ParseLength returns the value of a Content-Length, or -1 if it is not a plain
// number that fits.
//
// RFC 9110, section 8.6: Content-Length = 1*DIGIT.
func ParseLength(v []byte) int64 {
	if len(v) == 0 || len(v) > 18 {
		return -1
	}
	n := int64(0)
	for _, c := range v {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
