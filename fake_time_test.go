package cirque_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/cirquetest"
	"github.com/cirqueproxy/cirque/reason"
)

// took checks that what began at began took d, as precisely as timeouts are.
func took(t *testing.T, what string, began time.Time, d time.Duration) {
	t.Helper()
	if got := time.Since(began); got < d || got > d+300*time.Millisecond {
		t.Errorf("%s took %v, want %v", what, got, d)
	}
}

func firstLine(t *testing.T, c net.Conn) string {
	t.Helper()
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

func bubble(t *testing.T, proxy *cirque.Proxy, f func(t *testing.T, bed *cirquetest.Bed)) {
	synctest.Test(t, func(t *testing.T) {
		proxy.LogError = func(*cirque.Session, *cirque.Error) {}
		bed := cirquetest.New(t, proxy)
		bed.Origin(http.HandlerFunc(hello))
		f(t, bed)
	})
}

// TestDefaultTimeoutsOfClients: each wait for a client has a default.
func TestDefaultTimeoutsOfClients(t *testing.T) {
	for name, c := range map[string]struct {
		send string
		wait time.Duration
		want string
	}{
		"nothing":   {"", 10 * time.Second, ""},
		"half head": {"GET / HTTP/1.1\r\nHo", 10 * time.Second, "HTTP/1.1 408 Request Timeout"},
		"half body": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50000), 60 * time.Second, "HTTP/1.1 408 Request Timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
				bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
				nc := bed.Dial()
				defer nc.Close()
				began := time.Now()
				io.WriteString(nc, c.send)
				if line := firstLine(t, nc); line != c.want {
					t.Errorf("got %q, want %q", line, c.want)
				}
				took(t, name, began, c.wait)
			})
		})
	}
}

// TestIdleTimeoutDefault: row H11: the wait for the next request.
func TestIdleTimeoutDefault(t *testing.T) {
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		nc := bed.Dial()
		defer nc.Close()
		r := bufio.NewReader(nc)
		for range 2 {
			io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			time.Sleep(70 * time.Second) // not enough to end it
		}
		began := time.Now()
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("got %v", err)
		}
		took(t, "the rest of the idle timeout", began, 5*time.Second)
	})
}

// TestSlowHead: row V10: a head is bounded as a whole, however it trickles.
func TestSlowHead(t *testing.T) {
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		nc := bed.Dial()
		var wg sync.WaitGroup
		defer wg.Wait()
		defer nc.Close()
		began := time.Now()
		wg.Go(func() {
			for _, c := range "GET / HTTP/1.1\r\nHost: a\r\nX-Long: yes\r\n\r\n" {
				if _, err := nc.Write([]byte(string(c))); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		if line := firstLine(t, nc); line != "HTTP/1.1 408 Request Timeout" {
			t.Errorf("got %q", line)
		}
		took(t, "a trickling head", began, 10*time.Second)
	})
}

// TestSlowBodies: row V10: a body slower than the minimum is cut, an honest slow
// one is not, and time that the origin takes does not count.
func TestSlowBodies(t *testing.T) {
	for name, c := range map[string]struct {
		piece int
		every time.Duration
		want  string
	}{
		"dishonest": {10, time.Second, "HTTP/1.1 408 Request Timeout"},
		"honest":    {400, time.Second, "HTTP/1.1 200 OK"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
				bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					time.Sleep(30 * time.Second) // nobody waits for the client here
				}))
				nc := bed.Dial()
				var wg sync.WaitGroup
				defer wg.Wait()
				defer nc.Close()
				io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n")
				wg.Go(func() {
					for sent := 0; sent < 8000; sent += c.piece {
						if _, err := nc.Write(make([]byte, c.piece)); err != nil {
							return
						}
						time.Sleep(c.every)
					}
				})
				if line := firstLine(t, nc); line != c.want {
					t.Errorf("got %q, want %q", line, c.want)
				}
			})
		})
	}
}

// TestDefaultTimeoutsOfOrigins: rows U2, U3: each wait for an origin has a
// default.
func TestDefaultTimeoutsOfOrigins(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		wait    time.Duration
		status  int
		reason  cirque.Reason
	}{
		"no head": {func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // only then net/http notices that the other end leaves
			<-r.Context().Done()
		}, 60 * time.Second, 504, reason.UpstreamTimeout},
		"half body": {func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, 60 * time.Second, 200, reason.UpstreamReadTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
				bed.Origin(c.handler)
				began := time.Now()
				resp, _ := bed.TryDo(httptest.NewRequest("POST", "/", strings.NewReader("x")))
				if resp == nil || resp.StatusCode != c.status {
					t.Fatalf("got %v", resp)
				}
				took(t, name, began, c.wait)
				if s := bed.WaitFor(1)[0]; s.Err == nil || s.Err.Reason != c.reason {
					t.Errorf("ended with %v", s.Err)
				}
			})
		})
	}
}

func TestConnectTimeoutDefault(t *testing.T) {
	proxy := &cirque.Proxy{Retry: cirque.Retry{Attempts: 1}}
	hole := &cirque.Peer{Addr: "hole:80", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	proxy.Peer = func(*cirque.Session) (*cirque.Peer, error) { return hole, nil }
	bubble(t, proxy, func(t *testing.T, bed *cirquetest.Bed) {
		began := time.Now()
		if resp := bed.Get("/"); resp.StatusCode != 504 {
			t.Errorf("got %s", resp.Status)
		}
		took(t, "a black hole", began, 5*time.Second)
	})
}

// pooled runs requests with pauses between them and checks how many connections
// were made.
func pooled(t *testing.T, setup func(p *cirque.Peer), method string, pause time.Duration, requests int, want int64) {
	t.Helper()
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/keep" {
				w.Header().Set("Keep-Alive", "timeout=5")
			}
		}))
		setup(bed.Peer())
		path := "/"
		if method == "KEEP" {
			method, path = "GET", "/keep"
		}
		for i := range requests {
			if i > 0 {
				time.Sleep(pause)
			}
			bed.Do(httptest.NewRequest(method, path, nil))
			bed.Wait()
		}
		if st := bed.Transport().Stats(); st.Connects != want {
			t.Errorf("%d connections were made, want %d: %+v", st.Connects, want, st)
		}
	})
}

// TestPoolTime: rows U5, U29 and the rules of reuse that depend on time.
func TestPoolTime(t *testing.T) {
	none := func(*cirque.Peer) {}
	for name, c := range map[string]struct {
		setup    func(*cirque.Peer)
		method   string
		pause    time.Duration
		requests int
		want     int64
	}{
		"default idle timeout, before": {none, "GET", 59 * time.Second, 3, 1},
		"default idle timeout, after":  {none, "GET", 61 * time.Second, 3, 3},
		"own idle timeout":             {func(p *cirque.Peer) { p.Timeouts.Idle = 10 * time.Second }, "GET", 11 * time.Second, 3, 3},
		"no pooling":                   {func(p *cirque.Peer) { p.Timeouts.Idle = -1 }, "GET", 0, 3, 3},
		"the origin's Keep-Alive":      {none, "KEEP", 4500 * time.Millisecond, 3, 3},
		"within the origin's":          {none, "KEEP", 3 * time.Second, 3, 1},
		"maximum age":                  {func(p *cirque.Peer) { p.MaxAge = 10 * time.Second }, "GET", 4 * time.Second, 5, 2},
		"POST on a fresh connection":   {none, "POST", 500 * time.Millisecond, 3, 1},
		"POST on an older one":         {none, "POST", 2 * time.Second, 3, 3},
		"maximum requests":             {func(p *cirque.Peer) { p.MaxRequests = 2 }, "GET", 0, 5, 3},
	} {
		t.Run(name, func(t *testing.T) { pooled(t, c.setup, c.method, c.pause, c.requests, c.want) })
	}
}

// TestTotalTimeout bounds a session whatever it waits for.
func TestTotalTimeout(t *testing.T) {
	bubble(t, &cirque.Proxy{Timeouts: cirque.Timeouts{Total: 20 * time.Second}}, func(t *testing.T, bed *cirquetest.Bed) {
		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range 100 {
				io.WriteString(w, "tick")
				w.(http.Flusher).Flush()
				time.Sleep(time.Second)
			}
		}))
		began := time.Now()
		resp, err := bed.TryDo(httptest.NewRequest("GET", "/", nil))
		if err == nil || resp == nil || resp.StatusCode != 200 {
			t.Errorf("got %v, %v", resp, err)
		}
		took(t, "an endless download", began, 20*time.Second)
		if s := bed.WaitFor(1)[0]; s.Err == nil || s.Err.Reason != reason.TotalTimeout {
			t.Errorf("ended with %v", s.Err)
		}
	})
}

// TestConnectTimeoutOfRoute: a route's timeout to connect stands before its
// peer's.
func TestConnectTimeoutOfRoute(t *testing.T) {
	proxy := &cirque.Proxy{Retry: cirque.Retry{Attempts: 1}, Timeouts: cirque.Timeouts{Connect: 2 * time.Second}}
	hole := &cirque.Peer{Addr: "hole:80", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	proxy.Peer = func(*cirque.Session) (*cirque.Peer, error) { return hole, nil }
	bubble(t, proxy, func(t *testing.T, bed *cirquetest.Bed) {
		began := time.Now()
		if resp := bed.Get("/"); resp.StatusCode != 504 {
			t.Errorf("got %s", resp.Status)
		}
		took(t, "a black hole", began, 2*time.Second)
	})
}
