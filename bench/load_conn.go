//go:build linux

package main

import (
	"bytes"
	"fmt"
)

// loadConn is one connection of the load generator with its request.
type loadConn struct {
	fd     int      // -1: not connected
	pipe   *tlsPipe // nil: plain
	link   *h2Link  // HTTP/2: the connection that it is a stream of
	stream *h2Stream
	sent   int // messages of the call
	flying bool
	target target
	due    int64 // when the request was to be sent

	head    []byte // the request's head, and the start of its body
	clear   []byte // of it: what TLS has not yet taken
	rest    []byte // of it, or of what TLS made of it: what is not yet written
	off     int    // of the upload: what is not yet written
	end     int
	writing bool // armed for EPOLLOUT

	in     []byte // of the response: a head that is not whole
	inBody bool
	got    int
	closes bool // the proxy said that it closes
}

func (c *loadConn) begin(t target, due int64) {
	c.target, c.due, c.flying = t, due, true
	c.off, c.end, c.got, c.sent = 0, 0, 0, 0
	c.inBody, c.closes = false, false
	c.in = c.in[:0]
}

// unsent is what rawSend may write behind c.rest.
func (c *loadConn) unsent() []byte {
	if c.pipe != nil {
		return nil
	}
	return bodyBytes(c.target.id, c.off, c.end)
}

// seal moves what is to be written through TLS: then c.rest is what the socket
// gets, and c.off says how much of the body is in it.
func (c *loadConn) seal() {
	p := c.pipe
	if p == nil || len(c.rest) > 0 {
		return
	}
	p.out = p.out[:0]
	for len(c.clear) > 0 || c.off < c.end && len(p.out) < outRoom {
		b := c.clear
		if c.clear = nil; len(b) == 0 {
			b = bodyBytes(c.target.id, c.off, min(c.end, c.off+outRoom))
			c.off += len(b)
		}
		if p.encrypt(b) != nil {
			c.off = c.end // the pipe is broken, and the next read says so
		}
	}
	c.rest = p.out
}

// receive takes bytes of the response. It reports whether the response is
// whole, or what is wrong with it.
func (c *loadConn) receive(b []byte) (done bool, problem string) {
	if !c.flying {
		return false, "unasked bytes"
	}
	if !c.inBody {
		if len(c.in) > 0 {
			c.in = append(c.in, b...)
			b = c.in
		}
		i := bytes.Index(b, []byte("\r\n\r\n"))
		if i < 0 {
			if len(c.in) == 0 {
				c.in = append(c.in, b...)
			}
			return false, ""
		}
		if problem := c.readHead(b[:i+2]); problem != "" {
			return false, problem
		}
		c.inBody = true
		b = b[i+4:]
	}
	if len(b) > c.target.size-c.got {
		return false, "too many bytes"
	}
	if len(b) > 0 && !checkBody(c.target.id, c.got, b) {
		return false, "another request's body"
	}
	c.got += len(b)
	return c.got == c.target.size, ""
}

func (c *loadConn) readHead(head []byte) string {
	line, rest := cutLine(head)
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return fmt.Sprintf("status %.20q", line)
	}
	length := -1
	for len(rest) > 0 {
		line, rest = cutLine(rest)
		if len(line) == 0 || line[0]|0x20 != 'c' {
			continue
		}
		if v, ok := field(line, "content-length"); ok {
			length, _ = parseSize(v)
		} else if v, ok := field(line, "connection"); ok {
			c.closes = bytes.EqualFold(v, []byte("close"))
		}
	}
	if length != c.target.size {
		return "wrong length"
	}
	return ""
}
