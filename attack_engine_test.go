package cirque_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/cirquetest"
	"github.com/cirqueproxy/cirque/reason"
)

// pattern is a stream in which each byte is known.
func pattern(n int) []byte {
	b := make([]byte, 0, n+16)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%015d\n", i)
	}
	return b[:n]
}

// A1: a pooled connection keeps the interruption that its last user's client caused.
func TestAttackPoisonedPool(t *testing.T) {
	body := strings.Repeat("x", 24<<20)
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/big" {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			io.WriteString(w, body)
			return
		}
		hello(w, r)
	}))
	gone := make(chan struct{})
	b.proxy.Filters = append(b.proxy.Filters, cirque.Filter{Name: "hold", ResponseTrailer: func(s *cirque.Session) error {
		if s.Request().Path() == "/big" {
			<-gone
		}
		return nil
	}})
	c, r := b.raw()
	io.WriteString(c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, int64(len(body))); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	// The session is between its last read and its end; the sweep sees the FIN.
	time.AfterFunc(700*time.Millisecond, func() { close(gone) })
	b.done()
	b.want(b.client(), "GET", "/", "", 200, "hello")
	if e := b.done(); e != nil {
		t.Errorf("another client's request ended with %v", e)
	}
}

// A2: a tunnel whose reader pauses for longer than the write timeout has a hole.
func TestAttackTunnelHole(t *testing.T) {
	const size = 64 << 20
	data := pattern(size)
	wrotec := make(chan int, 1)
	addr := attackOrigin(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		n, _ := c.Write(data)
		wrotec <- n
	})
	b := newBed(t, http.NotFoundHandler())
	b.peer = cirque.NewPeer(addr)
	b.proxy.AllowConnect = true
	b.srv.WriteTimeout = 150 * time.Millisecond
	c, r := b.raw()
	_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
	io.WriteString(c, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
	if _, err := attackHead(r); err != nil {
		t.Fatal(err)
	}
	// The client does not read while the origin writes: it can send no more than
	// the buffers on the way hold, or is cut.
	select {
	case n := <-wrotec:
		t.Logf("the origin sent %d bytes to a client that read none", n)
	case <-time.After(3 * time.Second):
	}
	got, _ := io.ReadAll(r)
	if !bytes.HasPrefix(data, got) {
		i := 0
		for i < len(got) && got[i] == data[i] {
			i++
		}
		t.Errorf("the tunnel's stream has a hole after %d of %d bytes received", i, len(got))
	}
}

// A3: a handler's context does not end when the client leaves.
func TestAttackHandlerContextOutlivesClient(t *testing.T) {
	began, over := make(chan struct{}), make(chan bool, 1)
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "h", Request: func(s *cirque.Session) error {
		return s.ServeHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(began)
			select {
			case <-r.Context().Done():
				over <- true
			case <-time.After(3 * time.Second):
				over <- false
			}
		}))
	}})
	c, _ := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	c.Close()
	if !<-over {
		t.Error("the handler's context is alive 3 s after its client left")
	}
	b.done()
}

// A4: HEAD that a hook makes GET.
func TestAttackHeadMadeGet(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "get", Request: func(s *cirque.Session) error {
		if s.Request().Method() == "HEAD" {
			s.Request().SetMethod("GET")
		}
		return nil
	}})
	c, r := b.raw()
	io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
	head, err := attackHead(r)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Fatal(head, err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	line, _ := r.ReadString('\n')
	if !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Errorf("the response to HEAD had a body: what follows its head is %q", line)
	}
}

// A6: a hook that delivers another length is not the client's fault.
func TestAttackHookLengthReason(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "short",
		ResponseBody: func(_ *cirque.Session, p []byte, last bool) ([]byte, error) { return nil, nil }})
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	io.Copy(io.Discard, r)
	if e := b.done(); e == nil || e.Reason != reason.BadHookBody {
		t.Errorf("ended with %v, want bad_hook_body", e)
	}
}

// A8: ServeHTTP whose result the hook drops.
func TestAttackServeHTTPResultDropped(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "h", Request: func(s *cirque.Session) error {
		_ = s.ServeHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "local") }))
		return nil
	}})
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	all, _ := io.ReadAll(r)
	if n := strings.Count(string(all), "HTTP/1.1 "); n != 1 {
		t.Errorf("the client got %d responses: %q", n, all)
	}
}

// A9: BufferRequest's error ignored by the hook.
func TestAttackBufferRequestErrorIgnored(t *testing.T) {
	gotc := make(chan string, 1)
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			gotc <- string(body)
		}
	}), cirque.Filter{Name: "inspect", Request: func(s *cirque.Session) error {
		_, _ = s.BufferRequest(4) // "too large to inspect, let it pass"
		return nil
	}})
	c, r := b.raw()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n3\r\nghi\r\n0\r\n\r\n")
	line, _ := r.ReadString('\n')
	b.done()
	select {
	case got := <-gotc:
		if got != "abcdefghi" {
			t.Errorf("the origin got %q as the whole body (client: %q)", got, line)
		}
	default:
		if !strings.HasPrefix(line, "HTTP/1.1 413") {
			t.Errorf("got %q", line)
		}
	}
}

// A10: BufferRequest passes MaxRequestBody.
func TestAttackBufferPassesMaxBody(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "buffer", Request: func(s *cirque.Session) error {
		_, err := s.BufferRequest(1 << 20)
		return err
	}})
	b.proxy.MaxRequestBody = 10
	c, r := b.raw()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n")
	if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 413") {
		t.Errorf("20 bytes passed a limit of 10: %q", line)
	}
}

// A11: an origin slow to say 100 is blamed on the client.
func TestAttackExpectBlamesClient(t *testing.T) {
	addr := attackOrigin(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		if _, err := attackHead(r); err != nil {
			return
		}
		// A second of authentication.
		<-time.After(1500 * time.Millisecond)
		io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		if _, err := io.CopyN(io.Discard, r, 5); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	b := newBed(t, http.NotFoundHandler())
	b.peer = cirque.NewPeer(addr)
	b.srv.MinBodyGrace = 200 * time.Millisecond
	c, r := b.raw()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	line, _ := r.ReadString('\n')
	if !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Errorf("got %q, want 100", line)
	}
	io.WriteString(c, "hello")
	if e := b.done(); e != nil {
		t.Errorf("ended with %v", e)
	}
}

// A12: sticky failedByHook.
func TestAttackStickyFailedByHook(t *testing.T) {
	var mu sync.Mutex
	heads := 0
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "refuse", UpstreamResponse: func(s *cirque.Session) error {
		if s.Response().Status == 500 {
			return errors.New("not good enough")
		}
		return nil
	}})
	addr := attackOrigin(t, func(n int, c *net.TCPConn, r *bufio.Reader) {
		if _, err := attackHead(r); err != nil {
			return
		}
		mu.Lock()
		heads++
		first := heads == 1
		mu.Unlock()
		if first {
			io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		_, _ = r.ReadByte() // say nothing
	})
	b.peer = &cirque.Peer{Addr: addr, Timeouts: cirque.Timeouts{FirstByte: 150 * time.Millisecond}}
	b.want(b.client(), "GET", "/", "", 504, "upstream_timeout")
	b.done()
	mu.Lock()
	defer mu.Unlock()
	if heads != 2 {
		t.Errorf("%d attempts were sent, want 2: a timeout is not tried again without PerTry", heads)
	}
}

// A13: UpstreamRequest makes a GET a POST.
func TestAttackMethodMadePost(t *testing.T) {
	var mu sync.Mutex
	heads := 0
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "post", UpstreamRequest: func(s *cirque.Session) error {
		s.UpstreamRequest().SetMethod("POST")
		return nil
	}})
	b.peer = cirque.NewPeer(attackOrigin(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		if _, err := attackHead(r); err == nil {
			mu.Lock()
			heads++
			mu.Unlock()
		}
	}))
	b.want(b.client(), "GET", "/", "", 502, "")
	b.done()
	mu.Lock()
	defer mu.Unlock()
	if heads != 1 {
		t.Errorf("a POST was sent %d times", heads)
	}
}

// A17: hijack, then panic.
func TestAttackHijackThenPanic(t *testing.T) {
	ncc := make(chan net.Conn, 1)
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "h", Request: func(s *cirque.Session) error {
		return s.ServeHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			nc, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
			}
			ncc <- nc
			panic("after hijack")
		}))
	}})
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	nc := <-ncc
	b.done()
	io.WriteString(nc, "mine")
	nc.Close()
	got, _ := io.ReadAll(r)
	if string(got) != "mine" {
		t.Errorf("the hijacked connection carried %q", got)
	}
}

// A18: a kept request body reads the next request's.
func TestAttackStaleBodyReader(t *testing.T) {
	var kept io.ReadCloser
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "h", Request: func(s *cirque.Session) error {
		return s.ServeHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/1" {
				http.NewResponseController(w).EnableFullDuplex()
				kept = r.Body
				return
			}
			stolen, _ := io.ReadAll(kept)
			own, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "stolen=%q own=%q", stolen, own)
		}))
	}})
	c := b.client()
	if got, s := b.do(c, "POST", "/1", "first"); got != 200 {
		t.Fatal(got, s)
	}
	if _, s := b.do(c, "POST", "/2", "second"); s != `stolen="" own="second"` {
		t.Errorf("got %s", s)
	}
}

// A19: door 2 and an early response.
func TestAttackDoorEarlyResponse(t *testing.T) {
	addr := attackOrigin(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		if _, err := attackHead(r); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 401 No\r\nContent-Length: 3\r\n\r\nno\n")
		io.Copy(io.Discard, r)
	})
	p := &cirque.Proxy{Transport: &cirque.Transport{}, Peer: func(*cirque.Session) (*cirque.Peer, error) { return cirque.NewPeer(addr), nil },
		LogError: func(*cirque.Session, *cirque.Error) {}}
	srv := httptest.NewServer(p)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); p.Transport.Close() })
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.HasPrefix(line, "HTTP/1.1 401") {
		t.Errorf("got %q, %v", line, err)
	}
}

// A20: HTTP/1.0 upgrade.
//
// RFC 9110, section 7.8: Upgrade in a request of HTTP/1.0 is ignored.
func TestAttackUpgradeHTTP10(t *testing.T) {
	headc := make(chan string, 1)
	addr := attackOrigin(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		head, _ := attackHead(r)
		headc <- head
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	b := newBed(t, http.NotFoundHandler())
	b.peer = cirque.NewPeer(addr)
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.ReadAll(r)
	if head := <-headc; strings.Contains(strings.ToLower(head), "upgrade") {
		t.Errorf("the origin got %q", head)
	}
}

// A21: Connection: connection.
func TestAttackConnectionNamesItself(t *testing.T) {
	headc := make(chan string, 1)
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headc <- r.Header.Get("X-B")
	}))
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: connection, x-a\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 2\r\n\r\n")
	attackHead(r)
	if got := <-headc; got != "" {
		t.Errorf("X-B reached the origin: %q", got)
	}
}

// A22: Failed hook that responds and returns nil.
func TestAttackFailedHookResponds(t *testing.T) {
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "f", Failed: func(s *cirque.Session, e *cirque.Error) error {
		_ = s.Respond(418, "teapot")
		return nil
	}})
	b.peer = cirque.NewPeer("127.0.0.1:1")
	b.want(b.client(), "GET", "/", "", 418, "teapot")
}

// A23: a door-3 body closed while it is read.
func TestAttackRoundTripperConcurrentClose(t *testing.T) {
	addr := attackOrigin(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		for {
			if _, err := attackHead(r); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		}
	})
	tr := &cirque.Transport{}
	defer tr.Close()
	rt := tr.RoundTripper(cirque.NewPeer(addr))
	for range 50 {
		req, _ := http.NewRequest("GET", "http://a/", nil)
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4)
		if _, err := io.ReadFull(resp.Body, p); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { resp.Body.Read(p) })
		resp.Body.Close()
		wg.Wait()
	}
}

// A24: 1xx without end through door 3.
func TestAttackRoundTripperInterims(t *testing.T) {
	addr := attackOrigin(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		if _, err := attackHead(r); err != nil {
			return
		}
		for range 100000 {
			if _, err := io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
				return
			}
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	tr := &cirque.Transport{}
	defer tr.Close()
	req, _ := http.NewRequestWithContext(context.Background(), "GET", "http://a/", nil)
	resp, err := tr.RoundTripper(cirque.NewPeer(addr)).RoundTrip(req)
	if err == nil {
		resp.Body.Close()
		t.Error("100,000 interim responses were taken")
	}
}

// A25: a connection closed by its former owner while parked.
func TestAttackParkedConnClosedOutside(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	b.srv.ParkAfter = 50 * time.Millisecond
	ncc := make(chan net.Conn, 1)
	b.srv.AcceptConn = func(nc net.Conn) error { ncc <- nc; return nil }
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	for b.srv.Stats().ConnsParked != 1 {
		runtime.Gosched()
	}
	(<-ncc).Close() // an operator's "kick"
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	if err := b.srv.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v: the connection is lost", err)
		panic("Close would hang in the cleanup")
	}
}

// A27: the wait for a response head begins at the request's end.
func TestAttackFirstByteAfterLongUpload(t *testing.T) {
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			time.Sleep(10 * time.Second) // of 60 that it has
			io.WriteString(w, "done")
		}))
		nc := bed.Dial()
		defer nc.Close()
		io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 55 { // an honest upload of 55 seconds
			io.WriteString(nc, "800\r\n"+strings.Repeat("x", 0x800)+"\r\n")
			time.Sleep(time.Second)
		}
		io.WriteString(nc, "0\r\n\r\n")
		if line := firstLine(t, nc); line != "HTTP/1.1 200 OK" {
			t.Errorf("got %q: the origin had 60 s and took 10", line)
		}
	})
}

// A28: a connection made after a quiet time is not old.
func TestAttackMaxAgeAfterQuiet(t *testing.T) {
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		p := bed.Peer()
		p.MaxAge = time.Minute
		get := func() {
			if s := cirquetest.Body(bed.Get("/")); s != "hello" {
				t.Error(s)
			}
		}
		get()
		bed.Transport().CloseIdleConnections()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		get()
		get()
		if st := bed.Transport().Stats(); st.Connects != 2 {
			t.Errorf("%d connects, want 2: the second connection was young (retired %d)", st.Connects, st.Retired)
		}
	})
}

// slowObserver says the end of an attempt slowly.
type slowObserver struct{ d time.Duration }

func (slowObserver) Began(*cirque.Peer)     {}
func (o slowObserver) Ended(cirque.Attempt) { time.Sleep(o.d) }

// A29: a total time that passes after the response is complete costs the client nothing.
func TestAttackTotalAfterResponse(t *testing.T) {
	bubble(t, &cirque.Proxy{Timeouts: cirque.Timeouts{Total: 5 * time.Second}}, func(t *testing.T, bed *cirquetest.Bed) {
		bed.Peer().Observer = slowObserver{6 * time.Second}
		nc := bed.Dial()
		defer nc.Close()
		r := bufio.NewReader(nc)
		for i := range 2 {
			io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			io.Copy(io.Discard, resp.Body)
			time.Sleep(10 * time.Second)
		}
	})
}

// A30: the retry budget holds when attempts take longer than its window.
func TestAttackRetryBudgetOfSlowRequests(t *testing.T) {
	bubble(t, &cirque.Proxy{Retry: cirque.Retry{Attempts: 2, PerTry: 12 * time.Second}}, func(t *testing.T, bed *cirquetest.Bed) {
		var mu sync.Mutex
		heads := 0
		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			heads++
			mu.Unlock()
			<-r.Context().Done()
		}))
		const n = 3000
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				nc := bed.Dial()
				io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				io.Copy(io.Discard, nc)
				nc.Close()
			})
			time.Sleep(20 * time.Millisecond) // 50 a second for a minute
		}
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		// 500 requests in a window of 10 s: 100 repetitions each, in 8 windows at most.
		if again := heads - n; again > 900 {
			t.Errorf("%d of %d requests were sent again; the budget is 20 %% above a floor of 10 a second", again, n)
		}
	})
}
