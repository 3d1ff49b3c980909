//go:build linux

package main

import (
	"bytes"
	"math/rand/v2"
	"strconv"
)

// A target says what the origin must answer. It travels in the request's path
// as /SIZE/DELAYMS/ID/UPLOAD, so that each response can be checked against its
// own request: a swapped, cached or invented response cannot pass.
type target struct {
	size    int    // bytes of the response's body
	delayMS int    // how long the origin thinks
	id      uint64 // of the request; the body derives from it
	upload  int    // bytes of the request's body
}

// idLen is how many bytes of a body spell the id, in hexadecimal. The rest is
// a window of the pattern that starts at a place that the id chooses.
const idLen = 16

const (
	maxBody     = 128 << 20
	patternLen  = 1 << 20 // longer bodies repeat it
	patternSpan = 4096
)

var pattern = newPattern()

func newPattern() []byte {
	p := make([]byte, patternLen+patternSpan)
	src := rand.NewChaCha8([32]byte{'c', 'i', 'r', 'q', 'u', 'e'})
	_, _ = src.Read(p)
	return p
}

// bodyBytes returns bytes from to end of the body of id, for from >= idLen: all
// of them if the body is no longer than the pattern, otherwise those up to
// where it repeats.
func bodyBytes(id uint64, from, end int) []byte {
	base, at := int(id%patternSpan), from%patternLen
	return pattern[base+at : base+min(at+end-from, patternLen)]
}

// appendBody appends n bytes of the body of id from off on, or as many as there
// are before the pattern repeats.
func appendBody(dst []byte, id uint64, off, n int) []byte {
	if off < idLen {
		var spelled [idLen]byte
		appendID(spelled[:0], id)
		head := spelled[off:min(idLen, off+n)]
		dst, off, n = append(dst, head...), off+len(head), n-len(head)
	}
	return append(dst, bodyBytes(id, off, off+n)...)
}

const hexDigits = "0123456789abcdef"

func appendID(dst []byte, id uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[id>>shift&15])
	}
	return dst
}

func parseID(b []byte) (uint64, bool) {
	var id uint64
	for _, c := range b {
		d := bytes.IndexByte([]byte(hexDigits), c)
		if d < 0 {
			return 0, false
		}
		id = id<<4 | uint64(d)
	}
	return id, len(b) == idLen
}

// edge is how much of a long piece is compared at each end: enough to know
// whose bytes they are, and cheap beside the copy that brought them.
const edge = 64

// checkBody reports whether piece is what the body of id has at off.
func checkBody(id uint64, off int, piece []byte) bool {
	if off < idLen {
		var want [idLen]byte
		appendID(want[:0], id)
		n := min(idLen-off, len(piece))
		if !bytes.Equal(piece[:n], want[off:off+n]) {
			return false
		}
		piece, off = piece[n:], off+n
	}
	end := off + len(piece)
	if end > maxBody {
		return false
	}
	for len(piece) > 0 {
		want := bodyBytes(id, off, end)
		if !sameEnds(piece[:len(want)], want) {
			return false
		}
		piece, off = piece[len(want):], off+len(want)
	}
	return true
}

func sameEnds(piece, want []byte) bool {
	if len(piece) <= 32*edge {
		return bytes.Equal(piece, want)
	}
	return bytes.Equal(piece[:edge], want[:edge]) && bytes.Equal(piece[len(piece)-edge:], want[len(want)-edge:])
}

// appendPath writes the path of t.
func (t target) appendPath(dst []byte) []byte {
	dst = append(dst, '/')
	switch {
	case t.size%(1<<20) == 0:
		dst = append(strconv.AppendInt(dst, int64(t.size>>20), 10), 'm')
	case t.size%(1<<10) == 0:
		dst = append(strconv.AppendInt(dst, int64(t.size>>10), 10), 'k')
	default:
		dst = strconv.AppendInt(dst, int64(t.size), 10)
	}
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, int64(t.delayMS), 10)
	dst = append(dst, '/')
	dst = appendID(dst, t.id)
	dst = append(dst, '/')
	return strconv.AppendInt(dst, int64(t.upload), 10)
}

// parsePath is the inverse of appendPath. What is left out is zero, so that
// /1k does for a curl.
func parsePath(p []byte) (t target, ok bool) {
	if len(p) < 2 || p[0] != '/' {
		return t, false
	}
	size, rest := cutSlash(p[1:])
	if t.size, ok = parseSize(size); !ok || t.size < idLen || t.size > maxBody {
		return t, false
	}
	for i := 0; len(rest) > 0 && ok; i++ {
		var field []byte
		field, rest = cutSlash(rest)
		switch i {
		case 0:
			t.delayMS, ok = parseSize(field)
		case 1:
			t.id, ok = parseID(field)
		case 2:
			t.upload, ok = parseSize(field)
		default:
			ok = false
		}
	}
	return t, ok
}

func cutSlash(b []byte) (first, rest []byte) {
	if i := bytes.IndexByte(b, '/'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// parseSize reads digits with k or m behind them.
func parseSize(b []byte) (int, bool) {
	shift := 0
	if n := len(b); n > 0 {
		switch b[n-1] {
		case 'k':
			b, shift = b[:n-1], 10
		case 'm':
			b, shift = b[:n-1], 20
		}
	}
	if len(b) == 0 || len(b) > 10 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n << shift, true
}

// field returns the value of a line if its name is name, which is in lower
// case. It is all the header parsing that the bench does.
func field(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' {
		return nil, false
	}
	for i := range len(name) {
		c := line[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != name[i] {
			return nil, false
		}
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}

// cutLine returns the first line of a head, without its end, and what follows.
func cutLine(head []byte) (line, rest []byte) {
	i := bytes.IndexByte(head, '\n')
	if i < 0 {
		return head, nil
	}
	return bytes.TrimSuffix(head[:i], []byte{'\r'}), head[i+1:]
}
