//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// originStats is what the origin has seen since it started.
type originStats struct {
	Requests      int64 `json:"requests"`
	Messages      int64 `json:"messages"` // of gRPC
	Connections   int64 `json:"connections"`
	H1Connections int64 `json:"h1_connections"` // that had a request
	H2Connections int64 `json:"h2_connections"`
	Open          int64 `json:"open"`
	BytesIn       int64 `json:"bytes_in"`
	Bad           int64 `json:"bad"` // requests that no proxy should have sent so
	FirstBad      string
}

// origin is the fixed answer behind every proxy.
type origin struct {
	poll    *poller
	listen  int
	control int
	idle    time.Duration // connections idle for so long are closed; 0: never
	conns   []*originConn // by descriptor
	late    delayQueue
	stats   originStats
	now     int64 // nanoseconds, of this turn of the loop
	started time.Time
	date    string
	dateAt  int64
	buf     []byte
	head    []byte
}

// originConn is one connection. Its requests are answered one after another.
type originConn struct {
	fd      int
	control bool
	h1      bool      // HTTP/1 came
	h2      *originH2 // nil: none came
	in      []byte    // what was read and not yet understood
	req     target
	inBody  bool
	body    bodyReader
	busy    bool   // a response is owed or half written
	head    []byte // of the response: what is not yet written
	off     int    // of the response's body: what is not yet written
	end     int
	close   bool
	writing bool // armed for EPOLLOUT
	last    int64
	gen     uint32
}

// runOrigin serves until the process is ended. It writes its two addresses
// (for proxies, for the harness) to w as one line.
func runOrigin(w io.Writer, idle time.Duration) error {
	runtime.LockOSThread()
	o := &origin{idle: idle, buf: make([]byte, 256<<10), started: time.Now()}
	var err error
	if o.poll, err = newPoller(); err != nil {
		return err
	}
	var addr, control string
	if o.listen, addr, err = listenFD(); err != nil {
		return err
	}
	if o.control, control, err = listenFD(); err != nil {
		return err
	}
	for _, fd := range []int{o.listen, o.control} {
		if err := o.poll.add(fd, unix.EPOLLIN); err != nil {
			return fmt.Errorf("watch a listener: %w", err)
		}
	}
	fmt.Fprintln(w, addr, control)
	o.loop()
	return nil
}

func (o *origin) loop() {
	sweep := int64(0)
	for {
		events := o.poll.wait(o.patience())
		o.now = int64(time.Since(o.started))
		for i := range events {
			fd := int(events[i].Fd)
			switch {
			case fd == o.listen || fd == o.control:
				o.accept(fd)
			case fd < len(o.conns) && o.conns[fd] != nil:
				o.serve(o.conns[fd], events[i].Events)
			}
		}
		for c := o.late.pop(o.now); c != nil; c = o.late.pop(o.now) {
			o.answer(c)
		}
		if o.idle > 0 && o.now-sweep > int64(100*time.Millisecond) {
			sweep = o.now
			o.closeIdle()
		}
	}
}

// patience is how long the loop may sleep.
func (o *origin) patience() time.Duration {
	d := time.Duration(-1)
	if due, ok := o.late.next(); ok {
		d = max(0, time.Duration(due-int64(time.Since(o.started))))
	}
	if o.idle > 0 && (d < 0 || d > 100*time.Millisecond) {
		d = 100 * time.Millisecond
	}
	return d
}

func (o *origin) accept(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		for fd >= len(o.conns) {
			o.conns = append(o.conns, make([]*originConn, 1024)...)
		}
		c := &originConn{fd: fd, control: listener == o.control, last: o.now}
		o.conns[fd] = c
		if !c.control {
			o.stats.Connections++
			o.stats.Open++
		}
		if o.poll.add(fd, unix.EPOLLIN) != nil {
			o.drop(c)
		}
	}
}

func (o *origin) drop(c *originConn) {
	_ = unix.Close(c.fd)
	o.conns[c.fd] = nil
	c.gen++ // a late answer to it is void
	if !c.control {
		o.stats.Open--
	}
}

func (o *origin) closeIdle() {
	for _, c := range o.conns {
		if c != nil && c.h2 == nil && !c.busy && !c.inBody && len(c.in) == 0 && !c.control && o.now-c.last > int64(o.idle) {
			o.drop(c)
		}
	}
}

func (o *origin) serve(c *originConn, events uint32) {
	if events&unix.EPOLLOUT != 0 && !o.goOn(c) {
		return
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	n, errno := rawRead(c.fd, o.buf)
	if errno == syscall.EAGAIN || errno == syscall.EINTR {
		return
	}
	if errno != 0 || n == 0 {
		o.drop(c)
		return
	}
	c.last = o.now
	data := o.buf[:n]
	if !c.h1 && c.h2 == nil {
		o.begin(c, data)
	}
	if c.h2 != nil {
		c.h2.receive(data)
		return
	}
	if len(c.in) > 0 || c.busy {
		c.in = append(c.in, data...)
		if c.busy {
			return
		}
		data, c.in = c.in, nil
	}
	o.consume(c, data)
}

// begin finds out what c speaks.
func (o *origin) begin(c *originConn, data []byte) {
	switch {
	case isPreface(data):
		c.h2 = newOriginH2(o, c)
		o.stats.H2Connections++
	default:
		c.h1 = true
		if !c.control {
			o.stats.H1Connections++
		}
	}
}

// goOn writes what had to wait.
func (o *origin) goOn(c *originConn) bool {
	if c.h2 != nil {
		return c.h2.flush()
	}
	return o.flush(c)
}

// consume takes requests out of data, as far as they can be answered at once.
func (o *origin) consume(c *originConn, data []byte) {
	for !c.busy && (c.inBody || len(data) > 0) {
		if !c.inBody {
			i := bytes.Index(data, []byte("\r\n\r\n"))
			if i < 0 {
				break
			}
			if c.control {
				o.report(c)
				return
			}
			if !o.readHead(c, data[:i+2]) {
				o.drop(c)
				return
			}
			data = data[i+4:]
		}
		used, done, ok := c.body.read(data, c.req.id)
		o.stats.BytesIn += int64(used)
		if !ok {
			o.bad("body", data)
			o.drop(c)
			return
		}
		data = data[used:]
		if !done {
			break
		}
		if !o.finish(c) {
			return
		}
	}
	c.in = append(c.in[:0], data...)
}

// readHead understands a head, which ends in an empty line that is cut off.
func (o *origin) readHead(c *originConn, head []byte) bool {
	line, rest := cutLine(head)
	parts := bytes.SplitN(line, []byte{' '}, 3)
	if len(parts) != 3 {
		o.bad("request line", line)
		return false
	}
	var ok bool
	if c.req, ok = parsePath(parts[1]); !ok {
		o.bad("path", line)
		return false
	}
	c.body = bodyReader{}
	c.close = bytes.Equal(parts[2], []byte("HTTP/1.0"))
	for len(rest) > 0 {
		line, rest = cutLine(rest)
		if len(line) == 0 {
			continue
		}
		switch line[0] | 0x20 {
		case 'c':
			if v, ok := field(line, "content-length"); ok {
				c.body.left, _ = parseSize(v)
			} else if v, ok := field(line, "connection"); ok && len(v) > 0 {
				c.close = v[0]|0x20 == 'c'
			}
		case 't':
			if _, ok := field(line, "transfer-encoding"); ok {
				c.body.chunked = true
			}
		}
	}
	c.inBody = true
	return true
}

// finish is called when a request is whole. It reports whether the connection
// is still there.
func (o *origin) finish(c *originConn) bool {
	c.inBody, c.busy = false, true
	if c.body.got != c.req.upload {
		o.bad("upload", strconv.AppendInt(nil, int64(c.body.got), 10))
		o.drop(c)
		return false
	}
	o.stats.Requests++
	if c.req.delayMS > 0 {
		o.late.push(o.now+int64(c.req.delayMS)*int64(time.Millisecond), c)
		return true
	}
	return o.answer(c)
}

// small is the longest body that is copied behind its head to go out in one
// plain write.
const small = 4096

func (o *origin) answer(c *originConn) bool {
	b := append(o.head[:0], "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: "...)
	b = append(b, o.today()...)
	b = append(b, "\r\nContent-Type: application/octet-stream\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(c.req.size), 10)
	if c.close {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\n\r\n"...)
	b = appendID(b, c.req.id)
	c.off, c.end = idLen, c.req.size
	if c.req.size <= small {
		b = append(b, bodyBytes(c.req.id, c.off, c.end)...)
		c.off = c.end
	}
	o.head = b[:0]
	c.head = b
	return o.flush(c)
}

// flush writes what can be written. It reports whether the connection is still
// there.
func (o *origin) flush(c *originConn) bool {
	for len(c.head) > 0 || c.off < c.end {
		n, errno := rawSend(c.fd, c.head, bodyBytes(c.req.id, c.off, c.end))
		if errno == syscall.EINTR {
			continue
		}
		if errno == syscall.EAGAIN {
			c.head = bytes.Clone(c.head) // the buffer is for all connections
			if !c.writing {
				c.writing = true
				o.poll.mod(c.fd, unix.EPOLLIN|unix.EPOLLOUT)
			}
			return true
		}
		if errno != 0 {
			o.drop(c)
			return false
		}
		h := min(n, len(c.head))
		c.head = c.head[h:]
		c.off += n - h
	}
	if c.writing {
		c.writing = false
		o.poll.mod(c.fd, unix.EPOLLIN)
	}
	c.busy, c.head, c.last = false, nil, o.now
	if c.close {
		o.drop(c)
		return false
	}
	if len(c.in) > 0 {
		data := c.in
		c.in = nil
		o.consume(c, data)
	}
	return true
}

// report answers the harness.
func (o *origin) report(c *originConn) {
	body, _ := json.Marshal(o.stats)
	_, _ = rawWrite(c.fd, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body))
	o.drop(c)
}

func (o *origin) bad(what string, b []byte) {
	o.stats.Bad++
	if o.stats.FirstBad == "" {
		o.stats.FirstBad = fmt.Sprintf("%s: %.200q", what, b)
	}
}

// today is the Date field's value. An origin that sends none makes some proxies
// add one, which would be work that others do not do.
func (o *origin) today() string {
	if second := o.now / int64(time.Second); o.date == "" || second != o.dateAt {
		o.dateAt = second
		o.date = time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	}
	return o.date
}
