package wire

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// readNow reads what the socket has, from within a call of the runtime's.
func (s *Sock) readNow(p []byte) (int, error) {
	if !s.hasFD {
		return s.readNowPortable(p)
	}
	n, errno := recv(s.fd, p, 0)
	switch {
	case errno == syscall.EAGAIN:
		return 0, errNotNow
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// writeNow sends an alert if there is room for it: who closes a connection does
// not wait for an end that does not read.
func (c *Conn) writeNow(p []byte) (int, error) {
	n, err := 0, error(errNotNow)
	werr := c.sys.raw.Write(func(fd uintptr) bool {
		var vec [3]unix.Iovec
		var errno syscall.Errno
		if n, errno = sendAll(fd, [][]byte{p}, &vec, 0); errno == 0 {
			err = nil
		}
		return true
	})
	return n, errors.Join(werr, err)
}

// tryReadTLS is tryRead for a TLS connection: each read of it is a read of the
// descriptor that does not wait, so that this function's result tells the runtime
// to.
func (s *sysConn) tryReadTLS(fd uintptr) bool {
	c := s.c
	c.sock.fd, c.sock.hasFD = fd, true
	defer func() { c.sock.hasFD = false }()
	switch s.op {
	case opFill:
		n, err := c.readTLS(c.b[c.w:])
		return s.gotTLS(n, err)
	case opIdle:
		if c.b == nil {
			c.useBuffer(c.class())
		}
		n, err := c.readTLS(c.b)
		if err == errNotNow {
			c.dropBuffer()
			return s.wait()
		}
		c.r, c.w = 0, 0
		return s.gotTLS(n, err)
	case opPeek:
		s.rErr = c.strayTLS()
		return true
	case opExchange:
		if s.rErr = c.strayTLS(); s.rErr != nil {
			return true
		}
		if s.rSent, s.outErr = c.writeTLS(s.out[0], s.out[1], nil); s.outErr != nil {
			return true
		}
		s.mem.Release()
		s.op = opIdle
		return s.wait()
	}
	return true
}

func (s *sysConn) gotTLS(n int, err error) bool {
	switch {
	case err == errNotNow:
		return s.wait()
	case err != nil:
		s.rErr = err
	default:
		s.rN = n
		s.c.w += n
		s.c.lastFilled = s.c.sock.more || s.c.w == len(s.c.b)
	}
	return true
}

// socketOf returns the connection that has the descriptor.
func (c *Conn) socketOf() net.Conn {
	if c.sock != nil {
		return c.sock.Conn
	}
	return c.nc
}
