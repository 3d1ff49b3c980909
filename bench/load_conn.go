//go:build linux

package main

import (
	"bytes"
	"fmt"
)

// loadConn is one connection of the load generator with its request.
type loadConn struct {
	fd     int // -1: not connected
	flying bool
	target target
	due    int64 // when the request was to be sent

	head    []byte // the request's head, and the start of its body
	rest    []byte // of it: what is not yet written
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
	c.off, c.end, c.got = 0, 0, 0
	c.inBody, c.closes = false, false
	c.in = c.in[:0]
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
