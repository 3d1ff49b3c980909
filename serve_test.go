package cirque_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

// TestShutdown: running requests finish, idle connections end at once, new ones
// are refused, responses say that the connection closes (rows S10, S11, S13).
func TestShutdown(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(inside)
			<-release
		}
		io.WriteString(w, "hello")
	}))
	idle, idleR := b.raw()
	io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(idleR, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(resp.Body)
	fresh, freshR := b.raw() // accepted, and silent
	_ = fresh
	busy, busyR := b.raw()
	io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-inside

	errc := make(chan error)
	go func() { errc <- b.srv.Shutdown(context.Background()) }()
	if _, err := idleR.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection: %v", err)
	}
	if _, err := freshR.ReadByte(); err != io.EOF {
		t.Errorf("the fresh connection: %v", err)
	}
	if _, err := net.Dial("tcp", b.addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v", err)
	}
	close(release)
	if resp, err = http.ReadResponse(busyR, nil); err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if string(body) != "hello" || !resp.Close {
		t.Errorf("got %q, close %v", body, resp.Close)
	}
	if err := <-errc; err != nil {
		t.Error(err)
	}
	if err := b.srv.Serve(nopListener{}); err != cirque.ErrServerClosed {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

type nopListener struct{}

func (nopListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (nopListener) Close() error              { return nil }
func (nopListener) Addr() net.Addr            { return &net.TCPAddr{} }

// TestShutdownDeadline: what still runs is left to Close, which cuts it.
func TestShutdownDeadline(t *testing.T) {
	inside := make(chan struct{})
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
	}))
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	b.srv.Close()
	if _, err := r.ReadByte(); err == nil {
		t.Error("an answer came")
	}
	if e := b.done(); e == nil {
		t.Error("the session did not fail")
	}
}

// TestShutdownParked: parked connections end too.
func TestShutdownParked(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	b.srv.ParkAfter = time.Millisecond
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(resp.Body)
	for b.srv.Stats().ConnsParked == 0 {
		runtime.Gosched()
	}
	if err := b.srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the parked connection: %v", err)
	}
	if n := b.srv.Stats().Ends[reason.Shutdown]; n != 1 {
		t.Errorf("%d connections ended for shutdown", n)
	}
}

// TestAcceptConn: row L6: a connection filter refuses before a byte is read or
// sent.
func TestAcceptConn(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	b.srv.AcceptConn = func(nc net.Conn) error { return errors.New("not you") }
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got, _ := io.ReadAll(r); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	if st := b.srv.Stats(); st.Refused != 1 || st.Requests != 0 {
		t.Errorf("%+v", st)
	}
}

// TestServeConn: row X20: usable without the Server's own accept loop.
func TestServeConn(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	near, far := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { b.srv.ServeConn(near) })
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return far, nil }}}
	resp, err := c.Get("http://any/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "hello" {
		t.Errorf("got %q", body)
	}
	wg.Wait()
}

// TestMaxConns: more connections wait in the listener's queue.
func TestMaxConns(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	b.srv.MaxConns = 1
	first, _ := b.raw()
	second, r := b.raw()
	io.WriteString(second, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	_ = second.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if _, err := r.ReadByte(); !isTimeout(err) {
		t.Fatalf("the second connection was served: %v", err)
	}
	first.Close()
	_ = second.SetReadDeadline(time.Now().Add(5 * time.Second))
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("after the first had ended: %v", err)
	}
}

// failingListener fails a few times as a process without descriptors does.
type failingListener struct {
	net.Listener
	mu   sync.Mutex
	left int
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	l.left--
	fail := l.left >= 0
	l.mu.Unlock()
	if fail {
		return nil, fmt.Errorf("accept: %w", syscall.EMFILE)
	}
	return l.Listener.Accept()
}

// TestAcceptRecovers: row L7.
func TestAcceptRecovers(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { b.srv.Serve(&failingListener{Listener: l, left: 3}) })
	b.addr = l.Addr().String()
	b.want(b.client(), "GET", "/", "", 200, "hello")
	b.srv.Close()
	wg.Wait()
}

// TestPeerMaxConns: a peer at its limit makes sessions wait, in order, and
// refuses those beyond its queue.
func TestPeerMaxConns(t *testing.T) {
	inside, release := make(chan struct{}, 10), make(chan struct{})
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside <- struct{}{}
		<-release
		io.WriteString(w, r.URL.Path)
	}))
	b.peer.MaxConns, b.peer.MaxQueue = 1, 1
	answers := make(chan string, 3)
	ask := func(path string) {
		c := b.client()
		go func() {
			s, body := b.do(c, "GET", path, "")
			answers <- fmt.Sprint(s, " ", body)
		}()
	}
	ask("/1")
	<-inside
	ask("/2")
	for b.srv.Stats().ConnsActive < 2 {
		runtime.Gosched()
	}
	// One of the two now holds the only place in the queue; this third one may
	// come before it, so either is refused, and exactly one is.
	ask("/3")
	refused := <-answers
	if !strings.HasPrefix(refused, "503 ") || !strings.Contains(refused, "peer_limit") {
		t.Errorf("got %q", refused)
	}
	close(release)
	for range 2 {
		if a := <-answers; !strings.HasPrefix(a, "200 ") {
			t.Errorf("got %q", a)
		}
	}
	if st := b.proxy.Transport.Stats(); st.Connects != 1 || st.Reuses != 1 {
		t.Errorf("%+v", st)
	}
}

// TestPoolEvictsLeastRecentlyUsed: row U18.
func TestPoolEvictsLeastRecentlyUsed(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	b.proxy.Transport.MaxIdleConns = 1
	other := &cirque.Peer{Addr: b.peer.Addr, Unique: "other"}
	b.proxy.Peer = func(s *cirque.Session) (*cirque.Peer, error) {
		if s.Request().Path() == "/other" {
			return other, nil
		}
		return b.peer, nil
	}
	c := b.client()
	b.want(c, "GET", "/", "", 200, "hello")
	b.want(c, "GET", "/other", "", 200, "hello")
	b.done()
	b.done()
	b.want(c, "GET", "/other", "", 200, "hello")
	b.want(c, "GET", "/", "", 200, "hello")
	if st := b.proxy.Transport.Stats(); st.Connects != 3 || st.Reuses != 1 || st.Evicted < 1 || st.Idle > 1 {
		t.Errorf("%+v", st)
	}
}

// TestUnixSockets: a peer and a listener at a path.
func TestUnixSockets(t *testing.T) {
	dir := t.TempDir()
	ol, err := net.Listen("unix", dir+"/origin")
	if err != nil {
		t.Fatal(err)
	}
	origin := &http.Server{Handler: http.HandlerFunc(hello)}
	var wg sync.WaitGroup
	wg.Go(func() { origin.Serve(ol) })
	tr := &cirque.Transport{}
	peer := cirque.NewPeer("unix:" + dir + "/origin")
	srv := &cirque.Server{Addr: "unix:" + dir + "/front", Proxy: &cirque.Proxy{
		Transport: tr, Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	wg.Go(func() { srv.ListenAndServe() })
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		for {
			if nc, err := net.Dial("unix", dir+"/front"); err == nil {
				return nc, nil
			}
		}
	}}}
	resp, err := c.Get("http://any/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	srv.Close()
	tr.Close()
	origin.Close()
	wg.Wait()
}

// TestOriginRestarts: an origin that closed all of its idle connections costs no
// request, however many there were.
func TestOriginRestarts(t *testing.T) {
	inside, release := make(chan struct{}, 100), make(chan struct{})
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			inside <- struct{}{}
			<-release
		}
		io.WriteString(w, "hello")
	}))
	var dialed []net.Conn
	var mu sync.Mutex
	b.peer.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		mu.Lock()
		defer mu.Unlock()
		dialed = append(dialed, nc)
		return nc, err
	}
	const conns = 40
	var wg sync.WaitGroup
	for range conns {
		c := b.client()
		wg.Go(func() { b.want(c, "GET", "/wait", "", 200, "hello") })
	}
	for range conns {
		<-inside
	}
	close(release)
	wg.Wait()
	mu.Lock()
	for _, nc := range dialed {
		_ = nc.(*net.TCPConn).CloseWrite() // the origin closes its side too
	}
	mu.Unlock()
	for _, nc := range dialed {
		for { // until its FIN has come
			raw, _ := nc.(*net.TCPConn).SyscallConn()
			var one [1]byte
			n, err := 0, error(nil)
			_ = raw.Read(func(fd uintptr) bool {
				n, _, err = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
				return true
			})
			if n == 0 && err == nil {
				break
			}
			runtime.Gosched()
		}
	}
	b.want(b.client(), "GET", "/", "", 200, "hello")
	for range conns + 1 {
		if e := b.done(); e != nil {
			t.Error(e)
		}
	}
}
