package wire

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is what a pipe is asked to hold: fewer calls for a large body. The
// kernel may grant less; beyond an unprivileged user's share it does.
const pipeSize = 256 << 10

// maxIdlePipes bounds the pipes that are kept for the next body.
const maxIdlePipes = 64

// pipe is where the kernel keeps pages between two sockets.
type pipe struct {
	r, w int
	size int
	held int // bytes in it
}

var pipes struct {
	mu   sync.Mutex
	idle []*pipe // Guarded by mu: empty ones.
}

// getPipe returns an empty pipe, or nil when the process has no descriptors
// left for one.
func getPipe() *pipe {
	pipes.mu.Lock()
	if n := len(pipes.idle); n > 0 {
		p := pipes.idle[n-1]
		pipes.idle = pipes.idle[:n-1]
		pipes.mu.Unlock()
		return p
	}
	pipes.mu.Unlock()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil
	}
	p := &pipe{r: fds[0], w: fds[1], size: 64 << 10}
	if n, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err == nil {
		p.size = n
	}
	return p
}

// put keeps an empty pipe for the next body.
func (p *pipe) put() {
	if p.held == 0 {
		pipes.mu.Lock()
		if len(pipes.idle) < maxIdlePipes {
			pipes.idle = append(pipes.idle, p)
			pipes.mu.Unlock()
			return
		}
		pipes.mu.Unlock()
	}
	unix.Close(p.r)
	unix.Close(p.w)
}

// CanSplice reports whether the kernel can move bytes from and to c.
func (c *Conn) CanSplice() bool { return c.sys.ok() && c.tls == nil }

// splice moves up to n bytes from one descriptor to another, one of them a
// pipe, without telling the scheduler (decision 0010): it moves pages and copies
// nothing, so that a whole pipe takes about as long as a copy of rawMax does. Told
// of such calls, the runtime keeps its monitor awake to take the processor away
// from them, which made downloads a tenth dearer.
func splice(from, to uintptr, n int) (int, syscall.Errno) {
	moved, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, from, 0, to, 0, uintptr(n), spliceFlags)
	return int(moved), errno
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// spliceSys is Splice by splice(2). It reports false where the kernel does not
// do it, or where there are no descriptors for a pipe: the rest has to be
// copied; first is then what was not sent of it.
func spliceSys(dst, src *Conn, first *[]byte, n int64) (taken, moved int64, err error, ok bool) {
	s := &src.sys
	src.ReleaseBuffer()
	defer func() {
		if s.rPipe != nil {
			s.rPipe.put()
			s.rPipe = nil
		}
	}()
	for n < 0 || moved < n {
		s.rMax = pipeSize
		if n >= 0 && int64(s.rMax) > n-moved {
			s.rMax = int(n - moved)
		}
		s.rNoWait = len(*first) > 0
		err := src.read(opSplice)
		if err != nil && err != errNoSplice && len(*first) > 0 {
			// There is nothing to send it with: it goes alone.
			if _, err := dst.Write(*first); err != nil {
				return taken, moved, &SpliceError{false, err}, true
			}
			*first = nil
		}
		switch {
		case err == errNotReady:
			continue
		case err == errNoSplice:
			return taken, moved, nil, false // the rest is copied
		case err == io.EOF && n < 0:
			return taken, moved, nil, true
		case err == io.EOF:
			return taken, moved, &SpliceError{true, io.ErrUnexpectedEOF}, true
		case err != nil:
			return taken, moved, &SpliceError{true, err}, true
		}
		taken += int64(s.rN)
		if len(*first) > 0 {
			// What follows is in the pipe: one segment for both.
			if err := dst.writeMore(*first); err != nil {
				return taken, moved, &SpliceError{false, err}, true
			}
			*first = nil
		}
		k, err := dst.drainPipe(s.rPipe)
		moved += int64(k)
		if err != nil {
			return taken, moved, &SpliceError{false, err}, true
		}
	}
	return taken, moved, nil, true
}

// writeMore is Write for what is followed by more at once.
func (c *Conn) writeMore(b []byte) error {
	c.sys.more = unix.MSG_MORE
	_, err := c.Write(b)
	c.sys.more = 0
	return err
}

// errNotReady says that there is nothing to splice yet.
var errNotReady = errors.New("wire: not ready")

// errNoSplice says that the kernel refuses, or that there is no pipe.
var errNoSplice = syscall.EINVAL

// spliceIn moves input into a pipe, which it holds only while there is some.
func (s *sysConn) spliceIn(fd uintptr) bool {
	if s.rPipe == nil {
		if s.rPipe = getPipe(); s.rPipe == nil {
			s.rErr = errNoSplice
			return true
		}
	}
	for {
		n, errno := splice(fd, uintptr(s.rPipe.w), min(s.rMax, s.rPipe.size))
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			s.rPipe.put()
			s.rPipe = nil
			if s.rNoWait {
				s.rErr = errNotReady
				return true
			}
			return s.wait()
		case errno != 0:
			s.rErr = errno
		case n == 0:
			s.rErr = io.EOF
		default:
			s.rN = n
			s.rPipe.held += n
		}
		return true
	}
}

// drainPipe moves what is in p to c.
func (c *Conn) drainPipe(p *pipe) (sent int, err error) {
	s := &c.sys
	for p.held > 0 {
		s.wArmed, s.wN, s.wErr, s.wPipe = false, 0, nil, p
		if err = s.raw.Write(s.onWrite); err == nil {
			err = s.wErr
		}
		s.wPipe = nil
		sent += s.wN
		c.nSent.Add(int64(s.wN))
		if s.wArmed || err != nil {
			err = c.endWriteWait(s.wArmed, s.wN, err)
		}
		switch {
		case err == errAgain:
		case c.wRate.TooSlow() && (err == nil || err == ErrTimeout):
			return sent, ErrTooSlow
		case err != nil:
			return sent, err
		}
	}
	return sent, nil
}

func (s *sysConn) spliceOut(fd uintptr) bool {
	for {
		n, errno := splice(uintptr(s.wPipe.r), fd, s.wPipe.held)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			s.wArmed = true
			s.c.armWrite()
			return false
		case errno != 0:
			s.wErr = errno
		default:
			s.wN += n
			s.wPipe.held -= n
		}
		return true
	}
}
