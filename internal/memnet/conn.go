// Package memnet is a network in memory: connections with bounded buffers,
// deadlines, half-close and reset that behave as TCP on Linux does, and faults
// on demand. It has no sockets and no goroutines of its own, and it waits only
// on sync.Cond, so that tests of it run on the fake time of testing/synctest.
package memnet

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// defaultBuffer is how many bytes one direction holds before a writer waits.
const defaultBuffer = 64 << 10

// errStray is what Stray returns when unread bytes wait.
var errStray = errors.New("memnet: there are unread bytes")

// Conn is one end of a connection. All methods are for any goroutine.
type Conn struct {
	// Immutable after pipe.
	other         *Conn
	in, out       *stream
	local, remote *net.TCPAddr
	onClose       func()

	// mu is the same for both ends and guards all that follows, and in and out.
	mu     *sync.Mutex
	closed bool // this end was closed
	reset  bool // a reset came from the other end
}

// stream is one direction. It is guarded by mu of its ends.
type stream struct {
	cond  *sync.Cond // for those who wait to read, and to write
	b     []byte     // what was written and not read
	ready int        // how much of b has arrived
	late  []segment  // the rest, in order
	fin   bool       // the writing end has closed its side
	finIn bool       // and that has arrived

	max   int           // bound of b
	chunk int           // bound of one read; 0: none
	delay time.Duration // how long bytes are on their way

	read, write deadline
}

// segment is a piece on its way. One of no length is the end.
type segment struct {
	at time.Time
	n  int
}

// deadline ends the waits of one direction.
type deadline struct {
	timer  *time.Timer
	passed bool
	turn   int // counts changes, so that a timer that was too late to stop does nothing
}

// Pipe returns the two ends of a new connection. Each has made-up addresses, as
// if a had dialed b.
func Pipe() (a, b *Conn) {
	return pipe(&net.TCPAddr{IP: clientIP, Port: firstPort}, &net.TCPAddr{IP: serverIP, Port: 80})
}

func pipe(client, server *net.TCPAddr) (a, b *Conn) {
	mu := &sync.Mutex{}
	up := &stream{cond: sync.NewCond(mu), max: defaultBuffer}
	down := &stream{cond: sync.NewCond(mu), max: defaultBuffer}
	a = &Conn{mu: mu, in: down, out: up, local: client, remote: server}
	b = &Conn{mu: mu, in: up, out: down, local: server, remote: client}
	a.other, b.other = b, a
	return a, b
}

// LocalAddr returns the address of this end, a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the other end, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetBuffer bounds what this end may have written that the other has not read,
// in bytes; a writer waits beyond it. If zero or negative, it is 64 KiB.
func (c *Conn) SetBuffer(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n <= 0 {
		n = defaultBuffer
	}
	c.out.max = n
	c.out.cond.Broadcast()
}

// SetChunk makes each read of the other end return at most n bytes, however
// many were written. If zero or negative, there is no such bound.
func (c *Conn) SetChunk(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.chunk = max(n, 0)
}

// SetDelay makes what this end writes from now on, its end included, arrive d
// later. If zero or negative, it arrives at once.
func (c *Conn) SetDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.delay = max(d, 0)
}

// Read implements net.Conn. What arrived before a reset is still returned.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.in
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case s.read.passed:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		s.arrive()
		switch {
		case s.ready > 0:
			return s.take(p), nil
		case s.finIn:
			return 0, io.EOF
		case c.reset:
			return 0, c.opError("read", syscall.ECONNRESET)
		}
		s.cond.Wait()
	}
}

// take moves what may be read now to p.
func (s *stream) take(p []byte) int {
	n := min(len(p), s.ready)
	if s.chunk > 0 {
		n = min(n, s.chunk)
	}
	n = copy(p, s.b[:n])
	s.ready -= n
	s.b = s.b[:copy(s.b, s.b[n:])]
	s.cond.Broadcast()
	return n
}

// arrive notes what has come to the reading end by now.
func (s *stream) arrive() {
	if len(s.late) == 0 {
		return
	}
	now := time.Now()
	for len(s.late) > 0 && !s.late[0].at.After(now) {
		if s.late[0].n == 0 {
			s.finIn = true
		}
		s.ready += s.late[0].n
		s.late = s.late[1:]
	}
}

// Write implements net.Conn: it returns when all bytes are in the buffer. As
// with TCP, bytes to an end that was closed vanish without an error, and make
// that end answer with a reset.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, n := c.out, 0
	for {
		switch {
		case c.closed:
			return n, c.opError("write", net.ErrClosed)
		case s.write.passed:
			return n, c.opError("write", os.ErrDeadlineExceeded)
		case s.fin:
			return n, c.opError("write", syscall.EPIPE)
		case c.reset:
			return n, c.opError("write", syscall.ECONNRESET)
		case n == len(p):
			return n, nil
		case c.other.closed:
			c.resetLocked()
			return len(p), nil
		}
		if k := min(len(p)-n, s.max-len(s.b)); k > 0 {
			s.b = append(s.b, p[n:n+k]...)
			s.send(k)
			n += k
			continue
		}
		s.cond.Wait()
	}
}

// send puts n written bytes, or the end for 0, on their way.
func (s *stream) send(n int) {
	if s.delay == 0 && len(s.late) == 0 {
		s.ready += n
		if n == 0 {
			s.finIn = true
		}
		s.cond.Broadcast()
		return
	}
	at := time.Now().Add(s.delay)
	s.late = append(s.late, segment{at, n}) // arrive takes them in order: none overtakes
	time.AfterFunc(s.delay, func() {
		s.cond.L.Lock()
		defer s.cond.L.Unlock()
		s.arrive()
		s.cond.Broadcast()
	})
}

// resetLocked is a reset coming to c.
func (c *Conn) resetLocked() {
	c.in.arrive()
	c.reset = true
	c.in.late = nil // what was on its way is lost
	c.in.cond.Broadcast()
	c.out.cond.Broadcast()
}

// CloseWrite ends the sending direction; the other end reads io.EOF after what
// was written.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return c.opError("close", net.ErrClosed)
	case c.reset:
		return c.opError("close", syscall.ENOTCONN)
	}
	c.finish()
	return nil
}

func (c *Conn) finish() {
	if !c.out.fin {
		c.out.fin = true
		c.out.send(0)
		c.out.cond.Broadcast() // for a writer of this end
	}
}

// Close ends the connection. With unread input the other end gets a reset, as
// from a TCP socket, else io.EOF after what was written.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.close(len(c.in.b) > 0)
}

// Reset ends the connection with a reset: the other end's reads and writes fail
// with ECONNRESET, after it has read what had arrived.
func (c *Conn) Reset() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.close(true)
}

func (c *Conn) close(reset bool) error {
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	c.in.read.set(c.in, time.Time{})
	c.out.write.set(c.out, time.Time{})
	if reset && !c.other.closed {
		c.other.resetLocked()
	} else {
		c.finish()
	}
	c.in.b, c.in.ready, c.in.late = nil, 0, nil
	c.in.cond.Broadcast()
	c.out.cond.Broadcast()
	if c.onClose != nil {
		c.onClose()
	}
	return nil
}

// PeerClosed reports whether the other end has closed its sending side, or
// reset, whether or not there are bytes to read before.
func (c *Conn) PeerClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.arrive()
	return c.in.finIn || c.reset
}

// Stray looks, without waiting, whether the connection is quiet: it returns nil
// if so, io.EOF when the other end has closed, and another error when there are
// unread bytes or the connection was reset.
func (c *Conn) Stray() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.arrive()
	switch {
	case c.closed:
		return c.opError("read", net.ErrClosed)
	case c.in.ready > 0:
		return errStray
	case c.in.finIn:
		return io.EOF
	case c.reset:
		return c.opError("read", syscall.ECONNRESET)
	}
	return nil
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in.read, c.in, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.out.write, c.out, t) }

func (c *Conn) setDeadline(d *deadline, s *stream, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	d.set(s, t)
	return nil
}

// set is called with the lock held.
func (d *deadline) set(s *stream, t time.Time) {
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.passed = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		s.cond.Broadcast()
		return
	}
	turn := d.turn
	d.timer = time.AfterFunc(wait, func() {
		s.cond.L.Lock()
		defer s.cond.L.Unlock()
		if d.turn == turn {
			d.passed = true
			s.cond.Broadcast()
		}
	})
}

// opError is an error of the kind that the net package returns.
func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

var _ net.Conn = (*Conn)(nil)
