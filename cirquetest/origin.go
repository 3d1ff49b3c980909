package cirquetest

import (
	"io"
	"log"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/memnet"
)

// origin is an HTTP server that a peer reaches.
type origin struct {
	peer     *cirque.Peer
	listener *memnet.Listener
	server   http.Server
	handler  atomic.Pointer[http.Handler]
	servedc  chan struct{}

	mu      sync.Mutex
	idle    *sync.Cond
	running int // Guarded by mu: calls of the handler.
}

// ServeHTTP counts the calls of the handler.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.count(1)
	defer o.count(-1)
	(*o.handler.Load()).ServeHTTP(w, r)
}

func (o *origin) count(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running += n
	o.idle.Broadcast()
}

// Origin sets what answers at the bed's Peer. It may be called again.
func (b *Bed) Origin(h http.Handler) { b.origin.handler.Store(&h) }

// Peer returns the peer of the bed's origin, for the Proxy's Peer function.
func (b *Bed) Peer() *cirque.Peer { return b.origin.peer }

// AddOrigin starts a further origin and returns its peer. The peer is new: its
// fields but Addr, Dial and Unique may be set before its first use.
func (b *Bed) AddOrigin(name string, h http.Handler) *cirque.Peer { return b.newOrigin(name, h).peer }

func (b *Bed) newOrigin(name string, h http.Handler) *origin {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := memnet.Listen()
	o := &origin{listener: l, servedc: make(chan struct{})}
	o.peer = &cirque.Peer{
		Addr: "origin.test:80", Name: name, Unique: "cirquetest " + strconv.Itoa(len(b.origins)),
		Dial: l.Dial,
	}
	o.handler.Store(&h)
	o.idle = sync.NewCond(&o.mu)
	o.server.Handler = o
	o.server.ErrorLog = log.New(io.Discard, "", 0) // an aborted connection is often what is tested
	b.origins = append(b.origins, o)
	go func() {
		defer close(o.servedc)
		_ = o.server.Serve(l)
	}()
	return o
}

// close ends the origin, after the proxy has closed its connections. It waits
// for handlers without a bound: one may sleep for an hour of fake time. If t is
// nil it waits for nothing and reports nothing.
func (o *origin) close(t testing.TB) {
	_ = o.server.Close()
	<-o.servedc
	if t == nil {
		return
	}
	hint := time.AfterFunc(patience, func() {
		t.Logf("cirquetest: waiting for a handler of the origin %s, which does not look at its request's context", o.peer)
	})
	o.mu.Lock()
	for o.running > 0 {
		o.idle.Wait()
	}
	o.mu.Unlock()
	hint.Stop()
	if n := o.listener.WaitClosed(patience); n != 0 {
		t.Errorf("cirquetest: %d ends of connections to the origin %s are open", n, o.peer)
	}
}
