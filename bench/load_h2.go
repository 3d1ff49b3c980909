//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// h2Link is one HTTP/2 connection of the load generator. Its streams are
// loadConns.
type h2Link struct {
	l       *loader
	fd      int // -1: not connected
	pipe    *tlsPipe
	conn    *h2Conn
	nextID  uint32
	writing bool // armed for EPOLLOUT
	dirty   bool // in loader.dirty
	off     int  // of what is to be written: what is
}

func (k *h2Link) connect() error {
	fd, err := dialFD(k.l.to)
	if err != nil {
		return err
	}
	k.pipe = nil
	if k.l.spec.tls != nil {
		if k.pipe, err = handshake(fd, k.l.spec.tls, k.l.config); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("handshake: %w", err)
		}
	}
	k.fd, k.writing, k.off, k.nextID = fd, false, 0, 1
	k.conn = newH2Conn(k)
	k.conn.out = append(k.conn.out, h2Preface...)
	k.conn.greet(settingPush, 0, settingWindow, h2Window)
	k.l.watch(fd, k)
	k.touch()
	return nil
}

func (k *h2Link) hangUp() {
	if k.fd >= 0 {
		k.l.byFD[k.fd] = nil
		_ = unix.Close(k.fd)
		k.fd = -1
	}
}

// fail counts an error for every request on the connection, which is not used
// again.
func (k *h2Link) fail(why string) {
	k.hangUp()
	streams := k.conn.streams
	k.conn.streams = map[uint32]*h2Stream{}
	for _, s := range streams {
		k.l.fail(s.slot, why)
	}
}

// touch sees to it that the connection is written before the loop sleeps: all
// requests of a turn go out together.
func (k *h2Link) touch() {
	if !k.dirty {
		k.dirty = true
		k.l.dirty = append(k.l.dirty, k)
	}
}

func (l *loader) flushLinks() {
	for _, k := range l.dirty {
		k.dirty = false
		if k.fd >= 0 {
			k.flush()
		}
	}
	l.dirty = l.dirty[:0]
}

// send starts the request of c.
func (k *h2Link) send(c *loadConn) {
	if k.fd < 0 {
		if err := k.connect(); err != nil {
			k.l.fail(c, err.Error())
			return
		}
	}
	if k.conn.leaving {
		k.l.fail(c, "GOAWAY")
		return
	}
	s := k.conn.open(k.nextID)
	k.nextID += 2
	s.slot, s.target, c.stream = c, c.target, s
	switch {
	case k.l.spec.messages > 0:
		k.head(s, grpcPath, -1)
		s.open = true
		k.message(c)
	case c.target.upload > 0:
		k.head(s, string(c.target.appendPath(c.head[:0])), c.target.upload)
		s.end = c.target.upload
		k.conn.push(s)
	default:
		s.ended = true
		k.head(s, string(c.target.appendPath(c.head[:0])), 0)
	}
	k.touch()
}

// head writes a request's head. length is that of the body: 0 for none, -1 for
// a call of gRPC.
func (k *h2Link) head(s *h2Stream, path string, length int) {
	c := k.conn
	var flags byte
	method := byte(0x83) // POST
	if length == 0 {
		flags, method = flagEnd, 0x82 // GET
	}
	at := c.beginHead(s.id, flags)
	scheme := byte(0x86) // http
	if k.pipe != nil {
		scheme = 0x87 // https
	}
	c.out = append(c.out, method, scheme)
	if length < 0 {
		c.out = c.enc.fixed(c.out, 4, ":path", path)
	} else {
		c.out = c.enc.once(c.out, 4, ":path", path)
	}
	c.out = c.enc.fixed(c.out, 1, ":authority", serverName)
	c.out = c.enc.fixed(c.out, 58, "user-agent", "bench")
	switch {
	case length < 0:
		c.out = c.enc.fixed(c.out, 31, "content-type", "application/grpc")
		c.out = c.enc.fixed(c.out, 0, "te", "trailers")
	case length > 0:
		c.out = c.enc.fixed(c.out, 31, "content-type", "application/octet-stream")
		c.out = c.enc.once(c.out, 28, "content-length", strconv.Itoa(length))
		fallthrough
	default:
		c.out = c.enc.fixed(c.out, 19, "accept", "*/*")
	}
	c.endHead(at)
}

// message sends the next message of a call.
func (k *h2Link) message(c *loadConn) {
	s, size := c.stream, c.target.size
	c.sent++
	c.got = 0
	s.open = c.sent < k.l.spec.messages
	if len(s.first) == 0 {
		s.first = s.spare[:0]
	}
	s.first = appendBody(appendMessageHead(s.first, size), c.target.id, 0, size)
	s.spare = s.first
	k.conn.push(s)
	k.touch()
}

// pending moves the next bytes into what the socket gets, and returns it.
func (k *h2Link) pending() []byte {
	c := k.conn
	if k.pipe == nil {
		c.pushHeld()
		return c.out
	}
	if len(k.pipe.out) == 0 {
		if c.pushHeld(); len(c.out) > 0 {
			_ = k.pipe.encrypt(c.out) // if the pipe is broken, the next read says so
			c.out = c.out[:0]
		}
	}
	return k.pipe.out
}

func (k *h2Link) written() {
	k.off = 0
	if k.pipe == nil {
		k.conn.out = k.conn.out[:0]
	} else {
		k.pipe.out = k.pipe.out[:0]
	}
}

func (k *h2Link) flush() {
	for out := k.pending(); len(out) > 0; out = k.pending() {
		n, errno := rawWrite(k.fd, out[k.off:])
		switch errno {
		case 0:
			if k.off += n; k.off == len(out) {
				k.written()
			}
		case syscall.EINTR:
		case syscall.EAGAIN:
			if !k.writing {
				k.writing = true
				k.l.poll.mod(k.fd, unix.EPOLLIN|unix.EPOLLOUT)
			}
			return
		default:
			k.fail("write: " + errno.Error())
			return
		}
	}
	if k.writing {
		k.writing = false
		k.l.poll.mod(k.fd, unix.EPOLLIN)
	}
}

func (k *h2Link) serve(l *loader, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		k.flush()
	}
	if k.fd < 0 || events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	n, errno := rawRead(k.fd, l.buf)
	if errno == syscall.EAGAIN || errno == syscall.EINTR {
		return
	}
	if errno != 0 {
		k.fail("read: " + errno.Error())
		return
	}
	if n == 0 {
		k.fail("early end")
		return
	}
	data := l.buf[:n]
	var err error
	if k.pipe != nil {
		l.plain, err = k.pipe.decrypt(l.plain[:0], data)
		data = l.plain
	}
	if l.counts {
		l.res.bytes += int64(n)
	}
	if fed := k.conn.feed(data); fed != nil {
		err = fed
	}
	switch {
	case errors.Is(err, io.EOF):
		k.fail("early end")
	case err != nil:
		k.fail("HTTP/2: " + err.Error())
	case k.conn.leaving && len(k.conn.streams) == 0:
		k.hangUp()
	default:
		k.touch()
	}
}

var errUnasked = errors.New("answer to no request")

func (k *h2Link) headers(id uint32, h *h2Head, end bool) error {
	s := k.conn.streams[id]
	if s == nil {
		return errUnasked
	}
	c := s.slot
	grpc := k.l.spec.messages > 0
	switch {
	case len(h.status) == 3 && h.status[0] == '1' && !end:
		return nil
	case !c.inBody && h.status != "200":
		k.end(s, fmt.Sprintf("status %.20q", h.status))
		return nil
	case !c.inBody && !grpc && h.length >= 0 && h.length != c.target.size:
		k.end(s, "wrong length")
		return nil
	}
	c.inBody = true
	if !end {
		return nil
	}
	if grpc && h.grpcStatus != "0" {
		k.end(s, fmt.Sprintf("grpc-status %.20q", h.grpcStatus))
	} else {
		k.ended(s)
	}
	return nil
}

func (k *h2Link) data(id uint32, b []byte, end bool) error {
	s := k.conn.streams[id]
	if s == nil {
		return errUnasked
	}
	c := s.slot
	if k.l.spec.messages > 0 {
		if problem := k.answer(s, b); problem != "" {
			k.end(s, problem)
		} else if end {
			k.end(s, "no grpc-status")
		}
		return nil
	}
	switch {
	case !c.inBody:
		k.end(s, "body before head")
	case len(b) > c.target.size-c.got:
		k.end(s, "too many bytes")
	case !checkBody(c.target.id, c.got, b):
		k.end(s, "another request's body")
	default:
		if c.got += len(b); end {
			k.ended(s)
		}
	}
	return nil
}

// answer takes bytes of messages, and sends the next message behind the end of
// one. It returns what is wrong with them.
func (k *h2Link) answer(s *h2Stream, b []byte) (problem string) {
	c := s.slot
	err := s.msgs.read(b, func(piece []byte, off, size int) error {
		if size != c.target.size || off != c.got || !checkBody(c.target.id, off, piece) {
			return errors.New("another call's message")
		}
		if c.got += len(piece); c.got < size {
			return nil
		}
		k.l.count(c)
		if c.sent < k.l.spec.messages {
			c.due = k.l.now
			k.message(c)
		}
		return nil
	})
	if err != nil {
		return err.Error()
	}
	return ""
}

// ended is called at the end of a response.
func (k *h2Link) ended(s *h2Stream) {
	switch c := s.slot; {
	case c.got != c.target.size:
		k.end(s, "cut off")
	case k.l.spec.messages > 0 && c.sent != k.l.spec.messages:
		k.end(s, "early end of the call")
	default:
		k.end(s, "")
	}
}

// end gives the stream's place to the next request. why is what was wrong, or
// empty.
func (k *h2Link) end(s *h2Stream, why string) {
	if !s.ended {
		// The answer came before the request was sent: take it back.
		k.conn.out = append(appendFrame(k.conn.out, 4, frameReset, 0, s.id), 0, 0, 0, 8)
		k.touch()
	}
	k.conn.forget(s)
	c := s.slot
	switch {
	case why != "":
		k.l.fail(c, why)
	case k.l.spec.messages > 0:
		k.l.release(c)
	default:
		k.l.finish(c)
	}
}

func (k *h2Link) reset(id uint32, code uint32) error {
	if s := k.conn.streams[id]; s != nil {
		k.end(s, fmt.Sprintf("reset with code %d", code))
	}
	return nil
}
