package cirque_test

import (
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
	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/reason"
)

// stubborn is a body that does not look at any context.
type stubborn struct {
	first string
	over  chan struct{}
}

func (b *stubborn) Read(p []byte) (int, error) {
	if b.first != "" {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	<-b.over
	return 0, io.EOF
}

func (b *stubborn) Close() error { return nil }

// TestRoundTripperTimeouts: the timeouts of a peer bound one that is reached through
// a RoundTripper, whether that looks at its request's context or not.
func TestRoundTripperTimeouts(t *testing.T) {
	for name, c := range map[string]struct {
		roundTrip func(over chan struct{}, r *http.Request) (*http.Response, error)
		method    string
		timeouts  cirque.Timeouts
		wait      time.Duration
		status    int
		reason    cirque.Reason
	}{
		"first byte": {func(over chan struct{}, r *http.Request) (*http.Response, error) {
			<-over
			return nil, errors.New("late")
		}, "GET", cirque.Timeouts{FirstByte: 3 * time.Second}, 3 * time.Second, 504, reason.UpstreamTimeout},
		"read": {func(over chan struct{}, r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, ContentLength: 100, Body: &stubborn{"half", over}}, nil
		}, "GET", cirque.Timeouts{Read: 4 * time.Second}, 4 * time.Second, 200, reason.UpstreamReadTimeout},
		"write": {func(over chan struct{}, r *http.Request) (*http.Response, error) {
			<-over
			return nil, errors.New("late")
		}, "POST", cirque.Timeouts{Write: 5 * time.Second, FirstByte: time.Second}, 5 * time.Second, 504, reason.UpstreamWriteTimeout},
		"total": {func(over chan struct{}, r *http.Request) (*http.Response, error) {
			<-over
			return nil, errors.New("late")
		}, "GET", cirque.Timeouts{Total: 6 * time.Second}, 6 * time.Second, 504, reason.TotalTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over := make(chan struct{})
				p := &cirque.Proxy{Timeouts: c.timeouts, Retry: cirque.Retry{Attempts: 1}, LogError: func(*cirque.Session, *cirque.Error) {}}
				peer := &cirque.Peer{Addr: "a:80", RoundTripper: roundTripFunc(func(r *http.Request) (*http.Response, error) { return c.roundTrip(over, r) })}
				p.Peer = func(*cirque.Session) (*cirque.Peer, error) { return peer, nil }
				bed := cirquetest.New(t, p)
				var body io.Reader
				if c.method == "POST" {
					body = bytes.NewReader(make([]byte, 200_000))
				}
				began := time.Now()
				resp, err := bed.TryDo(httptest.NewRequest(c.method, "/", body))
				if resp == nil || resp.StatusCode != c.status || (err == nil) != (c.status != 200) {
					t.Errorf("%v %v", resp, err)
				}
				took(t, name, began, c.wait)
				if e := bed.WaitFor(1)[0].Err; e == nil || e.Reason != c.reason {
					t.Errorf("ended with %v, want %v", e, c.reason)
				}
				close(over)
			})
		})
	}
}

// TestRoundTripperPerTry: the time of one try passes, and another peer answers.
func TestRoundTripperPerTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		slow := &cirque.Peer{Addr: "slow:80", RoundTripper: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			<-over
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})}
		quick := &cirque.Peer{Addr: "quick:80", RoundTripper: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("quick")), ContentLength: 5}, nil
		})}
		bed := cirquetest.New(t, &cirque.Proxy{
			Retry: cirque.Retry{PerTry: 2 * time.Second},
			Peer: func(s *cirque.Session) (*cirque.Peer, error) {
				if s.Tried(slow) {
					return quick, nil
				}
				return slow, nil
			},
		})
		began := time.Now()
		if got := cirquetest.Body(bed.Get("/")); got != "quick" {
			t.Errorf("got %q", got)
		}
		took(t, "a try", began, 2*time.Second)
		close(over)
	})
}

// TestRoundTripperPanics: what a RoundTripper or its body does ends one session.
func TestRoundTripperPanics(t *testing.T) {
	b := newBed(t, http.NotFoundHandler())
	b.peer.RoundTripper = roundTripFunc(func(r *http.Request) (*http.Response, error) {
		switch r.URL.Path {
		case "/head":
			panic("head")
		case "/body":
			return &http.Response{StatusCode: 200, Body: panicking{}, ContentLength: 5}, nil
		case "/nothing":
			return nil, nil
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("fine")), ContentLength: 4}, nil
	})
	c := b.client()
	b.want(c, "GET", "/head", "", 502, "upstream_closed")
	b.want(c, "GET", "/nothing", "", 502, "upstream_closed")
	resp, err := c.Get("http://" + b.addr + "/body")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a body that panicked came whole")
	}
	resp.Body.Close()
	b.want(c, "GET", "/", "", 200, "fine")
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("body") }
func (panicking) Close() error             { return nil }

// TestRoundTripperTrailers: fields behind bodies pass a RoundTripper both ways.
func TestRoundTripperTrailers(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Down")
		io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "trailer %s", r.Trailer.Get("X-Up"))
		w.Header().Set("X-Down", "down")
	}))
	defer origin.Close()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	b := newBed(t, http.NotFoundHandler())
	b.peer = &cirque.Peer{Addr: origin.Listener.Addr().String(), RoundTripper: tr}
	b.start()
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("POST", "http://"+b.addr, pr)
	req.Trailer = http.Header{"X-Up": nil}
	go func() {
		io.WriteString(pw, strings.Repeat("x", 100_000))
		req.Trailer.Set("X-Up", "up")
		pw.Close()
	}()
	resp, err := b.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "trailer up" || err != nil || resp.Trailer.Get("X-Down") != "down" {
		t.Errorf("%q %v %v", got, err, resp.Trailer)
	}
}

// poolOrigin is an origin for the pool as a RoundTripper.
func poolOrigin(t *testing.T, protocol string) (*cirque.Transport, http.RoundTripper) {
	t.Helper()
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		switch r.URL.Path {
		case "/echo":
			echo(w, r)
		case "/early":
			_ = rc.EnableFullDuplex()
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, "no")
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		default:
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%d %v %d", n, err, r.ContentLength)
		}
	}))
	o.Config.Protocols = new(http.Protocols)
	o.Config.Protocols.SetHTTP1(true)
	o.Config.Protocols.SetUnencryptedHTTP2(true)
	o.Start()
	tr := &cirque.Transport{}
	t.Cleanup(func() { tr.Close(); o.Close() })
	p := cirque.NewPeer(o.Listener.Addr().String())
	if protocol == "h2c" {
		p.Protocol = cirque.ProtocolH2C
	}
	return tr, tr.RoundTripper(p)
}

// TestPoolStreams: a request body goes out while it is made, and the response comes
// while it does.
func TestPoolStreams(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			tr, rt := poolOrigin(t, protocol)
			pr, pw := io.Pipe()
			req, _ := http.NewRequest("POST", "http://a/echo", pr)
			req.Trailer = http.Header{"X-Up": nil}
			go io.WriteString(pw, "0000") // what the origin answers to
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			for i := range 20 {
				text := fmt.Sprintf("%04d", i)
				if i > 0 {
					if _, err := io.WriteString(pw, text); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := io.ReadFull(resp.Body, got); string(got) != text {
					t.Fatalf("got %q, %v, want %q", got, err, text)
				}
			}
			req.Trailer.Set("X-Up", "up")
			pw.Close()
			rest, err := io.ReadAll(resp.Body)
			if len(rest) > 0 || err != nil || resp.Trailer.Get("X-Sum") != "up" {
				t.Errorf("%q %v %v", rest, err, resp.Trailer)
			}
			if want := map[string]string{"h1": "HTTP/1.1", "h2c": "HTTP/2.0"}[protocol]; resp.Proto != want || resp.Status != "200 OK" {
				t.Errorf("%s %s", resp.Proto, resp.Status)
			}
			resp.Body.Close()
			// The connection serves the next one, when the upload's goroutine has ended.
			if protocol == "h1" {
				for deadline := time.Now().Add(5 * time.Second); tr.Stats().Idle == 0 && time.Now().Before(deadline); {
					runtime.Gosched()
				}
			}
			resp, err = rt.RoundTrip(httptest.NewRequest("GET", "http://a/empty", nil))
			if err != nil || resp.StatusCode != 204 {
				t.Fatal(resp, err)
			}
			resp.Body.Close() // unread: there is nothing to read
			resp, err = rt.RoundTrip(httptest.NewRequest("GET", "http://a/", nil))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if st := tr.Stats(); st.Connects != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestPoolBodies: lengths and errors of request bodies, as http.Transport has them.
func TestPoolBodies(t *testing.T) {
	boom := errors.New("boom")
	big := strings.Repeat("x", 300_000)
	for name, c := range map[string]struct {
		body   io.Reader
		length int64
		want   string // "": an error
		err    error
	}{
		"short":         {strings.NewReader("abc"), 3, "3 <nil> 3", nil},
		"large":         {strings.NewReader(big), int64(len(big)), "300000 <nil> 300000", nil},
		"unknown":       {strings.NewReader(big), -1, "300000 <nil> -1", nil},
		"zero is none":  {http.NoBody, 0, "0 <nil> 0", nil},
		"too short":     {strings.NewReader("ab"), 3, "", nil},
		"too long":      {strings.NewReader("abcd"), 3, "", nil},
		"large, short":  {strings.NewReader(big), 400_000, "", nil},
		"fails":         {io.MultiReader(strings.NewReader("ab"), failing{boom}), 3, "", boom},
		"fails, large":  {io.MultiReader(strings.NewReader(big), failing{boom}), 400_000, "", boom},
		"fails, chunks": {io.MultiReader(strings.NewReader(big), failing{boom}), -1, "", boom},
	} {
		t.Run(name, func(t *testing.T) {
			tr, rt := poolOrigin(t, "h1")
			body := &closing{Reader: c.body, closed: make(chan struct{})}
			req, _ := http.NewRequest("POST", "http://a/", body)
			if req.ContentLength = c.length; c.length == 0 {
				req.Body = http.NoBody
			}
			resp, err := rt.RoundTrip(req)
			if c.want == "" {
				if err == nil || c.err != nil && !errors.Is(err, c.err) {
					t.Errorf("got %v", err)
				}
			} else if err != nil {
				t.Fatal(err)
			} else {
				got, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(got) != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
			if req.Body != http.NoBody {
				<-body.closed // RoundTrip closes it, if not at once
			}
			for deadline := time.Now().Add(5 * time.Second); tr.Stats().Conns != tr.Stats().Idle; {
				if time.Now().After(deadline) {
					t.Fatalf("a connection is not given back: %+v", tr.Stats())
				}
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// closing notes that it was closed.
type closing struct {
	io.Reader
	closed chan struct{}
	once   sync.Once
}

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// TestPoolEarlyResponse: a response to an upload that goes on is returned, and who
// closes it does not wait for the body.
func TestPoolEarlyResponse(t *testing.T) {
	tr, rt := poolOrigin(t, "h1")
	pr, pw := io.Pipe()
	defer pw.Close()
	req, _ := http.NewRequest("POST", "http://a/early", pr)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if string(got) != "no" || err != nil || resp.StatusCode != 403 {
		t.Errorf("%s %q %v", resp.Status, got, err)
	}
	resp.Body.Close()
	// The upload is stopped: its pipe is closed for it.
	for err = nil; err == nil; {
		_, err = io.WriteString(pw, "more")
	}
	for deadline := time.Now().Add(5 * time.Second); tr.Stats().Conns != 0; {
		if time.Now().After(deadline) {
			t.Fatalf("the connection is open: %+v", tr.Stats())
		}
	}
}

// TestPoolStale: a pooled connection that the origin has closed costs no request,
// also one whose body cannot be read twice.
func TestPoolStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		tr := &cirque.Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
			a, b := memnet.Pipe()
			dials++
			go func() {
				defer b.Close()
				buf := make([]byte, 4096)
				for n := 0; !bytes.HasSuffix(buf[:n], []byte("0\r\n\r\n")); {
					k, err := b.Read(buf[n:])
					if n += k; err != nil {
						return
					}
				}
				io.WriteString(b, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}()
			return a, nil
		}}
		defer tr.Close()
		rt := tr.RoundTripper(cirque.NewPeer("a:80"))
		for range 3 {
			req, _ := http.NewRequest("PUT", "http://a/", io.MultiReader(strings.NewReader("abc")))
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(resp.Body); string(got) != "ok" {
				t.Errorf("got %q", got)
			}
			resp.Body.Close()
			synctest.Wait() // the origin closes after each
		}
		if dials != 3 {
			t.Errorf("%d connections", dials)
		}
	})
}
