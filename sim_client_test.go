package cirque_test

import (
	"bufio"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/memnet"
)

// simPatience is how long a client waits. Nothing may take so long.
const simPatience = 15 * time.Minute

// simClient sends its requests over one connection after the other.
type simClient struct {
	s    *sim
	n    int
	r    simRand
	reqs []*simReq
}

func (c *simClient) run() {
	time.Sleep(c.r.between(0, 5*time.Second))
	for conn := 0; len(c.reqs) > 0; conn++ {
		nc, err := c.s.front.Connect()
		if err != nil {
			if !c.s.isClosed() {
				c.s.failf("client %d: %v", c.n, err)
			}
			return
		}
		x := &clientConn{
			s: c.s, c: nc, in: bufio.NewReader(nc), stopc: make(chan struct{}),
			r: newSimRand(c.s.seed, "sender", c.n, conn), rr: newSimRand(c.s.seed, "reader", c.n, conn), window: make(chan struct{}, c.s.set.window),
			flight: make(chan *inFlight, len(c.reqs)),
		}
		c.reqs = c.reqs[x.run(c.reqs):]
	}
}

// clientConn is a connection at a client: one goroutine sends, another reads.
type clientConn struct {
	s      *sim
	c      *memnet.Conn
	in     *bufio.Reader
	r      simRand       // of the sender
	rr     simRand       // of the reader
	window chan struct{} // a slot per request in flight
	flight chan *inFlight
	stopc  chan struct{} // closed when nothing more shall be sent
	stop   sync.Once
	faulty atomic.Bool
	cut    *time.Timer
}

// inFlight is a request that was sent, at least in part.
type inFlight struct {
	q      *simReq
	gone   chan struct{} // closed when there is an answer to its Expect
	sent   chan struct{} // closed when all was sent that shall be
	once   sync.Once
	refuse atomic.Bool // the answer is final
}

func (f *inFlight) answered(final bool) {
	f.once.Do(func() {
		f.refuse.Store(final)
		close(f.gone)
	})
}

// run sends requests and returns how many it sent, or began to.
func (x *clientConn) run(reqs []*simReq) (sent int) {
	sentc := make(chan int)
	go func() { sentc <- x.send(reqs) }()
	x.read()
	x.end()
	if !x.s.set.calm && x.rr.chance(20) {
		_ = x.c.Reset()
	}
	_ = x.c.Close()
	sent = <-sentc
	if x.cut != nil {
		x.cut.Stop()
	}
	return sent
}

func (x *clientConn) end() { x.stop.Do(func() { close(x.stopc) }) }

func (x *clientConn) stopped() bool {
	select {
	case <-x.stopc:
		return true
	default:
		return false
	}
}

// fault marks the connection's requests: what happens to them now is the
// client's doing.
func (x *clientConn) fault(reqs []*simReq) {
	x.faulty.Store(true)
	for _, q := range reqs {
		q.faulty.Store(true)
	}
}

// send sends one request after the other.
func (x *clientConn) send(reqs []*simReq) (sent int) {
	defer close(x.flight)
	for i, q := range reqs {
		alone := q.upgrade || q.connect || q.fault != clientRight
		if x.r.chance(30) || alone {
			time.Sleep(q.think)
		}
		slots := 1
		if alone {
			slots = cap(x.window) // nothing else is in flight
		}
		for range slots {
			select {
			case x.window <- struct{}{}:
			case <-x.stopc:
				return max(i, sent)
			}
		}
		sent = i + 1
		if !x.sendOne(q, reqs[:sent]) {
			return sent
		}
	}
	return sent
}

// sendOne sends the last of reqs and reports whether another can follow.
func (x *clientConn) sendOne(q *simReq, reqs []*simReq) bool {
	f := &inFlight{q: q, gone: make(chan struct{}), sent: make(chan struct{})}
	defer close(f.sent)
	x.s.note(q.id, "client sends %s 1.%d, body %d chunked %v expect %v fault %d", q.method, q.minor, len(q.body), q.chunked, q.expect, q.fault)
	x.flight <- f
	if q.fault != clientRight {
		return x.sendWrong(q, reqs)
	}
	head := append(q.head(), q.early...)
	if q.connect && len(q.early) > 0 {
		head = append(q.head(), q.tunnelUp(len(q.early))...)
	}
	body := q.framed(x.r)
	if !q.expect {
		return x.write(append(head, body...), q) && q.keep && !q.upgrade && !q.connect
	}
	if !x.write(head, q) {
		return false
	}
	t := time.NewTimer(x.r.between(100*time.Millisecond, 5*time.Second))
	defer t.Stop()
	select {
	case <-f.gone:
	case <-t.C:
	case <-x.stopc:
	}
	if f.refuse.Load() && x.r.chance(50) {
		// The body is not wanted. RFC 9110, section 10.1.1: without it the client
		// has to close.
		return false
	}
	return x.write(body, q) && q.keep
}

func (x *clientConn) write(b []byte, q *simReq) bool {
	return sendSim(x.c, x.r, b, q.gap, func() bool { return !x.stopped() }) == nil
}

// framed returns the body as it is sent.
func (q *simReq) framed(r simRand) []byte {
	if !q.chunked {
		return q.body
	}
	var b []byte
	left := q.body
	for _, n := range r.pieces(len(left)) {
		b = appendSimChunk(b, left[:n], r)
		left = left[n:]
	}
	b = append(b, "0\r\n"...)
	if q.trailer {
		b = append(b, "X-Sim-Trailer: "+q.id+"\r\n"...)
	}
	return append(b, "\r\n"...)
}

var simBadHeads = []string{
	"GARBAGE\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
	"GET /../../x HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n",
}

// sendWrong sends a request with its fault.
func (x *clientConn) sendWrong(q *simReq, reqs []*simReq) bool {
	all := append(q.head(), q.framed(x.r)...)
	cut := x.r.IntN(len(all))
	x.fault(reqs)
	switch q.fault {
	case clientGarbage:
		_, _ = io.WriteString(x.c, oneOf(x.r, simBadHeads...))
	case clientStalls:
		x.write(all[:cut], q)
		<-x.stopc
	case clientFin:
		x.write(all[:cut], q)
		_ = x.c.CloseWrite()
	case clientResets:
		x.write(all[:cut], q)
		_ = x.c.Reset()
	case clientLeaves:
		leave := oneOf(x.r, x.c.Reset, x.c.Close)
		x.cut = time.AfterFunc(x.r.between(0, 5*time.Second), func() { _ = leave() })
		x.write(all, q)
	case clientNoRead:
		x.write(all, q)
	}
	return false
}

// read reads the answers in the order of the requests.
func (x *clientConn) read() {
	_ = x.c.SetReadDeadline(time.Now().Add(simPatience))
	for f := range x.flight {
		if f.q.fault == clientNoRead {
			time.Sleep(x.rr.between(0, 3*time.Minute))
			x.s.tally.add("got nothing")
			return
		}
		lives, err := x.answer(f)
		if err != nil {
			x.failed(f.q, err)
		}
		f.answered(true)
		if err != nil || !lives || f.q.fault != clientRight {
			return
		}
		slots := 1
		if f.q.upgrade || f.q.connect || f.q.fault != clientRight {
			slots = cap(x.window)
		}
		for range slots {
			<-x.window
		}
	}
}

// failed is an answer that did not come whole.
func (x *clientConn) failed(q *simReq, err error) {
	s := x.s
	s.note(q.id, "client: %v", err)
	switch {
	case errors.Is(err, errSimWrong):
		s.failf("request %s: %v", q.id, err)
	case errors.Is(err, errSimSyntax):
		s.failf("request %s: the client got a %v", q.id, err)
	case isTimeout(err):
		s.failf("request %s: the client waited for %v in vain", q.id, simPatience)
	case s.set.calm:
		s.failf("request %s: the client got %v in a calm run", q.id, err)
	case err == io.EOF:
		s.tally.add("got nothing")
	default:
		s.tally.add("got cut")
	}
}
