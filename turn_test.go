package cirque_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

// echo answers while it reads.
func echo(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	w.Header().Set("Trailer", "X-Sum")
	w.Header().Set("X-From", "origin")
	buf := make([]byte, 1000)
	for {
		n, err := r.Body.Read(buf)
		w.Write(buf[:n])
		rc.Flush()
		if err != nil {
			w.Header().Set("X-Sum", r.Trailer.Get("X-Up"))
			return
		}
	}
}

// TestTurn: while a body flows each way there are two goroutines, and still no
// two hooks of the session run at the same time; each may look at and change
// everything, as the race detector confirms. Whatever protocols there are.
func TestTurn(t *testing.T) {
	for _, down := range []string{"h1", "h2c"} {
		for _, up := range []string{"h1", "h2c"} {
			t.Run(down+" to "+up, func(t *testing.T) { turn(t, down, up) })
		}
	}
}

func turn(t *testing.T, down, up string) {
	var inside, most atomic.Int64
	count := cirque.NewKey[int]("count")
	var upward, downward atomic.Int64
	look := func(s *cirque.Session) {
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
		count.Set(s, count.Get(s)+1)
		n := s.Snapshot()
		if n.Attempt.Number != 1 || s.Attempts() != 1 || n.Request.Method() != "POST" {
			t.Errorf("%+v", n)
		}
		if st := s.Response().Status; st != 0 && st != 200 {
			t.Errorf("status %d", st)
		}
		if s.Response().Status == 200 && s.Response().Header.Get("X-From") != "origin" {
			t.Error("half a head")
		}
		s.Request().Header.Set("X-Seen", "1")
		s.Response().Header.Set("X-Seen", fmt.Sprint(count.Get(s)))
		s.Response().Trailer.Set("X-Seen", "1")
		s.Request().Trailer.Set("X-Seen", "1")
		if _, remote := s.UpstreamAddr(); remote == nil {
			t.Error("no address")
		}
		_, _, _ = s.BytesSent(), s.Err(), s.Context()
		inside.Add(-1)
	}
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{
		Name: "f",
		RequestBody: func(s *cirque.Session, p []byte, _ bool) ([]byte, error) {
			upward.Add(1)
			look(s)
			return p, nil
		},
		Response: func(s *cirque.Session) error { look(s); return nil },
		ResponseBody: func(s *cirque.Session, p []byte, _ bool) ([]byte, error) {
			downward.Add(1)
			look(s)
			return p, nil
		},
		ResponseTrailer: func(s *cirque.Session) error { look(s); return nil },
		Done: func(s *cirque.Session, _ error) {
			if n := int64(count.Get(s)); n != upward.Load()+downward.Load()+2 {
				t.Errorf("%d hooks counted, %d and %d and 2 ran", n, upward.Load(), downward.Load())
			}
		},
	})
	b.srv.H2C = true
	origin := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	origin.Config.Protocols = new(http.Protocols)
	origin.Config.Protocols.SetHTTP1(true)
	origin.Config.Protocols.SetUnencryptedHTTP2(true)
	origin.Start()
	defer origin.Close()
	b.peer = cirque.NewPeer(origin.Listener.Addr().String())
	if up == "h2c" {
		b.peer.Protocol = cirque.ProtocolH2C
	}
	b.start()
	pr, pw := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 300 {
			pw.Write(bytes.Repeat([]byte("x"), 1000))
		}
		pw.Close()
	})
	req, _ := http.NewRequest("POST", "http://"+b.addr, pr)
	req.Trailer = http.Header{"X-Up": {"up"}}
	resp, err := matrixClient(t, down, nil).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if n != 300_000 || err != nil || most.Load() != 1 || resp.Trailer.Get("X-Sum") != "up" {
		t.Errorf("%d bytes (%v), %d hooks at once, trailer %v", n, err, most.Load(), resp.Trailer)
	}
	wg.Wait()
	if e := b.done(); e != nil {
		t.Error(e)
	}
}

// answering returns a filter whose RequestBody hook responds when it sees word.
func answering(word string) cirque.Filter {
	return cirque.Filter{Name: "answer", RequestBody: func(s *cirque.Session, p []byte, _ bool) ([]byte, error) {
		if bytes.Contains(p, []byte(word)) {
			s.Response().Header.Set("X-Local", "1")
			return nil, s.Respond(422, "no "+word)
		}
		return p, nil
	}}
}

// mark counts the Response hooks that see a response.
func mark(name string, n *atomic.Int64) cirque.Filter {
	return cirque.Filter{Name: name, Response: func(s *cirque.Session) error {
		n.Add(1)
		s.Response().Header.Set("X-"+name, "1")
		return nil
	}}
}

// TestBodyHookResponds: a RequestBody hook's response is like one of any hook,
// whether the body came with the head or flows while the origin is waited for.
func TestBodyHookResponds(t *testing.T) {
	var outer, inner atomic.Int64
	for _, c := range []struct {
		name, first, rest string
	}{
		{"with the head", "bad", ""},
		{"later", strings.Repeat("x", 100000), "bad"},
		{"in the last piece", "x", strings.Repeat("y", 70000) + "bad"},
	} {
		t.Run(c.name, func(t *testing.T) {
			outer.Store(0)
			inner.Store(0)
			b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				io.WriteString(w, "from the origin")
			}), mark("outer", &outer), answering("bad"), mark("inner", &inner))
			nc, r := b.raw()
			fmt.Fprintf(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(c.first)+len(c.rest), c.first)
			io.WriteString(nc, c.rest)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if resp.StatusCode != 422 || string(body) != "no bad" || err != nil || resp.Header.Get("X-Local") != "1" {
				t.Errorf("%s %q %v %v", resp.Status, body, resp.Header, err)
			}
			if outer.Load() != 1 || inner.Load() != 0 || resp.Header.Get("X-Outer") != "1" {
				t.Errorf("%d outer and %d inner Response hooks ran", outer.Load(), inner.Load())
			}
			if e := b.done(); e != nil {
				t.Errorf("ended with %v", e)
			}
		})
	}
}

// TestBodyHookRespondsAfterInterim: a 1xx is no answer yet.
func TestBodyHookRespondsAfterInterim(t *testing.T) {
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		io.Copy(io.Discard, r.Body)
	}), answering("bad"))
	nc, r := b.raw()
	io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 50000))
	if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 103 ") {
		t.Fatalf("got %q", line)
	}
	_, _ = r.ReadString('\n')
	io.WriteString(nc, "bad")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 422 {
		t.Fatalf("%v %v", resp, err)
	}
	if e := b.done(); e != nil {
		t.Errorf("ended with %v", e)
	}
}

// TestBodyHookTooLate: once the origin has answered a RequestBody hook cannot, and
// what it tried ends the response visibly.
func TestBodyHookTooLate(t *testing.T) {
	b := newBed(t, http.HandlerFunc(echo), answering("bad"))
	nc, r := b.raw()
	io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"+strings.Repeat("x", 100000))
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	io.WriteString(nc, "bad")
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes as whole", len(body))
	}
	if e := b.done(); e == nil || e.Reason != reason.HookError || e.Hook != "answer" {
		t.Errorf("ended with %v", e)
	}
}

// TestBodyHookOfAHandler: where an http.Handler answers, a RequestBody hook of a
// filter before it can only make its read fail.
func TestBodyHookOfAHandler(t *testing.T) {
	var got error
	b := newBed(t, http.NotFoundHandler(), answering("bad"), cirque.Filter{Name: "h", Request: func(s *cirque.Session) error {
		return s.ServeHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, got = io.ReadAll(r.Body)
			w.WriteHeader(400)
		}))
	}})
	b.want(b.client(), "POST", "/", "bad", 400, "")
	var e *cirque.Error
	if b.done(); !errors.As(got, &e) || e.Hook != "answer" {
		t.Errorf("the handler read %v", got)
	}
}

// TestBodyHookAborts: net/http's way to cut a response works in a hook that runs
// beside it.
func TestBodyHookAborts(t *testing.T) {
	b := newBed(t, http.HandlerFunc(echo), cirque.Filter{Name: "f", RequestBody: func(_ *cirque.Session, p []byte, _ bool) ([]byte, error) {
		if bytes.Contains(p, []byte("bad")) {
			panic(http.ErrAbortHandler)
		}
		return p, nil
	}})
	nc, r := b.raw()
	io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"+strings.Repeat("x", 100000))
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	io.WriteString(nc, "bad")
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes as whole", len(body))
	}
	if e := b.done(); !errors.Is(e, http.ErrAbortHandler) {
		t.Errorf("ended with %v", e)
	}
}

// TestTurnBehindADoor: the same two goroutines exist where net/http's server has
// the client and a RoundTripper the origin.
func TestTurnBehindADoor(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(echo))
	defer origin.Close()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	count := cirque.NewKey[int]("count")
	hook := func(s *cirque.Session, p []byte, _ bool) ([]byte, error) {
		count.Set(s, count.Get(s)+1)
		_ = s.Snapshot()
		s.Response().Header.Set("X-Seen", "1")
		return p, nil
	}
	peer := &cirque.Peer{Addr: origin.Listener.Addr().String(), RoundTripper: tr}
	proxy := &cirque.Proxy{
		Peer:    func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
		Filters: []cirque.Filter{{Name: "f", RequestBody: hook, ResponseBody: hook}},
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	pr, pw := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			pw.Write(bytes.Repeat([]byte("x"), 1000))
		}
		pw.Close()
	})
	resp, err := front.Client().Post(front.URL, "", pr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != 100_000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	wg.Wait()
}
