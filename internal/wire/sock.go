package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
)

// ErrCut says that a TLS connection ended without saying so: whoever is on the
// way may have cut it. It is an io.EOF too.
//
// RFC 9112, section 9.8: a closure without an alert is an incomplete one.
var ErrCut error = cutError{}

type cutError struct{}

func (cutError) Error() string        { return "the TLS connection ended without a closure alert" }
func (cutError) Is(target error) bool { return target == io.EOF }

// errNotNow says that nothing has come yet. That it is temporary keeps
// crypto/tls from taking it for the end of the connection.
var errNotNow net.Error = notNowError{}

type notNowError struct{}

func (notNowError) Error() string   { return "wire: nothing has come yet" }
func (notNowError) Timeout() bool   { return false }
func (notNowError) Temporary() bool { return true }

// Sock is a connection as a TLS connection of ours has it below itself. It
// keeps handshakes from crowding out requests, and lets a Conn over the TLS
// connection wait as one over a plain connection does: without a buffer, on the
// descriptor.
//
// The TLS connection must have been made by tls.Server or tls.Client over the
// Sock, and its handshake by Handshake; then New takes it.
type Sock struct {
	net.Conn

	// Owned by the goroutine of the handshake.
	shaking bool

	// Set by New, cleared by Detach.
	c *Conn

	last atomic.Bool // Close was called: what is written now is an alert

	// Owned by the reading goroutine.
	fd    uintptr // during a read from within a call of the runtime's
	hasFD bool
	now   bool // during a read that must not wait
	ended bool // the other end has closed its sending side
	more  bool // the last read got all that it asked for
}

// NewSock returns the Sock over nc, which it owns from now on.
func NewSock(nc net.Conn) *Sock { return &Sock{Conn: nc} }

// NetConn returns the connection below.
func (s *Sock) NetConn() net.Conn { return s.Conn }

// turns are how many handshakes may compute at the same time, in the whole
// process: what they compete for is its CPUs. A handshake takes as much CPU as
// many requests. When a thousand clients come at once, as after a restart of
// whatever is in front, all would be ready to run, and each request on an
// established connection would wait until all had had their time. With turns it
// waits for as many as there are CPUs. A turn is held while a handshake computes,
// and never while it waits for the other end, who could wait for ever.
var turns = make(chan struct{}, runtime.GOMAXPROCS(0))

func takeTurn() {
	select {
	case turns <- struct{}{}:
		return
	default:
	}
	turns <- struct{}{}
	// Who gave the turn to us also put us before all that is ready to run; a row
	// of handshakes would run without end. Requests go first.
	runtime.Gosched()
}

func giveTurn() { <-turns }

// Handshake does the handshake of tc, which is over s.
func (s *Sock) Handshake(ctx context.Context, tc *tls.Conn) error {
	s.shaking = true
	takeTurn()
	defer func() {
		giveTurn()
		s.shaking = false
	}()
	return tc.HandshakeContext(ctx)
}

// Aside runs a part of a handshake that may wait for others.
func (s *Sock) Aside(f func()) {
	if !s.shaking {
		f()
		return
	}
	giveTurn()
	defer takeTurn()
	f()
}

// Read implements net.Conn for the TLS connection.
func (s *Sock) Read(p []byte) (n int, err error) {
	switch {
	case s.now:
		n, err = s.readNow(p)
		s.more = n == len(p)
	case s.shaking:
		giveTurn()
		defer takeTurn()
		n, err = s.Conn.Read(p)
	default:
		n, err = s.Conn.Read(p)
	}
	if err == io.EOF {
		s.ended = true
	}
	return n, err
}

// Write implements net.Conn for the TLS connection.
func (s *Sock) Write(p []byte) (int, error) {
	switch {
	case s.shaking:
		// The other end may not read.
		giveTurn()
		defer takeTurn()
	case s.c != nil && !s.last.Load():
		return s.c.writeRaw(p)
	case s.c != nil && s.c.sys.ok():
		return s.c.writeNow(p)
	case s.c != nil:
		_ = s.Conn.SetWriteDeadline(time.Now().Add(lastAlertTime))
	}
	return s.Conn.Write(p)
}

// lastAlertTime bounds the alert that ends a connection without a descriptor.
const lastAlertTime = 20 * time.Millisecond

// SetWriteDeadline implements net.Conn for the TLS connection, which bounds its
// alerts by it; those of a Conn are bounded as all that it writes.
func (s *Sock) SetWriteDeadline(at time.Time) error {
	if s.c != nil && s.c.sys.ok() {
		return nil
	}
	return s.Conn.SetWriteDeadline(at)
}

// CloseWrite ends the sending direction of the connection below.
func (s *Sock) CloseWrite() error {
	if h, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// adopt makes c one over a TLS connection of ours, if it is.
func (c *Conn) adopt() {
	tc, ok := c.nc.(*tls.Conn)
	if !ok {
		return
	}
	if s, ok := tc.NetConn().(*Sock); ok {
		c.tls, c.sock, c.low = tc, s, s.Conn
		s.c = c
	} else {
		c.foreignTLS = true
	}
}

// readTLS reads what has come without waiting, into b. The error errNotNow means
// nothing.
func (c *Conn) readTLS(b []byte) (int, error) {
	s := c.sock
	s.now = true
	n, err := c.tls.Read(b)
	s.now = false
	switch {
	case n > 0:
		return n, nil // the error comes again
	case err == io.EOF && s.ended:
		return 0, ErrCut
	case errors.Is(err, errNotNow):
		return 0, errNotNow
	}
	return 0, err
}

// strayTLS is Stray. What has come is kept in the buffer.
func (c *Conn) strayTLS() error {
	had := c.b != nil
	if !had {
		c.useBuffer(buf.Small)
	}
	c.r = 0
	n, err := c.readTLS(c.b)
	c.w = n
	switch {
	case n > 0:
		c.nRead.Add(int64(n))
		return ErrStray
	case !had:
		c.dropBuffer()
	}
	if err == errNotNow {
		return nil
	}
	return err
}

// writeRaw sends the bytes of the TLS connection, wait by wait. crypto/tls takes
// any error of it for the end of the connection.
func (c *Conn) writeRaw(p []byte) (sent int, err error) {
	for sent < len(p) {
		var n int
		armed := true
		if c.sys.ok() {
			armed, n, err = c.sys.write(p[sent:], nil, nil)
		} else {
			c.armWrite()
			n, err = c.sock.Conn.Write(p[sent:])
		}
		sent += n
		if armed || err != nil {
			err = c.endWriteWait(armed, n, err)
		}
		switch {
		case err == errAgain:
		case c.wRate.TooSlow() && (err == nil || err == ErrTimeout):
			return sent, ErrTooSlow
		case err == ErrTimeout && n > 0: // see Writev
		case err != nil:
			return sent, err
		}
	}
	return sent, nil
}

// writeTLS is Writev. It makes as few records as it can.
func (c *Conn) writeTLS(a, b, d []byte) (sent int, err error) {
	// A write that was interrupted before it began must not break the connection.
	if err := c.interruption(&c.wCause); err != nil {
		return 0, err
	}
	for sent < len(a)+len(b)+len(d) && err == nil {
		p, mem := gather(skip(a, b, d, sent))
		var n int
		n, err = c.tls.Write(p)
		if mem != nil {
			mem.Free()
		}
		sent += n
		c.nSent.Add(int64(n))
	}
	return sent, err
}

// readNowPortable is readNow for a connection without a descriptor that can say
// whether there is something to read; another never has anything.
func (s *Sock) readNowPortable(p []byte) (int, error) {
	q, ok := s.Conn.(interface{ Stray() error })
	if !ok {
		return 0, errNotNow
	}
	switch err := q.Stray(); err {
	case nil:
		return 0, errNotNow
	case io.EOF:
		return 0, err
	}
	return s.Conn.Read(p)
}
