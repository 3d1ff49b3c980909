//go:build linux

package main

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// originH2 is an HTTP/2 connection of the origin. That a client begins with the
// preface is how it is known.
type originH2 struct {
	o       *origin
	c       *originConn
	conn    *h2Conn
	preface int // bytes of it that are still to come
}

func isPreface(b []byte) bool { return len(b) >= 3 && string(b[:3]) == h2Preface[:3] }

func newOriginH2(o *origin, c *originConn) *originH2 {
	h := &originH2{o: o, c: c, preface: len(h2Preface)}
	h.conn = newH2Conn(h)
	h.conn.greet(settingStreams, 1000, settingWindow, h2Window)
	return h
}

// receive takes what was read, answers what can be answered, and writes it all
// at once. It reports whether the connection is still there.
func (h *originH2) receive(b []byte) bool {
	n := min(h.preface, len(b))
	h.preface -= n
	if err := h.conn.feed(b[n:]); err != nil {
		h.o.bad("HTTP/2", []byte(err.Error()))
		h.o.drop(h.c)
		return false
	}
	return h.flush()
}

func (h *originH2) flush() bool {
	for h.conn.pushHeld(); len(h.conn.out) > 0; h.conn.pushHeld() {
		n, errno := rawWrite(h.c.fd, h.conn.out)
		switch errno {
		case 0:
			h.conn.out = append(h.conn.out[:0], h.conn.out[n:]...)
		case syscall.EINTR:
		case syscall.EAGAIN:
			if !h.c.writing {
				h.c.writing = true
				h.o.poll.mod(h.c.fd, unix.EPOLLIN|unix.EPOLLOUT)
			}
			return true
		default:
			h.o.drop(h.c)
			return false
		}
	}
	if h.c.writing {
		h.c.writing = false
		h.o.poll.mod(h.c.fd, unix.EPOLLIN)
	}
	return true
}

func (h *originH2) headers(id uint32, head *h2Head, end bool) error {
	if s := h.conn.streams[id]; s != nil { // trailers
		if end {
			h.whole(s)
		}
		return nil
	}
	s := h.conn.open(id)
	if head.path == grpcPath {
		s.open, s.tail = true, true
		h.respond(s, 0, "application/grpc", -1)
	} else {
		var ok bool
		if s.target, ok = parsePath([]byte(head.path)); !ok {
			h.o.bad("path", []byte(head.path))
			h.refuse(s)
			return nil
		}
		s.body.left = max(head.length, 0)
		if head.length < 0 {
			s.body.left = maxBody
		}
	}
	if end {
		h.whole(s)
	}
	return nil
}

func (h *originH2) data(id uint32, b []byte, end bool) error {
	s := h.conn.streams[id]
	if s == nil {
		return nil
	}
	h.o.stats.BytesIn += int64(len(b))
	if s.tail {
		if err := h.echo(s, b); err != nil {
			h.o.bad("message", []byte(err.Error()))
			h.refuse(s)
			return nil
		}
	} else if used, _, ok := s.body.read(b, s.target.id); !ok || used != len(b) {
		h.o.bad("body", b)
		h.refuse(s)
		return nil
	}
	if end {
		h.whole(s)
	}
	return nil
}

// echo sends b back.
func (h *originH2) echo(s *h2Stream, b []byte) error {
	err := s.msgs.read(b, func(piece []byte, off, size int) error {
		if off+len(piece) == size {
			h.o.stats.Messages++
		}
		return nil
	})
	if len(s.first) == 0 {
		s.first = s.spare[:0]
	}
	s.first = append(s.first, b...)
	s.spare = s.first
	h.conn.push(s)
	return err
}

// whole is called when a request is.
func (h *originH2) whole(s *h2Stream) {
	if s.tail {
		if !s.msgs.whole() {
			h.o.bad("message", []byte("cut off"))
		}
		h.o.stats.Requests++
		s.open = false
		h.conn.push(s)
	} else {
		if s.body.got != s.target.upload {
			h.o.bad("upload", strconv.AppendInt(nil, int64(s.body.got), 10))
			h.refuse(s)
			return
		}
		h.o.stats.Requests++
		s.off, s.end = 0, s.target.size
		h.respond(s, 0, "application/octet-stream", s.target.size)
		h.conn.push(s)
	}
	// What is still to be sent is held.
	if s.whole = true; s.ended {
		delete(h.conn.streams, s.id)
	}
}

// respond writes the head of a response.
func (h *originH2) respond(s *h2Stream, flags byte, contentType string, length int) {
	c := h.conn
	at := c.beginHead(s.id, flags)
	c.out = append(c.out, 0x88) // :status 200
	c.out = c.enc.fixed(c.out, 54, "server", "origin")
	c.out = c.enc.once(c.out, 33, "date", h.o.today())
	c.out = c.enc.fixed(c.out, 31, "content-type", contentType)
	if length >= 0 {
		c.out = c.enc.once(c.out, 28, "content-length", strconv.Itoa(length))
	}
	c.endHead(at)
}

// appendTrailers ends a call well.
func appendTrailers(c *h2Conn, id uint32) {
	at := c.beginHead(id, flagEnd)
	c.out = c.enc.fixed(c.out, 0, "grpc-status", "0")
	c.endHead(at)
}

// refuse resets a stream.
func (h *originH2) refuse(s *h2Stream) {
	h.conn.forget(s)
	h.conn.out = append(appendFrame(h.conn.out, 4, frameReset, 0, s.id), 0, 0, 0, 1)
}

func (h *originH2) reset(id uint32, code uint32) error {
	if s := h.conn.streams[id]; s != nil {
		h.o.bad("reset", strconv.AppendUint([]byte("code "), uint64(code), 10))
		h.conn.forget(s)
	}
	return nil
}
