package cirque_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cirqueproxy/cirque"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// bed is a proxy between an http.Handler and a client, on real sockets.
type bed struct {
	t     *testing.T
	proxy *cirque.Proxy
	srv   *cirque.Server
	peer  *cirque.Peer
	addr  string
	start func()

	mu    sync.Mutex
	calls []string // Guarded by mu: what hooks noted.
	donec chan error
}

func newBed(t *testing.T, h http.Handler, filters ...cirque.Filter) *bed {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var wg sync.WaitGroup
	wg.Go(func() { origin.Serve(l) })
	b := &bed{t: t, peer: cirque.NewPeer(l.Addr().String()), donec: make(chan error, 1000)}
	filters = append(filters, cirque.Filter{Name: "bed", Done: func(_ *cirque.Session, err error) { b.donec <- err }})
	b.proxy = &cirque.Proxy{
		Name: "test", Filters: filters, Transport: &cirque.Transport{},
		Peer:     func(*cirque.Session) (*cirque.Peer, error) { return b.present(), nil },
		LogError: func(*cirque.Session, *cirque.Error) {},
	}
	b.srv = &cirque.Server{Proxy: b.proxy, Logger: slog.New(slog.DiscardHandler)}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = front.Addr().String()
	// The server starts with the first client: until then fields may be set.
	b.start = sync.OnceFunc(func() { wg.Go(func() { b.srv.Serve(front) }) })
	t.Cleanup(func() {
		b.start()
		b.srv.Close()
		b.proxy.Transport.Close()
		origin.Close()
		wg.Wait()
	})
	return b
}

// use makes p the peer of what follows.
func (b *bed) use(p *cirque.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peer = p
}

func (b *bed) present() *cirque.Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peer
}

func (b *bed) note(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, s)
}

func (b *bed) wantCalls(want string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := strings.Join(b.calls, " "); got != want {
		b.t.Errorf("hooks ran as\n%s\nwant\n%s", got, want)
	}
	b.calls = nil
}

// client returns a client with one connection of its own.
func (b *bed) client() *http.Client {
	b.start()
	tr := &http.Transport{MaxConnsPerHost: 1, DisableCompression: true}
	b.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// do sends a request and returns status and body.
func (b *bed) do(c *http.Client, method, path, body string, fields ...string) (int, string) {
	b.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://"+b.addr+path, r)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

func (b *bed) want(c *http.Client, method, path, body string, status int, text string) {
	b.t.Helper()
	if got, s := b.do(c, method, path, body); got != status || !strings.Contains(s, text) {
		b.t.Errorf("%s %s: got %d %q, want %d %q", method, path, got, s, status, text)
	}
}

// done returns how the next session ended.
func (b *bed) done() *cirque.Error {
	b.t.Helper()
	select {
	case err := <-b.donec:
		var e *cirque.Error
		errors.As(err, &e)
		return e
	case <-time.After(5 * time.Second):
		b.t.Fatal("no session ended")
		return nil
	}
}

// raw opens a connection of one's own.
func (b *bed) raw() (net.Conn, *bufio.Reader) {
	b.t.Helper()
	b.start()
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b.t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }
