package cirque_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/memnet"
)

// simSettings are what a seed decides for a whole run.
type simSettings struct {
	calm      bool // no faults: each request must get its whole answer
	faults    int  // percent of requests that an origin serves badly
	chaos     int  // percent of requests with a hook that misbehaves
	upperUp   bool // a hook changes request bodies
	upperDown bool
	holdUp    bool // a hook holds bodies back until their end
	holdDown  bool
	growDown  bool // a hook makes response bodies longer
	serveConn bool // connections are handed to ServeConn
	shutdown  time.Duration
	clients   int
	requests  int
	window    int // pipelined requests
	maxBody   int64
	total     time.Duration
	write     time.Duration
}

// sim is one run.
type sim struct {
	t     *testing.T
	seed  uint64
	tally *tally
	set   simSettings
	r     simRand // of the building of the world, before anything runs

	reqs    map[string]*simReq // Immutable when the run begins.
	plan    [][]*simReq        // by client
	origins []*simOrigin
	peers   []*cirque.Peer
	front   *memnet.Listener
	fronts  atomic.Int64
	srv     *cirque.Server
	proxy   *cirque.Proxy
	tr      *cirque.Transport
	began   time.Time

	sessions simSessions

	mu     sync.Mutex
	seen   map[string]int // Guarded by mu: how often origins saw a request.
	trace  []string       // Guarded by mu.
	fails  int            // Guarded by mu.
	closed bool           // Guarded by mu: the server is being closed.
}

func newSim(t *testing.T, seed uint64, total *tally) *sim {
	s := &sim{t: t, seed: seed, tally: total, reqs: map[string]*simReq{}, seen: map[string]int{}, began: time.Now()}
	s.r = newSimRand(seed, "world")
	s.settings()
	for i := range s.set.clients {
		var qs []*simReq
		for j := range 1 + s.r.IntN(s.set.requests) {
			q := s.newReq(i, j)
			s.reqs[q.id] = q
			qs = append(qs, q)
		}
		s.plan = append(s.plan, qs)
	}
	s.build()
	return s
}

func (s *sim) settings() {
	r := s.r
	s.set = simSettings{
		calm: r.chance(25), faults: oneOf(r, 0, 10, 30), chaos: oneOf(r, 0, 5, 20),
		upperUp: r.chance(25), upperDown: r.chance(25), holdUp: r.chance(15), holdDown: r.chance(15), growDown: r.chance(15),
		serveConn: r.chance(50), clients: 1 + r.IntN(6), requests: 1 + r.IntN(10), window: oneOf(r, 1, 1, 2, 5),
		write: time.Minute,
	}
	if s.set.calm {
		s.set.faults, s.set.chaos = 0, 0
		return
	}
	if r.chance(20) {
		s.set.shutdown = r.between(0, 20*time.Second)
	}
	if r.chance(20) {
		s.set.maxBody = int64(r.IntN(20_000))
	}
	if r.chance(20) {
		s.set.total = r.between(100*time.Millisecond, 10*time.Second)
	}
}

// build makes the proxy.
func (s *sim) build() {
	r := s.r
	for i := range 1 + r.IntN(3) {
		o := newSimOrigin(s, i)
		s.origins = append(s.origins, o)
		s.peers = append(s.peers, s.newPeer(o))
	}
	s.tr = &cirque.Transport{MaxIdleConns: oneOf(r, 0, 0, 0, 1, 2), Dial: s.dial}
	s.proxy = &cirque.Proxy{
		Name: "sim", Transport: s.tr, Peer: s.choose, LogError: s.sessions.logged(s),
		Forwarding: cirque.Forwarding{NoXForwarded: r.chance(30), Forwarded: r.chance(30), Via: oneOf(r, "", "-", "sim")},
		Retry:      cirque.Retry{BudgetPercent: oneOf(r, 0, -1, 100)}, AllowConnect: r.chance(70),
		MaxRequestBody: s.set.maxBody, DropInterim: r.chance(20), Filters: s.filters(),
	}
	s.srv = &cirque.Server{
		Proxy: s.proxy, Logger: slog.New(slog.DiscardHandler), AllowHalfClose: r.chance(30),
		DrainEarlyUploads: r.chance(30), MaxRequests: oneOf(r, 0, 0, 1, 3), DrainBytes: oneOf[int64](r, 0, 0, -1, 1000),
	}
	if s.set.calm {
		return
	}
	s.proxy.Retry.Attempts = oneOf(r, 0, 0, 0, -1, 5)
	s.proxy.Retry.ReplayBytes = oneOf(r, 0, 0, -1, 100, 10_000)
	s.proxy.Retry.NonIdempotent = r.chance(15)
	if r.chance(20) {
		s.proxy.Retry.PerTry = r.between(100*time.Millisecond, 5*time.Second)
	}
	s.proxy.Timeouts.Total = s.set.total
	s.timeouts()
	if r.chance(10) {
		s.tr.MaxConns = 1 + r.IntN(3)
	}
	if r.chance(15) {
		s.srv.MaxConns = 1 + r.IntN(4)
	}
	if r.chance(20) {
		s.proxy.ErrorPage = s.errorPage
	}
}

// timeouts shortens some of them.
func (s *sim) timeouts() {
	r := s.r
	short := func() time.Duration {
		if r.chance(60) {
			return 0
		}
		return r.between(50*time.Millisecond, 8*time.Second)
	}
	s.srv.ReadHeaderTimeout, s.srv.IdleTimeout = short(), short()
	s.srv.BodyTimeout, s.srv.WriteTimeout = short(), short()
	if s.srv.WriteTimeout > 0 {
		s.set.write = s.srv.WriteTimeout
	}
	s.proxy.Timeouts.FirstByte, s.proxy.Timeouts.Read = short(), short()
	s.proxy.Timeouts.Write, s.proxy.Timeouts.Tunnel = short(), short()
}

func (s *sim) newPeer(o *simOrigin) *cirque.Peer {
	r := s.r
	p := &cirque.Peer{Addr: fmt.Sprintf("origin%d:80", o.n), Observer: &simObserver{s: s}}
	if r.chance(50) {
		p.Dial, p.Unique = o.dial, fmt.Sprint(o.n)
	}
	if r.chance(30) {
		p.MaxConns = 1 + r.IntN(3)
		p.QueueTimeout = -1
	}
	p.MaxRequests = oneOf(r, 0, 0, 0, 1, 3)
	if r.chance(15) {
		p.MaxAge = r.between(time.Second, 10*time.Second)
	}
	if s.set.calm {
		return p
	}
	if p.MaxConns > 0 {
		p.MaxQueue = oneOf(r, 0, 0, 1, -1)
		p.QueueTimeout = oneOf(r, 0, 0, -1, time.Second)
	}
	p.Timeouts.Connect = oneOf(r, 0, time.Second)
	p.Timeouts.Idle = oneOf(r, 0, 0, -1, 2*time.Second)
	return p
}

// dial is the Transport's: it knows the origins by their addresses.
func (s *sim) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var n int
	if _, err := fmt.Sscanf(addr, "origin%d:80", &n); err != nil || n >= len(s.origins) {
		s.failf("a connect to %q", addr)
		return nil, err
	}
	return s.origins[n].dial(ctx, network, addr)
}

// shape makes a connection slow, small or coarse.
func (s *sim) shape(r simRand, ends ...*memnet.Conn) {
	for _, c := range ends {
		if r.chance(20) {
			c.SetChunk(1 + r.IntN(2000))
		}
		if r.chance(20) {
			c.SetBuffer(100 + r.IntN(20_000))
		}
		if r.chance(30) {
			c.SetDelay(r.between(0, 300*time.Millisecond))
		}
	}
}

// run is the whole run: clients, then the end of everything, then the checks.
func (s *sim) run() {
	s.front = memnet.Listen()
	s.front.Setup(func(client, server *memnet.Conn) {
		s.shape(newSimRand(s.seed, "down", s.fronts.Add(1)), client, server)
	})
	var serving, clients sync.WaitGroup
	serving.Go(func() { s.serve(&serving) })
	for i, qs := range s.plan {
		c := &simClient{s: s, n: i, r: newSimRand(s.seed, "client", i), reqs: qs}
		clients.Go(c.run)
	}
	if s.set.shutdown > 0 {
		time.Sleep(s.set.shutdown)
		s.shutdown(oneOf(s.r, 0, time.Second, 10*time.Second))
	}
	clients.Wait()
	s.quiet()
	s.shutdown(0)
	serving.Wait()
	s.tr.Close()
	synctest.Wait()
	s.nothingLeft()
	for _, o := range s.origins {
		o.end()
	}
	s.verdict()
	if s.set.calm {
		s.tally.add("calm run")
	}
}

// serve accepts until the server is closed.
func (s *sim) serve(serving *sync.WaitGroup) {
	if !s.set.serveConn {
		if err := s.srv.Serve(s.front); err != cirque.ErrServerClosed {
			s.failf("Serve returned %v", err)
		}
		return
	}
	for {
		c, err := s.front.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { s.srv.ServeConn(c) })
	}
}

func (s *sim) shutdown(grace time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if s.set.serveConn {
		s.front.Close()
	}
	if grace > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		_ = s.srv.Shutdown(ctx)
	}
	_ = s.srv.Close()
}

// quiet waits until all that the clients began is over, and checks that nothing
// is busy any more.
func (s *sim) quiet() {
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	if st := s.srv.Stats(); st.ConnsActive+st.ConnsIdle+st.ConnsNew+st.ConnsParked > 0 {
		s.failf("connections of clients that left are still served: %+v", st)
	}
	if st := s.tr.Stats(); st.Conns != st.Idle {
		s.failf("upstream connections are busy with nothing: %+v", st)
	}
	if n := s.sessions.running(); n > 0 {
		s.failf("%d sessions are not done", n)
	}
}

// nothingLeft checks that all connections are closed.
func (s *sim) nothingLeft() {
	if st := s.tr.Stats(); st.Conns != 0 || st.Idle != 0 {
		s.failf("the closed pool counts %+v", st)
	}
	if n := s.front.Open(); n > 0 {
		s.failf("%d ends of client connections are open", n)
	}
	time.Sleep(4 * time.Minute) // origins that sleep
	for _, o := range s.origins {
		if n := o.l.Open(); n > 0 {
			s.failf("%d ends of connections to origin %d are open", n, o.n)
		}
	}
}

func (s *sim) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// sighted counts that an origin saw a request, and returns how often it has.
func (s *sim) sighted(q *simReq) int {
	s.mu.Lock()
	s.seen[q.id]++
	n := s.seen[q.id]
	s.mu.Unlock()
	if n > 1 {
		s.tally.add("replayed")
		if len(q.body) > 0 {
			s.tally.add("replayed body")
		}
		// RFC 9110, section 9.2.2: a proxy must not repeat what is not idempotent.
		if !q.idempotent() && !s.proxy.Retry.NonIdempotent {
			s.failf("request %s: %s came to origins %d times", q.id, q.method, n)
		}
	}
	return n
}

// note keeps what happened, for -sim.trace.
func (s *sim) note(id, format string, args ...any) {
	if !*simTrace {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace = append(s.trace, fmt.Sprintf("%12v %s: %s", time.Since(s.began), id, fmt.Sprintf(format, args...)))
}

// failf reports a broken invariant.
func (s *sim) failf(format string, args ...any) {
	s.t.Helper()
	text := fmt.Sprintf(format, args...)
	s.note("FAIL", "%s", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails++; s.fails <= 10 {
		s.t.Errorf("at %v: %s", time.Since(s.began), text)
	}
}

// verdict is the end of a run.
func (s *sim) verdict() {
	s.sessions.check(s)
	if *simTrace && s.t.Failed() {
		s.t.Logf("settings %+v\nserver %+v\nretry %+v timeouts %+v\n%s", s.set, s.srv.Stats(), s.proxy.Retry, s.proxy.Timeouts, strings.Join(s.trace, "\n"))
	}
}
