package cirque_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
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
	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/reason"
)

// own is a bed whose requests to /own set limits for themselves.
type own struct {
	*cirquetest.Bed
	t     *testing.T
	donec chan error
	wg    sync.WaitGroup
	nc    net.Conn
	r     *bufio.Reader
}

// ownBubble runs f on a bed in a bubble. Requests to /own call set in their
// Request hook; what follows the path says how the origin stalls.
func ownBubble(t *testing.T, set func(s *cirque.Session) error, f func(o *own)) {
	synctest.Test(t, func(t *testing.T) {
		o := &own{t: t, donec: make(chan error, 10)}
		hole := &cirque.Peer{Addr: "hole:80", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		deaf := &cirque.Peer{Addr: "deaf:80", Dial: func(context.Context, string, string) (net.Conn, error) {
			nc, _ := memnet.Pipe() // nobody reads from the other end
			return nc, nil
		}}
		o.Bed = cirquetest.New(t, &cirque.Proxy{
			Retry:    cirque.Retry{Attempts: 1},
			LogError: func(*cirque.Session, *cirque.Error) {},
			Peer: func(s *cirque.Session) (*cirque.Peer, error) {
				switch s.Request().Query() {
				case "hole":
					return hole, nil
				case "deaf":
					return deaf, nil
				}
				return o.Peer(), nil
			},
			Filters: []cirque.Filter{{
				Name: "own",
				Request: func(s *cirque.Session) error {
					if s.Request().Path() == "/own" {
						if err := set(s); err != nil {
							return err
						}
					}
					if s.Request().Query() == "local" {
						return s.Respond(200, "local")
					}
					return nil
				},
				Done: func(_ *cirque.Session, err error) { o.donec <- err },
			}},
		})
		o.Origin(http.HandlerFunc(stallingOrigin))
		o.nc = o.Dial()
		o.r = bufio.NewReader(o.nc)
		defer o.wg.Wait()
		defer o.nc.Close()
		f(o)
	})
}

// stallingOrigin stalls where the query says.
func stallingOrigin(w http.ResponseWriter, r *http.Request) {
	switch r.URL.RawQuery {
	case "head":
		<-r.Context().Done()
	case "body":
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case "pause":
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		time.Sleep(100 * time.Second)
		io.WriteString(w, "whole")
	case "endless":
		io.Copy(w, endless{})
	default:
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "hello")
	}
}

// ask sends a request that goes well.
func (o *own) ask(path string) *http.Response {
	o.t.Helper()
	fmt.Fprintf(o.nc, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
	resp := o.response()
	if err := <-o.donec; err != nil {
		o.t.Fatalf("%s: %v", path, err)
	}
	return resp
}

func (o *own) response() *http.Response {
	o.t.Helper()
	resp, err := http.ReadResponse(o.r, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	return resp
}

// send sends text, and then a piece again and again while anybody takes it.
func (o *own) send(text, piece string, every time.Duration) {
	io.WriteString(o.nc, text)
	if piece == "" {
		return
	}
	nc := o.nc
	o.wg.Go(func() {
		for {
			if _, err := io.WriteString(nc, piece); err != nil {
				return
			}
			time.Sleep(every)
		}
	})
}

// wantEnd waits for the present session's end, after d. In memory one write spans
// two waits: for the part that fits, and for the rest.
func (o *own) wantEnd(began time.Time, d time.Duration, r cirque.Reason) {
	o.t.Helper()
	err := <-o.donec
	var e *cirque.Error
	if !errors.As(err, &e) || e.Reason != r {
		o.t.Errorf("ended with %v, want %v", err, r)
	}
	longest := d
	if r == reason.UpstreamWriteTimeout || r == reason.ClientWriteStop {
		longest = 2 * d
	}
	if got := time.Since(began); got < d || got > longest+1200*time.Millisecond {
		o.t.Errorf("it took %v, want %v", got, d)
	}
}

// TestOwnLimits: row H12: what a session sets for itself holds for it, and not
// for the next one on the connection.
func TestOwnLimits(t *testing.T) {
	limits := func(l cirque.ClientLimits) func(*cirque.Session) error {
		return func(s *cirque.Session) error { return s.SetClientLimits(l) }
	}
	timeouts := func(ts cirque.Timeouts) func(*cirque.Session) error {
		return func(s *cirque.Session) error {
			s.SetTimeouts(ts)
			return nil
		}
	}
	for name, c := range map[string]struct {
		set          func(*cirque.Session) error
		method, tail string // of the request that stalls
		query        string
		piece        string // sent every second
		own, std     time.Duration
		reason       cirque.Reason
	}{
		"body": {limits(cirque.ClientLimits{Body: 5 * time.Second}), "POST", "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 50000), "",
			"", 5 * time.Second, 60 * time.Second, reason.BodyTimeout},
		"write": {limits(cirque.ClientLimits{Write: 5 * time.Second}), "GET", "\r\n", "endless",
			"", 5 * time.Second, 60 * time.Second, reason.ClientWriteStop},
		"rate": {limits(cirque.ClientLimits{MinRate: 1000, MinRateGrace: 2 * time.Second}), "POST", "Content-Length: 100000\r\n\r\n", "",
			"0123456789", 2 * time.Second, 10 * time.Second, reason.ClientTooSlow},
		"connect": {timeouts(cirque.Timeouts{Connect: 2 * time.Second}), "GET", "\r\n", "hole",
			"", 2 * time.Second, 5 * time.Second, reason.ConnectTimeout},
		"first byte": {timeouts(cirque.Timeouts{FirstByte: 3 * time.Second}), "GET", "\r\n", "head",
			"", 3 * time.Second, 60 * time.Second, reason.UpstreamTimeout},
		"read": {timeouts(cirque.Timeouts{Read: 3 * time.Second}), "GET", "\r\n", "body",
			"", 3 * time.Second, 60 * time.Second, reason.UpstreamReadTimeout},
		"upstream write": {timeouts(cirque.Timeouts{Write: 3 * time.Second}), "POST", "Content-Length: 10000000\r\n\r\n" + strings.Repeat("x", 120000), "deaf",
			strings.Repeat("x", 30000), 3 * time.Second, 60 * time.Second, reason.UpstreamWriteTimeout},
		"total": {timeouts(cirque.Timeouts{Total: 4 * time.Second}), "GET", "\r\n", "head",
			"", 4 * time.Second, 60 * time.Second, reason.TotalTimeout},
	} {
		request := func(path string) string {
			return c.method + " " + path + "?" + c.query + " HTTP/1.1\r\nHost: a\r\n" + c.tail
		}
		t.Run(name+"/own", func(t *testing.T) {
			ownBubble(t, c.set, func(o *own) {
				began := time.Now()
				o.send(request("/own"), c.piece, time.Second)
				o.wantEnd(began, c.own, c.reason)
			})
		})
		t.Run(name+"/next", func(t *testing.T) {
			ownBubble(t, c.set, func(o *own) {
				o.ask("/own")
				began := time.Now()
				o.send(request("/next"), c.piece, time.Second)
				want := c.reason
				if want == reason.TotalTimeout {
					want = reason.UpstreamTimeout // there is no total by default
				}
				o.wantEnd(began, c.std, want)
			})
		})
	}
}

// TestOwnIdle: row H12: how long a connection is kept after a response.
func TestOwnIdle(t *testing.T) {
	for _, c := range []struct {
		name, path string
		want       time.Duration
	}{{"own", "/own", 7 * time.Second}, {"next", "/next", 75 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			ownBubble(t, func(s *cirque.Session) error {
				return s.SetClientLimits(cirque.ClientLimits{Idle: 7 * time.Second})
			}, func(o *own) {
				o.ask("/own")
				o.ask(c.path)
				began := time.Now()
				if _, err := o.r.ReadByte(); err != io.EOF {
					t.Errorf("got %v", err)
				}
				took(t, "the idle connection", began, c.want)
			})
		})
	}
}

// TestOwnDrain: row H12: how much, and for how long, is read of a body that
// nobody wanted.
func TestOwnDrain(t *testing.T) {
	const head = " HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
	bytes := func(s *cirque.Session) error { return s.SetClientLimits(cirque.ClientLimits{DrainBytes: 999}) }
	ownBubble(t, bytes, func(o *own) {
		o.ask("/own?local")
		io.WriteString(o.nc, "POST /next?local"+head)
		if resp := o.response(); resp.Close {
			t.Error("1,000 bytes are not worth reading by default")
		}
		io.WriteString(o.nc, strings.Repeat("x", 1000)+"POST /own?local"+head)
		if resp := o.response(); !resp.Close {
			t.Error("the connection is kept for more bytes than the session allowed")
		}
	})
	drain := func(s *cirque.Session) error {
		return s.SetClientLimits(cirque.ClientLimits{DrainTime: 5 * time.Second})
	}
	for path, want := range map[string]time.Duration{"/own": 5 * time.Second, "/next": 2 * time.Second} {
		ownBubble(t, drain, func(o *own) {
			o.ask("/own")
			began := time.Now()
			io.WriteString(o.nc, "POST "+path+"?local"+head)
			if resp := o.response(); resp.Close {
				t.Error("the connection ends")
			}
			if _, err := o.r.ReadByte(); err != io.EOF {
				t.Errorf("got %v", err)
			}
			took(t, "the drain of "+path, began, want)
		})
	}
}

// TestOwnKeepAlive: row H12: the connection ends after the response that was to
// be the last.
func TestOwnKeepAlive(t *testing.T) {
	ownBubble(t, func(s *cirque.Session) error {
		s.CloseAfter()
		return nil
	}, func(o *own) {
		if resp := o.ask("/next"); resp.Close {
			t.Error("the connection ends")
		}
		if resp := o.ask("/own"); !resp.Close {
			t.Error("the connection is kept")
		}
		if _, err := o.r.ReadByte(); err != io.EOF {
			t.Errorf("got %v", err)
		}
	})
}

// TestOwnReadTimeoutOfBody: a Response hook that has seen what comes says how
// long its pauses may be.
func TestOwnReadTimeoutOfBody(t *testing.T) {
	proxy := &cirque.Proxy{Filters: []cirque.Filter{{Name: "events", Response: func(s *cirque.Session) error {
		if s.Request().Path() == "/own" {
			s.SetTimeouts(cirque.Timeouts{Read: -1})
		}
		return nil
	}}}}
	bubble(t, proxy, func(t *testing.T, bed *cirquetest.Bed) {
		bed.Origin(http.HandlerFunc(stallingOrigin))
		if resp := bed.Get("/own?pause"); cirquetest.Body(resp) != "halfwhole" {
			t.Error("the body was cut")
		}
		began := time.Now()
		if _, err := bed.TryDo(httptest.NewRequest("GET", "/next?pause", nil)); err == nil {
			t.Error("the body was not cut")
		}
		took(t, "the pause", began, 60*time.Second)
	})
}

// TestOwnLimitsAddUp: two filters that set different limits do not undo each
// other's, and the later one stands.
func TestOwnLimitsAddUp(t *testing.T) {
	ownBubble(t, func(s *cirque.Session) error {
		s.SetTimeouts(cirque.Timeouts{FirstByte: 20 * time.Second})
		s.SetTimeouts(cirque.Timeouts{FirstByte: 4 * time.Second, Connect: time.Second})
		s.SetTimeouts(cirque.Timeouts{Read: time.Second})
		if err := s.SetClientLimits(cirque.ClientLimits{Idle: 9 * time.Second}); err != nil {
			return err
		}
		return s.SetClientLimits(cirque.ClientLimits{Body: time.Second})
	}, func(o *own) {
		began := time.Now()
		o.send("GET /own?head HTTP/1.1\r\nHost: a\r\n\r\n", "", 0)
		o.wantEnd(began, 4*time.Second, reason.UpstreamTimeout)
		if resp := o.response(); resp.StatusCode != 504 || resp.Close {
			t.Errorf("got %s, close %t", resp.Status, resp.Close)
		}
		began = time.Now()
		if _, err := o.r.ReadByte(); err != io.EOF {
			t.Errorf("got %v", err)
		}
		took(t, "the idle connection", began, 9*time.Second)
	})
}

// TestTotalFromHead: the total time counts from the request's head, whatever
// hooks did with it before an upstream was needed.
func TestTotalFromHead(t *testing.T) {
	ownBubble(t, func(s *cirque.Session) error {
		time.Sleep(3 * time.Second)
		s.SetTimeouts(cirque.Timeouts{Total: 4 * time.Second})
		return nil
	}, func(o *own) {
		began := time.Now()
		o.send("GET /own?head HTTP/1.1\r\nHost: a\r\n\r\n", "", 0)
		o.wantEnd(began, 4*time.Second, reason.TotalTimeout)
	})
}

// TestOwnLimitsBehindADoor: behind net/http's server the client is not ours to
// limit, and the hook learns that.
func TestOwnLimitsBehindADoor(t *testing.T) {
	var got error
	proxy := &cirque.Proxy{Filters: []cirque.Filter{{Name: "own", Request: func(s *cirque.Session) error {
		got = s.SetClientLimits(cirque.ClientLimits{Body: time.Second})
		return s.Respond(200, "")
	}}}}
	proxy.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if !errors.Is(got, http.ErrNotSupported) {
		t.Errorf("got %v", got)
	}
}

// TestOwnLimitsOfAStream: what a request of HTTP/2 sets for itself is its stream's,
// and not that of others on the connection.
func TestOwnLimitsOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bed := cirquetest.NewServer(t, &cirque.Server{H2C: true, Proxy: &cirque.Proxy{
			LogError: func(*cirque.Session, *cirque.Error) {},
			Filters: []cirque.Filter{{Name: "own", Request: func(s *cirque.Session) error {
				if s.Request().Path() == "/own" {
					return s.SetClientLimits(cirque.ClientLimits{Body: 5 * time.Second})
				}
				return nil
			}}},
		}})
		bed.Origin(http.HandlerFunc(stallingOrigin))
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		dials := 0
		tr := &http.Transport{Protocols: p, DialContext: func(context.Context, string, string) (net.Conn, error) {
			dials++
			return bed.Dial(), nil
		}}
		ask := func(path string, want time.Duration) {
			pr, pw := io.Pipe()
			began := time.Now()
			req, _ := http.NewRequest("POST", "http://a"+path, pr)
			go pw.Write(make([]byte, 50000))
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); resp.StatusCode != 408 {
				t.Errorf("%s: got %s", path, resp.Status)
			}
			pr.Close()
			took(t, path, began, want)
		}
		ask("/own", 5*time.Second)
		ask("/next", 60*time.Second)
		if dials != 1 {
			t.Errorf("%d connections", dials)
		}
		tr.CloseIdleConnections()
		synctest.Wait()
	})
}
