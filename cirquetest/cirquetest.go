// Package cirquetest is a test bed for proxies: a client, an origin and a proxy
// in memory, without sockets, for the tests of who writes filters and Proxies.
//
//	func TestGuard(t *testing.T) {
//		bed := cirquetest.New(t, &cirque.Proxy{Filters: []cirque.Filter{guard}})
//		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ... }))
//		if resp := bed.Get("/secret"); resp.StatusCode != 401 { ... }
//	}
//
// It works inside testing/synctest, where timeouts pass in no time: make the
// bed inside the bubble. When the test is over the bed checks that nothing is
// left: sessions, connections of either side, connections counted by the pool.
package cirquetest

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/memnet"
)

// patience bounds each wait of the bed: a test that hangs should say where.
const patience = 10 * time.Second

// Bed is a server with its client and its origins. Its methods may be called by
// several goroutines of the test.
type Bed struct {
	t         testing.TB
	server    *cirque.Server
	transport *cirque.Transport
	front     *memnet.Listener
	client    *http.Client
	origin    *origin // that of Peer

	mu      sync.Mutex
	ended   *sync.Cond
	begun   int                         // Guarded by mu: sessions that have an order.
	outcome []ended                     // Guarded by mu.
	traffic map[netip.AddrPort]*traffic // Guarded by mu: by the client's end.
	origins []*origin                   // Guarded by mu.
	conns   []*memnet.Conn              // Guarded by mu: those of Dial.
}

// traffic is what happened on a connection of the bed's client.
type traffic struct {
	sent     int // requests
	answered int // the last of them that got a response
	ended    int // sessions
}

// ended is a session that is over.
type ended struct {
	order int
	cirque.Snapshot
}

// New returns a bed with a proxy in it, which is the bed's from now on: where
// its Peer is nil it becomes the bed's, where its Transport is nil it gets one
// that the bed closes, and a filter is added at either end of its list.
func New(t testing.TB, proxy *cirque.Proxy) *Bed {
	t.Helper()
	return NewServer(t, &cirque.Server{Proxy: proxy})
}

// NewServer is New for a whole server. Proxies are those that its Route may
// return, all of them, besides its Proxy. Where its Logger is nil it logs to the
// test.
func NewServer(t testing.TB, srv *cirque.Server, proxies ...*cirque.Proxy) *Bed {
	t.Helper()
	b := &Bed{t: t, server: srv, transport: &cirque.Transport{}, front: memnet.Listen(), traffic: map[netip.AddrPort]*traffic{}}
	b.ended = sync.NewCond(&b.mu)
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if srv.Proxy == nil {
		// Answers 404 as none does, and notes that.
		srv.Proxy = &cirque.Proxy{Filters: b.around(nil)}
	} else {
		b.prepare(srv.Proxy)
	}
	for _, p := range proxies {
		b.prepare(p)
	}
	b.origin = b.newOrigin("origin", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "cirquetest: the bed's origin has no handler", http.StatusNotImplemented)
	}))
	b.client = &http.Client{
		Transport:     &http.Transport{DialContext: b.front.Dial, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	servedc := make(chan struct{})
	go func() {
		defer close(servedc)
		_ = srv.Serve(b.front)
	}()
	t.Cleanup(func() { b.close(servedc) })
	return b
}

func (b *Bed) prepare(p *cirque.Proxy) {
	if p.Transport == nil {
		p.Transport = b.transport
	}
	if p.Peer == nil {
		p.Peer = func(*cirque.Session) (*cirque.Peer, error) { return b.Peer(), nil }
	}
	// Before the bed's filters are added: an error counts the test's own.
	if err := (&cirque.Proxy{Filters: p.Filters}).Validate(); err != nil {
		b.t.Fatalf("cirquetest: the proxy %q: %v", p.Name, err)
	}
	p.Filters = b.around(p.Filters)
}

// Server returns the bed's server, for its Stats.
func (b *Bed) Server() *cirque.Server { return b.server }

// Transport returns the Transport of the Proxies that had none.
func (b *Bed) Transport() *cirque.Transport { return b.transport }

var orderKey = cirque.NewKey[int]("cirquetest")

// around adds the bed's own filters: the first sees the head of each response
// before the client does, the last sees each end after all other hooks.
func (b *Bed) around(filters []cirque.Filter) []cirque.Filter {
	all := []cirque.Filter{{Name: "cirquetest-order", Response: func(s *cirque.Session) error {
		orderKey.Set(s, b.next())
		return nil
	}}}
	return append(append(all, filters...), cirque.Filter{Name: "cirquetest", Done: b.done})
}

func (b *Bed) next() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun++
	return b.begun
}

// done notes how a session ended.
func (b *Bed) done(s *cirque.Session, _ error) {
	e := ended{orderKey.Get(s), s.Snapshot()}
	if e.order == 0 {
		e.order = b.next() // it has sent no response
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outcome = append(b.outcome, e)
	if t := b.traffic[e.ClientAddr]; t != nil {
		t.ended++
	}
	b.ended.Broadcast()
}

// Wait waits until the session of each request that the bed's client got a
// response to has ended, which is a little after the response, and returns how
// all sessions since the bed was made have ended, in the order of their
// responses. Requests that got no response, and those on connections of Dial,
// are not waited for: see WaitFor.
func (b *Bed) Wait() []cirque.Snapshot {
	b.t.Helper()
	return b.wait("a session does not end", func() bool {
		for _, t := range b.traffic {
			if t.ended < t.answered {
				return false
			}
		}
		return true
	})
}

// WaitFor is Wait until n sessions in all have ended.
func (b *Bed) WaitFor(n int) []cirque.Snapshot {
	b.t.Helper()
	return b.wait(fmt.Sprintf("want %d", n), func() bool { return len(b.outcome) >= n })
}

// wait waits until enough, which is called with the lock held, and returns the
// sessions.
func (b *Bed) wait(what string, enough func() bool) []cirque.Snapshot {
	b.t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		late = true
		b.ended.Broadcast()
	})
	defer timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for !enough() {
		if late {
			b.t.Fatalf("cirquetest: %d sessions have ended after %v: %s", len(b.outcome), patience, what)
		}
		b.ended.Wait()
	}
	slices.SortFunc(b.outcome, func(x, y ended) int { return x.order - y.order })
	all := make([]cirque.Snapshot, len(b.outcome))
	for i := range all {
		all[i] = b.outcome[i].Snapshot
	}
	return all
}

// Link is what the connections of one side are like. The zero value is a
// connection without faults.
type Link struct {
	// Delay is how long bytes are on their way, in each direction.
	Delay time.Duration
	// Chunk makes each read return at most so many bytes, however many there
	// are. If zero or negative, there is no such bound.
	Chunk int
	// Buffer is how many bytes a direction holds before its writer waits. If zero
	// or negative, 64 KiB.
	Buffer int
}

func (l Link) setup(a, b *memnet.Conn) {
	for _, c := range []*memnet.Conn{a, b} {
		c.SetDelay(l.Delay)
		c.SetChunk(l.Chunk)
		c.SetBuffer(l.Buffer)
	}
}

// SetClientLink says what connections from clients are like from now on.
func (b *Bed) SetClientLink(l Link) { b.front.Setup(l.setup) }

// SetOriginLink says what new connections to all origins that there are now are
// like from now on.
func (b *Bed) SetOriginLink(l Link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.origins {
		o.listener.Setup(l.setup)
	}
}

// Dial returns a new connection to the proxy, for what the bed's client does not
// say. The test closes it. It also has the methods CloseWrite() error and
// Reset() error.
func (b *Bed) Dial() net.Conn {
	b.t.Helper()
	c, err := b.front.Connect()
	if err != nil {
		b.t.Fatalf("cirquetest: %v", err)
	}
	b.mu.Lock()
	b.conns = append(b.conns, c)
	b.mu.Unlock()
	return c
}

// close ends everything and reports what should have ended by itself.
func (b *Bed) close(servedc <-chan struct{}) {
	b.checkDialed()
	b.client.CloseIdleConnections()
	closedc := make(chan struct{})
	go func() {
		defer close(closedc)
		_ = b.server.Close()
		<-servedc
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	t := b.t
	select {
	case <-closedc:
	case <-timer.C:
		t.Errorf("cirquetest: a session does not end: does a hook wait for ever?")
		t = nil // more would only say the same in other words
	}
	b.transport.Close()
	for _, o := range b.origins {
		o.close(t)
	}
	if t == nil {
		return
	}
	if n := b.transport.Stats().Conns; n != 0 {
		t.Errorf("cirquetest: %d connections to origins were not given back", n)
	}
	if n := b.front.WaitClosed(patience); n != 0 {
		t.Errorf("cirquetest: %d ends of client connections are open: was a response body not closed?", n)
	}
}

// checkDialed finds the connections of Dial that the test has not closed.
func (b *Bed) checkDialed() {
	b.mu.Lock()
	conns := b.conns
	b.mu.Unlock()
	left := 0
	for _, c := range conns {
		if c.Close() == nil {
			left++
		}
	}
	if left > 0 {
		b.t.Errorf("cirquetest: %d connections of Dial were not closed", left)
	}
}
