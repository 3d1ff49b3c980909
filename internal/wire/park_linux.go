package wire

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Parker watches idle connections without a goroutine for each: an epoll set
// of its own, one-shot, which one goroutine waits on through the runtime's
// poller, from the first parked connection to Close.
type Parker struct {
	epfd int
	f    *os.File // epfd, as the runtime waits for it

	mu      sync.Mutex
	conns   map[int32]*Conn // Guarded by mu: by descriptor.
	closed  bool            // Guarded by mu.
	running bool            // Guarded by mu.
}

// NewParker returns a Parker without connections.
func NewParker() (*Parker, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &Parker{epfd: epfd, f: os.NewFile(uintptr(epfd), "epoll"), conns: map[int32]*Conn{}}, nil
}

// Park takes care of c until there is input, its deadline on the sweep's clock
// passes (zero: never), or the Parker is closed; then wake is called on a
// goroutine of its own. Until then nobody may use c.
func (p *Parker) Park(c *Conn, deadline time.Duration, wake func(*Conn, WakeReason)) {
	c.dropBuffer()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		go wake(c, WakeShutdown)
		return
	}
	var err error
	cerr := c.sys.raw.Control(func(fd uintptr) {
		c.sweep.setParked(c, &parked{p, int32(fd), wake})
		c.parkedUntil(deadline)
		p.conns[int32(fd)] = c
		err = p.arm(int32(fd))
	})
	if cerr != nil {
		p.mu.Unlock()
		go wake(c, WakeReadable) // the next read says what is wrong
		return
	}
	if err != nil {
		p.mu.Unlock()
		p.unpark(c, WakeReadable)
		return
	}
	if !p.running {
		p.running = true
		go p.run()
	}
	p.mu.Unlock()
}

func (p *Parker) arm(fd int32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: fd}
	err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, int(fd), &ev)
	if err == unix.ENOENT {
		err = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, int(fd), &ev)
	}
	return err
}

// run waits for events until Close.
func (p *Parker) run() {
	raw, err := p.f.SyscallConn()
	if err != nil {
		return
	}
	events := make([]unix.EpollEvent, 128)
	for {
		n := 0
		err := raw.Read(func(uintptr) bool {
			n, _ = unix.EpollWait(p.epfd, events, 0)
			return n > 0
		})
		if err != nil {
			return // closed
		}
		for _, ev := range events[:n] {
			p.mu.Lock()
			c := p.conns[ev.Fd]
			p.mu.Unlock()
			if c != nil {
				p.unparkFD(c, ev.Fd, WakeReadable)
			}
		}
	}
}

// Unpark wakes c for its owner, with WakeTimeout, if it is parked.
func (p *Parker) Unpark(c *Conn) { p.unpark(c, WakeTimeout) }

// unpark gives c back, whoever is first.
func (p *Parker) unpark(c *Conn, why WakeReason) {
	// Not by Control: who closed the descriptor behind our back must not make us
	// lose the connection.
	if fd, ok := c.sweep.parkedFD(c); ok {
		p.unparkFD(c, fd, why)
	}
}

func (p *Parker) unparkFD(c *Conn, fd int32, why WakeReason) {
	p.mu.Lock()
	if p.conns[fd] != c {
		p.mu.Unlock()
		return
	}
	delete(p.conns, fd)
	p.mu.Unlock()
	k := c.sweep.takeParked(c)
	if why != WakeReadable {
		ev := unix.EpollEvent{Fd: fd}
		_ = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, int(fd), &ev)
	}
	go k.wake(c, why)
}

// Close gives all connections back, those parked later at once, and ends the
// goroutine.
func (p *Parker) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	conns := make([]*Conn, 0, len(p.conns))
	for _, c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, c := range conns {
		p.unpark(c, WakeShutdown)
	}
	_ = p.f.Close()
}
