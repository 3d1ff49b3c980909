package wire

import (
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readOp is what a read through the descriptor does.
type readOp uint8

const (
	opFill     readOp = iota // receive behind what is buffered
	opIdle                   // the same, with no buffer while waiting
	opPeek                   // look, never wait
	opExchange               // look, send, then opIdle
	opSplice                 // into a pipe
)

// rawMax is the largest transfer made without telling the scheduler: it takes
// a few microseconds at most.
const rawMax = 16 << 10

// sysConn is a connection's descriptor. The callbacks are made once per
// connection; their arguments and results are fields, so that a call allocates
// nothing.
type sysConn struct {
	c   *Conn
	raw syscall.RawConn // nil: there is no descriptor to use

	// Owned by the reading goroutine.
	onRead  func(fd uintptr) bool
	op      readOp
	rArmed  bool
	rN      int
	rErr    error
	out     [2][]byte // of opExchange
	mem     Releaser  // holds out
	rSent   int
	partial bool  // opExchange could not send everything
	outErr  error // opExchange failed to send, over TLS
	rPipe   *pipe
	rMax    int
	rNoWait bool // opSplice returns errNotReady in place of waiting
	rVec    [3]unix.Iovec

	// Owned by the writing goroutine.
	onWrite func(fd uintptr) bool
	wArmed  bool
	wN      int
	wErr    error
	in      [3][]byte
	more    uintptr // MSG_MORE when what follows is at hand
	wPipe   *pipe
	wVec    [3]unix.Iovec
}

func (s *sysConn) init(c *Conn) {
	s.c = c
	var err error
	switch nc := c.socketOf().(type) {
	// Only these very types: one that wraps them sees other bytes than their
	// descriptors do.
	case *net.TCPConn:
		s.raw, err = nc.SyscallConn()
	case *net.UnixConn:
		s.raw, err = nc.SyscallConn()
	}
	if err != nil || s.raw == nil {
		s.raw = nil
		return
	}
	s.onRead, s.onWrite = s.tryRead, s.tryWrite
	if c.sock != nil {
		s.onRead = s.tryReadTLS
	}
}

// ok reports whether there is a descriptor.
func (s *sysConn) ok() bool { return s.raw != nil }

func (s *sysConn) read(op readOp) (armed bool, n int, err error) {
	s.op, s.rArmed, s.rN, s.rErr = op, false, 0, nil
	if err = s.raw.Read(s.onRead); err == nil {
		err = s.rErr
	}
	return s.rArmed, s.rN, err
}

// resume returns with what a read goes on that was woken for no reason.
func (s *sysConn) resume(op readOp) readOp {
	if op == opExchange && s.rSent > 0 {
		return opIdle
	}
	return op
}

// wait makes the runtime wait for input. The caller has just seen EAGAIN: with
// an edge-triggered poller nothing less is safe, since a FIN that came together
// with data gives no second edge.
func (s *sysConn) wait() bool {
	s.rArmed = true
	s.c.armRead()
	return false
}

// tryRead is called by the runtime until it returns true.
func (s *sysConn) tryRead(fd uintptr) bool {
	c := s.c
	switch s.op {
	case opFill:
		n, errno := recv(fd, c.b[c.w:], 0)
		return s.received(n, errno)
	case opIdle:
		if c.b == nil {
			c.useBuffer(c.class())
		}
		b := c.b
		if c.limit > 0 {
			b = b[:min(c.limit, len(b))]
		}
		n, errno := recv(fd, b, 0)
		if errno == syscall.EAGAIN {
			c.dropBuffer()
			return s.wait()
		}
		c.r, c.w = 0, 0
		return s.received(n, errno)
	case opPeek:
		s.rErr = peek(fd)
		return true
	case opExchange:
		if s.rErr = peek(fd); s.rErr != nil {
			return true
		}
		var errno syscall.Errno
		s.rSent, errno = sendAll(fd, s.out[:], &s.rVec, 0)
		if errno != 0 && errno != syscall.EAGAIN {
			s.rErr = errno
			return true
		}
		if s.rSent < len(s.out[0])+len(s.out[1]) {
			s.partial = true
			return true
		}
		s.mem.Release()
		s.op = opIdle
		return s.wait()
	case opSplice:
		return s.spliceIn(fd)
	}
	return true
}

func (s *sysConn) received(n int, errno syscall.Errno) bool {
	switch {
	case errno == syscall.EAGAIN:
		return s.wait()
	case errno != 0:
		s.rErr = errno
	case n == 0:
		s.rErr = io.EOF
	default:
		s.rN = n
		s.c.w += n
		s.c.lastFilled = s.c.w == len(s.c.b)
	}
	return true
}

// peek reports whether a connection is quiet.
func peek(fd uintptr) error {
	var one [1]byte
	n, errno := recv(fd, one[:], syscall.MSG_PEEK)
	switch {
	case errno == syscall.EAGAIN:
		return nil
	case errno != 0:
		return errno
	case n == 0:
		return io.EOF
	}
	return ErrStray
}

func (s *sysConn) peek() error {
	_, _, err := s.read(opPeek)
	return err
}

// exchangeSys is Exchange in one call of the runtime's.
func (c *Conn) exchangeSys(out, tail []byte, mem Releaser) (int, error) {
	s := &c.sys
	if c.w > c.r {
		return 0, ErrStray
	}
	c.dropBuffer()
	s.out, s.mem = [2][]byte{out, tail}, mem
	s.rSent, s.partial, s.outErr = 0, false, nil
	err := c.read(opExchange)
	sent := s.rSent
	s.out, s.mem = [2][]byte{}, nil
	if c.tls == nil {
		c.nSent.Add(int64(sent))
	}
	switch {
	case s.outErr != nil:
		return sent, s.outErr
	case err != nil || !s.partial:
		return sent, err
	}
	n, err := c.Writev(skip2(out, tail, sent))
	if sent += n; err != nil {
		return sent, err
	}
	mem.Release()
	return sent, c.read(opIdle)
}

func skip2(a, b []byte, n int) (x, y, z []byte) { return skip(a, b, nil, n) }

func (s *sysConn) write(a, b, d []byte) (armed bool, n int, err error) {
	s.in = [3][]byte{a, b, d}
	s.wArmed, s.wN, s.wErr, s.wPipe = false, 0, nil, nil
	if err = s.raw.Write(s.onWrite); err == nil {
		err = s.wErr
	}
	s.in = [3][]byte{}
	return s.wArmed, s.wN, err
}

// tryWrite is called by the runtime until it returns true. It returns after
// each wait that let it go on, so that the wait is accounted for.
func (s *sysConn) tryWrite(fd uintptr) bool {
	if s.wPipe != nil {
		return s.spliceOut(fd)
	}
	var errno syscall.Errno
	if s.wN, errno = sendAll(fd, s.in[:], &s.wVec, s.more); s.wN > 0 {
		return true
	}
	if errno == syscall.EAGAIN {
		s.wArmed = true
		s.c.armWrite()
		return false
	}
	if errno != 0 {
		s.wErr = errno
	}
	return true
}

func recv(fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		var n uintptr
		var errno syscall.Errno
		if len(p) <= rawMax {
			n, _, errno = syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags|syscall.MSG_DONTWAIT, 0, 0)
		} else {
			n, _, errno = syscall.Syscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags|syscall.MSG_DONTWAIT, 0, 0)
		}
		if errno == syscall.EINTR {
			continue
		}
		return int(n), errno
	}
}

const sendFlags = syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL

// sendAll sends the pieces until all are sent or the socket takes no more.
func sendAll(fd uintptr, pieces [][]byte, vec *[3]unix.Iovec, more uintptr) (sent int, errno syscall.Errno) {
	for {
		total, count := 0, 0
		left := sent
		for _, p := range pieces {
			k := min(left, len(p))
			left -= k
			if p = p[k:]; len(p) > 0 {
				vec[count].Base = unsafe.SliceData(p)
				vec[count].SetLen(len(p))
				total += len(p)
				count++
			}
		}
		if count == 0 {
			return sent, 0
		}
		n, errno := send(fd, vec[:count], total, sendFlags|more)
		*vec = [3]unix.Iovec{}
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return sent, errno
		}
		sent += n
	}
}

func send(fd uintptr, vec []unix.Iovec, total int, flags uintptr) (int, syscall.Errno) {
	if len(vec) == 1 {
		if total <= rawMax {
			n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(vec[0].Base)), uintptr(total), flags, 0, 0)
			return int(n), errno
		}
		n, _, errno := syscall.Syscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(vec[0].Base)), uintptr(total), flags, 0, 0)
		return int(n), errno
	}
	var msg unix.Msghdr
	msg.Iov = unsafe.SliceData(vec)
	msg.SetIovlen(len(vec))
	if total <= rawMax {
		n, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg)), flags)
		return int(n), errno
	}
	n, _, errno := syscall.Syscall(syscall.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg)), flags)
	return int(n), errno
}

func (s *sysConn) peerClosed() bool {
	closed := false
	_ = s.raw.Control(func(fd uintptr) { closed = pollClosed(fd) })
	return closed
}

func pollClosed(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// rawPeerClosed is PeerClosed for a connection below another one.
func rawPeerClosed(nc net.Conn) (is, closed bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false, false
	}
	err = raw.Control(func(fd uintptr) { closed = pollClosed(fd) })
	return err == nil, closed
}
