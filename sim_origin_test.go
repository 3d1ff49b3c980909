package cirque_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cirqueproxy/cirque/internal/memnet"
)

// originKind is what an origin does with a request.
type originKind int

const (
	originRight     originKind = iota // answers when it has read the request
	originEarly                       // answers before it has read the body, and reads it after
	originDuplex                      // answers while it reads the body
	originEarlyGone                   // answers before it has read the body, and closes
	originCut                         // ends inside its answer
	originResets                      // resets inside its answer
	originStalls                      // stops inside its answer
	originNever                       // reads and says nothing
	originGarbage                     // says what is no HTTP
	originSwitches                    // switches protocols unasked
	originStray                       // says more than it was asked
	originDeaf                        // does not read on
	originKinds
)

// simOrigin is an origin with its listener.
type simOrigin struct {
	s     *sim
	n     int
	l     *memnet.Listener
	dials atomic.Int64
	wg    sync.WaitGroup

	mu    sync.Mutex
	conns []*memnet.Conn // Guarded by mu: all that were accepted.
}

// end closes what is open.
func (o *simOrigin) end() {
	o.l.Close()
	o.mu.Lock()
	for _, c := range o.conns {
		_ = c.Reset()
	}
	o.mu.Unlock()
	o.wg.Wait()
}

func newSimOrigin(s *sim, n int) *simOrigin {
	o := &simOrigin{s: s, n: n, l: memnet.Listen()}
	var conns atomic.Int64
	o.l.Setup(func(client, server *memnet.Conn) {
		s.shape(newSimRand(s.seed, "up", n, conns.Add(1)), client, server)
	})
	o.wg.Go(func() {
		for i := 0; ; i++ {
			c, err := o.l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns = append(o.conns, c.(*memnet.Conn))
			o.mu.Unlock()
			x := &originConn{o: o, c: c.(*memnet.Conn), in: bufio.NewReader(c), r: newSimRand(s.seed, "origin conn", n, i)}
			o.wg.Go(x.serve)
		}
	})
	return o
}

// dial is what the proxy connects with.
func (o *simOrigin) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	r := newSimRand(o.s.seed, "dial", o.n, o.dials.Add(1))
	if r.chance(30) {
		if err := simSleep(ctx, r.between(0, 500*time.Millisecond)); err != nil {
			return nil, err
		}
	}
	if o.s.set.calm {
		return o.l.Dial(ctx, network, addr)
	}
	switch k := r.IntN(100); {
	case k < 6:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case k < 8:
		<-ctx.Done()
		return nil, ctx.Err()
	case k < 9:
		return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
	case k < 10:
		return nil, errors.New("the network is unreachable")
	}
	return o.l.Dial(ctx, network, addr)
}

// simSleep sleeps for as long as ctx lives.
func simSleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// originConn is a connection at an origin.
type originConn struct {
	o  *simOrigin
	c  *memnet.Conn
	in *bufio.Reader
	r  simRand
}

func (x *originConn) serve() {
	defer x.c.Close()
	s := x.o.s
	if !s.set.calm {
		switch k := x.r.IntN(100); {
		case k < 2:
			return
		case k < 4:
			_ = x.c.Reset()
			return
		}
		if x.r.chance(40) {
			_ = x.c.SetReadDeadline(time.Now().Add(x.r.between(200*time.Millisecond, 70*time.Second)))
		}
	}
	for {
		if first, err := x.in.Peek(7); err == nil && string(first) == "TUNNEL " {
			x.tunnelled()
			return
		}
		h, err := readSimHead(x.in)
		if errors.Is(err, errSimSyntax) {
			s.failf("the origin got a malformed head: %v", err)
		}
		if err != nil || !x.answer(h) {
			return
		}
	}
}

// answer answers one request and reports whether the connection lives on.
func (x *originConn) answer(h *simHead) bool {
	s := x.o.s
	q := s.reqs[h.value("X-Sim-Id")]
	if q == nil {
		s.failf("the origin got a request without a known id: %q %q", h.line, h.fields)
		return false
	}
	nth := s.sighted(q)
	s.note(q.id, "origin %d sees it, time %d", x.o.n, nth)
	s.checkUp(q, h)
	f, err := h.framing(false)
	if err != nil {
		s.failf("request %s: the origin got %v", q.id, err)
		return false
	}
	p := newOriginPlan(q, nth)
	_ = x.c.SetReadDeadline(time.Time{})
	if q.upgrade && p.kind == originRight && p.r.chance(80) {
		return x.upgraded(q)
	}
	return x.act(q, p, h, f)
}

// act does what the plan says.
func (x *originConn) act(q *simReq, p *originPlan, h *simHead, f simFraming) bool {
	s := x.o.s
	time.Sleep(p.wait)
	if h.value("Expect") != "" && p.kind != originEarly && p.kind != originEarlyGone && p.r.chance(80) {
		if _, err := io.WriteString(x.c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return false
		}
	}
	for _, status := range p.interim {
		fmt.Fprintf(x.c, "HTTP/1.1 %d Sim\r\nX-Sim-Id: %s\r\n\r\n", status, q.id)
	}
	switch p.kind {
	case originEarly, originEarlyGone:
		return x.send(q, p, "early") && p.kind == originEarly && x.receive(q, p, h, f) == nil && !p.close
	case originDuplex:
		donec := make(chan bool, 1)
		go func() { donec <- x.send(q, p, "early") }()
		err := x.receive(q, p, h, f)
		return <-donec && err == nil && !p.close
	case originDeaf:
		time.Sleep(3 * time.Minute)
		return false
	}
	if x.receive(q, p, h, f) != nil {
		return false
	}
	switch p.kind {
	case originNever:
		_, _ = io.Copy(io.Discard, x.in)
		return false
	case originGarbage:
		_, _ = io.WriteString(x.c, p.garbage)
		return false
	case originSwitches:
		_, _ = io.WriteString(x.c, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: sim\r\n\r\nbytes")
		_, _ = io.Copy(io.Discard, x.in)
		return false
	}
	if !x.send(q, p, simSum(q.upBody())) {
		return false
	}
	if p.kind == originStray {
		s.tally.add("stray")
		_, _ = io.WriteString(x.c, p.garbage)
	}
	return !p.close
}

// receive reads the body and checks that what ends as it should is what the
// client sent.
func (x *originConn) receive(q *simReq, p *originPlan, h *simHead, f simFraming) error {
	s := x.o.s
	pause := p.r.pauses(p.slowRead)
	if p.kind == originDuplex {
		pause = func() {} // p.r belongs to the sender
	}
	body, trailer, err := readSimBody(x.in, f, pause)
	if errors.Is(err, errSimSyntax) {
		s.failf("request %s: the origin got a %v", q.id, err)
	}
	want := q.upBody()
	switch {
	case err != nil && !bytes.HasPrefix(want, body):
		s.failf("request %s: the origin got a cut body of %d bytes that is not its beginning", q.id, len(body))
	case err == nil && !bytes.Equal(want, body):
		s.failf("request %s: the origin got a body of %d bytes as whole, want %d; equal up to %d",
			q.id, len(body), len(want), equalUpTo(body, want))
	case err == nil && q.trailer && (len(trailer) != 1 || trailer[0] != [2]string{"X-Sim-Trailer", q.id}):
		s.failf("request %s: the origin got the trailer %q", q.id, trailer)
	case err == nil && !q.trailer && len(trailer) > 0:
		s.failf("request %s: the origin got a trailer %q out of nowhere", q.id, trailer)
	}
	return err
}

func equalUpTo(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// send sends the answer, or what the plan leaves of it.
func (x *originConn) send(q *simReq, p *originPlan, what string) bool {
	b := p.response(q, what)
	if p.kind == originCut || p.kind == originResets || p.kind == originStalls {
		b = b[:p.r.IntN(len(b))]
	}
	if err := sendSim(x.c, p.r, b, p.gap, nil); err != nil {
		return false
	}
	switch p.kind {
	case originResets:
		_ = x.c.Reset()
		return false
	case originCut:
		if p.framing == "close" {
			_ = x.c.Reset() // an end would say that it is complete
		}
		return false
	case originStalls:
		_, _ = io.Copy(io.Discard, x.in)
		return false
	}
	return true
}

// upgraded switches to the tunnel's protocol.
func (x *originConn) upgraded(q *simReq) bool {
	time.Sleep(x.r.between(0, time.Second))
	_, err := io.WriteString(x.c, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: sim\r\nX-Sim-Id: "+q.id+"\r\n\r\n")
	if err == nil {
		x.tunnel(q)
	}
	return false
}

// tunnelled is the end of a tunnel that CONNECT opened.
func (x *originConn) tunnelled() {
	line, err := x.in.Peek(min(x.in.Buffered(), 200))
	id, _, ok := strings.Cut(strings.TrimPrefix(string(line), "TUNNEL "), "\n")
	for err == nil && !ok {
		line, err = x.in.Peek(len(line) + 1)
		id, _, ok = strings.Cut(strings.TrimPrefix(string(line), "TUNNEL "), "\n")
	}
	if err != nil {
		return
	}
	q := x.o.s.reqs[id]
	if q == nil || !q.connect {
		x.o.s.failf("the origin got a tunnel for %q", id)
		return
	}
	x.o.s.sighted(q)
	x.tunnel(q)
}

func (x *originConn) tunnel(q *simReq) {
	s := x.o.s
	p := newTunnelPlan(q)
	if p.originCuts {
		t := time.AfterFunc(p.cutAfter, func() { _ = x.c.Reset() })
		defer t.Stop()
	}
	got, err := exchangeSim(x.c, x.in, x.r, p.down, p.gap)
	s.checkTunnel(q, "origin", got, p.up, err, p)
}
