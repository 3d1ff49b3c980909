package memnet

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// Addresses of the blocks that are kept for documentation, so that none of
// them is ever a real one. RFC 5737, section 3.
var (
	serverIP = net.IPv4(192, 0, 2, 1).To4()
	clientIP = net.IPv4(198, 51, 100, 1).To4()
)

const (
	firstPort = 40000
	// maxBacklog bounds the connections that nobody has accepted: a test whose
	// server is stuck sees its clients refused, rather than memory grow.
	maxBacklog = 4096
)

// Listener is where connections arrive. All methods are for any goroutine.
type Listener struct {
	addr *net.TCPAddr

	mu      sync.Mutex
	gone    *sync.Cond                 // for WaitClosed
	arrived *sync.Cond                 // for Accept
	queue   []*Conn                    // Guarded by mu: not accepted yet.
	dialed  int                        // Guarded by mu.
	setup   func(client, server *Conn) // Guarded by mu.
	closed  bool                       // Guarded by mu.
	live    map[*Conn]struct{}         // Guarded by mu: ends not closed.
}

// Listen returns a new listener. Its address is the same for all: they share
// no network, and who has the Listener dials it.
func Listen() *Listener {
	l := &Listener{addr: &net.TCPAddr{IP: serverIP, Port: 80}, live: map[*Conn]struct{}{}}
	l.arrived, l.gone = sync.NewCond(&l.mu), sync.NewCond(&l.mu)
	return l
}

// Setup says what to do with each new connection before either end is in use: the
// place for SetChunk, SetDelay and SetBuffer. Nil is nothing.
func (l *Listener) Setup(f func(client, server *Conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setup = f
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.addr }

// Dial makes a connection and returns the client's end. It does not wait for
// Accept. Network and address are not looked at, so that the method serves as
// the Dial function of whoever has one. When the listener is closed the error
// is ECONNREFUSED.
func (l *Listener) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: err}
	}
	c, err := l.Connect()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Connect is Dial without its arguments.
func (l *Listener) Connect() (*Conn, error) {
	l.mu.Lock()
	port, setup := firstPort+l.dialed%20000, l.setup
	l.dialed++
	l.mu.Unlock()
	client, server := pipe(&net.TCPAddr{IP: clientIP, Port: port}, l.addr)
	if setup != nil {
		setup(client, server)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue) >= maxBacklog {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: syscall.ECONNREFUSED}
	}
	for _, c := range []*Conn{client, server} {
		l.live[c] = struct{}{}
		c.onClose = func() { l.ended(c) }
	}
	l.queue = append(l.queue, server)
	l.arrived.Signal()
	return client, nil
}

// ended is called with the lock of the connection held, which is why Connect
// and Close hold none of these while they hold the listener's.
func (l *Listener) ended(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, c)
	l.gone.Broadcast()
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 {
		if l.closed {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		}
		l.arrived.Wait()
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c, nil
}

// Close implements net.Listener. Connections that nobody accepted are reset.
func (l *Listener) Close() error {
	l.mu.Lock()
	queue, was := l.queue, l.closed
	l.queue, l.closed = nil, true
	l.arrived.Broadcast()
	l.mu.Unlock()
	for _, c := range queue {
		_ = c.Reset()
	}
	if was {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
	return nil
}

// Dialed returns how many connections were asked for, refused ones included.
func (l *Listener) Dialed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dialed
}

// Open returns how many ends of its connections are not closed: 0 when nothing
// is left over.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.live)
}

// WaitClosed waits until all ends of its connections are closed, but at most for
// a time, and returns how many are not.
func (l *Listener) WaitClosed(atMost time.Duration) (open int) {
	late := false
	timer := time.AfterFunc(atMost, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		late = true
		l.gone.Broadcast()
	})
	defer timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.live) > 0 && !late {
		l.gone.Wait()
	}
	return len(l.live)
}

var _ net.Listener = (*Listener)(nil)
