package cirquetest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/cirquetest"
	"github.com/cirqueproxy/cirque/reason"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
}

// both runs a test in real time and inside a bubble.
func both(t *testing.T, f func(t *testing.T)) {
	t.Run("real", f)
	t.Run("synctest", func(t *testing.T) { synctest.Test(t, f) })
}

func TestBed(t *testing.T) {
	both(t, func(t *testing.T) {
		bed := cirquetest.New(t, &cirque.Proxy{Name: "site", Filters: []cirque.Filter{{Name: "mark", Response: func(s *cirque.Session) error {
			s.Response().Header.Set("X-Mark", "seen")
			return nil
		}}}})
		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL, b)
		}))
		for range 3 {
			resp := bed.Get("/a?b")
			if got := cirquetest.Body(resp); resp.StatusCode != 200 || got != "GET proxy.test /a?b " || resp.Header.Get("X-Mark") != "seen" {
				t.Errorf("%s %q", resp.Status, got)
			}
		}
		if got := cirquetest.Body(bed.Do(httptest.NewRequest("POST", "http://proxy.test/x", strings.NewReader("body")))); got != "POST proxy.test /x body" {
			t.Errorf("%q", got)
		}
		all := bed.Wait()
		if len(all) != 4 {
			t.Fatalf("%d sessions", len(all))
		}
		last := all[3]
		if last.Route != "site" || last.Status != 200 || last.Err != nil || last.Request.Method() != "POST" || last.Attempt.Peer != bed.Peer() {
			t.Errorf("%+v", last)
		}
		if st := bed.Transport().Stats(); st.Connects+st.Reuses != 4 || st.Reuses < 2 {
			t.Errorf("%+v", st)
		}
		if n := bed.Server().Stats().Accepted; n != 1 {
			t.Errorf("the client made %d connections", n)
		}
	})
}

func TestOriginsByPath(t *testing.T) {
	both(t, func(t *testing.T) {
		var api *cirque.Peer
		var bed *cirquetest.Bed
		bed = cirquetest.New(t, &cirque.Proxy{Peer: func(s *cirque.Session) (*cirque.Peer, error) {
			if s.Request().HasPathPrefix("/api") {
				return api, nil
			}
			return bed.Peer(), nil
		}})
		api = bed.AddOrigin("api", text("from api"))
		bed.Origin(text("from web"))
		for path, want := range map[string]string{"/api/x": "from api", "/": "from web"} {
			if got := cirquetest.Body(bed.Get(path)); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
		}
	})
}

func TestServerWithRoutes(t *testing.T) {
	both(t, func(t *testing.T) {
		a := &cirque.Proxy{Name: "a"}
		bed := cirquetest.NewServer(t, &cirque.Server{Route: func(s *cirque.Session) *cirque.Proxy {
			if s.Request().Host() == "a.test" {
				return a
			}
			return nil
		}}, a)
		bed.Origin(text("a"))
		if got := cirquetest.Body(bed.Get("http://a.test/")); got != "a" {
			t.Errorf("%q", got)
		}
		if resp := bed.Get("http://b.test/"); resp.StatusCode != 404 {
			t.Errorf("%s", resp.Status)
		}
		all := bed.Wait()
		if len(all) != 2 || all[0].Route != "a" || all[1].Err == nil || all[1].Err.Reason != reason.NoRoute {
			t.Errorf("%+v", all)
		}
	})
}

func TestOriginWithoutHandler(t *testing.T) {
	if resp := cirquetest.New(t, &cirque.Proxy{}).Get("/"); resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("%s", resp.Status)
	}
}

// TestTimeoutInNoTime has an origin that takes an hour: the proxy's timeout
// passes on the fake clock.
func TestTimeoutInNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bed := cirquetest.New(t, &cirque.Proxy{Timeouts: cirque.Timeouts{FirstByte: 7 * time.Second}})
		bed.Origin(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }))
		began := time.Now()
		resp := bed.Get("/")
		if d := time.Since(began); resp.StatusCode != 504 || d < 7*time.Second || d > 8*time.Second {
			t.Errorf("%s after %v", resp.Status, d)
		}
		if e := bed.Wait()[0].Err; e == nil || e.Reason != reason.UpstreamTimeout {
			t.Errorf("%v", e)
		}
	})
}

func TestCutResponse(t *testing.T) {
	both(t, func(t *testing.T) {
		bed := cirquetest.New(t, &cirque.Proxy{})
		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}))
		resp, err := bed.TryDo(httptest.NewRequest("GET", "/", nil))
		if resp == nil || cirquetest.Body(resp) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v, %v", resp, err)
		}
		if e := bed.Wait()[0].Err; e == nil || e.Side() != cirque.Upstream {
			t.Errorf("%v", e)
		}
	})
}

func TestRawConnection(t *testing.T) {
	both(t, func(t *testing.T) {
		bed := cirquetest.New(t, &cirque.Proxy{})
		bed.Origin(text("ok"))
		c := bed.Dial()
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n")
		r := bufio.NewReader(c)
		for _, want := range []int{200, 400} {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != want {
				t.Errorf("%s, want %d", resp.Status, want)
			}
		}
		if all := bed.WaitFor(2); all[1].Err == nil || all[1].Err.Reason != reason.BadHost {
			t.Errorf("%+v", all[1])
		}
	})
}

// TestClientLeaves closes the client's connection while the origin is slow: the
// session ends, and so does the origin's request.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bed := cirquetest.New(t, &cirque.Proxy{})
		gone := make(chan struct{})
		bed.Origin(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			close(gone)
		}))
		c := bed.Dial()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(time.Second)
		began := time.Now()
		c.Close()
		<-gone
		if d := time.Since(began); d > time.Second {
			t.Errorf("noticed after %v", d)
		}
		if s := bed.WaitFor(1)[0]; s.Status != 499 || s.Err.Reason != reason.ClientGone {
			t.Errorf("%d %v", s.Status, s.Err)
		}
	})
}

func TestLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bed := cirquetest.New(t, &cirque.Proxy{})
		bed.SetClientLink(cirquetest.Link{Delay: 100 * time.Millisecond, Chunk: 1})
		bed.SetOriginLink(cirquetest.Link{Delay: time.Second, Chunk: 3, Buffer: 10})
		bed.Origin(text(strings.Repeat("0123456789", 50)))
		began := time.Now()
		if got := cirquetest.Body(bed.Get("/")); got != strings.Repeat("0123456789", 50) {
			t.Errorf("%q", got)
		}
		// There and back: 2.2 s. The small buffer adds a wait per 10 bytes.
		if d := time.Since(began); d < 2200*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
}

func TestStreaming(t *testing.T) {
	both(t, func(t *testing.T) {
		bed := cirquetest.New(t, &cirque.Proxy{})
		goc := make(chan struct{})
		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for _, s := range []string{"one", "two"} {
				_, _ = io.WriteString(w, s)
				_ = http.NewResponseController(w).Flush()
				<-goc
			}
		}))
		resp, err := bed.Client().Get("http://any.test/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 3)
		for _, want := range []string{"one", "two"} {
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != want {
				t.Errorf("%q, %v", b, err)
			}
			goc <- struct{}{}
		}
	})
}

// recorder is a testing.TB that notes what the bed complains of.
type recorder struct {
	testing.TB
	errs    []string
	cleanup []func()
}

func (r *recorder) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errs = append(r.errs, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(r)
}

// run runs a test with a bed and returns what the bed says of it.
func run(t *testing.T, test func(tb testing.TB)) string {
	r := &recorder{TB: t}
	func() {
		defer func() {
			if v := recover(); v != nil && v != r {
				panic(v)
			}
		}()
		test(r)
	}()
	for _, f := range r.cleanup {
		f()
	}
	return strings.Join(r.errs, "; ")
}

// TestComplaints shows what makes a test of a user fail.
func TestComplaints(t *testing.T) {
	cases := []struct {
		name string
		test func(tb testing.TB)
		want string // "" for nothing
	}{
		{"nothing wrong", func(tb testing.TB) { cirquetest.New(tb, &cirque.Proxy{}).Get("/") }, ""},
		{"nothing done", func(tb testing.TB) { cirquetest.New(tb, &cirque.Proxy{}) }, ""},
		{"a connection of Dial is left", func(tb testing.TB) { cirquetest.New(tb, &cirque.Proxy{}).Dial() }, "1 connections of Dial"},
		{"a filter without a name", func(tb testing.TB) {
			cirquetest.New(tb, &cirque.Proxy{Name: "x", Filters: []cirque.Filter{{}}})
		}, `the proxy "x": filter 0 has no name`},
		{"no response", func(tb testing.TB) {
			bed := cirquetest.NewServer(tb, &cirque.Server{AcceptConn: func(net.Conn) error { return errors.New("no") }})
			bed.Get("/")
		}, "GET /: "},
		{"no such session", func(tb testing.TB) { cirquetest.New(tb, &cirque.Proxy{}).WaitFor(1) }, "0 sessions have ended after 10s: want 1"},
		{"a hook that hangs", func(tb testing.TB) {
			bed := cirquetest.New(tb, &cirque.Proxy{Filters: []cirque.Filter{{Name: "hang", Request: func(*cirque.Session) error {
				time.Sleep(time.Minute)
				return nil
			}}}})
			c := bed.Dial()
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			synctest.Wait()
			c.Close()
		}, "a session does not end"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := run(t, tc.test)
				if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
					t.Errorf("complaints %q, want %q", got, tc.want)
				}
				time.Sleep(2 * time.Minute)
			})
		})
	}
}
