package cirque_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

// noting returns a filter whose hooks note that they ran.
func noting(b **bed, name string) cirque.Filter {
	head := func(what string) func(*cirque.Session) error {
		return func(*cirque.Session) error {
			(*b).note(name + "." + what)
			return nil
		}
	}
	body := func(what string) cirque.BodyHook {
		return func(_ *cirque.Session, p []byte, last bool) ([]byte, error) {
			if last {
				(*b).note(name + "." + what)
			}
			return p, nil
		}
	}
	return cirque.Filter{
		Name: name, Request: head("Request"), Forward: head("Forward"), Connected: head("Connected"),
		UpstreamRequest: head("UpstreamRequest"), RequestBody: body("RequestBody"),
		UpstreamResponse: head("UpstreamResponse"), UpstreamResponseBody: body("UpstreamResponseBody"),
		Interim: head("Interim"), Response: head("Response"), ResponseBody: body("ResponseBody"),
		ResponseTrailer: head("ResponseTrailer"),
		Failed: func(*cirque.Session, *cirque.Error) error {
			(*b).note(name + ".Failed")
			return nil
		},
		Done: func(*cirque.Session, error) { (*b).note(name + ".Done") },
	}
}

// TestHookOrder: rows X1 and X2: request hooks in list order, response hooks in
// reverse, each once.
func TestHookOrder(t *testing.T) {
	var b *bed
	b = newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "hello")
	}), noting(&b, "a"), noting(&b, "b"))
	b.want(b.client(), "POST", "/", "x", 200, "hello")
	b.done()
	b.wantCalls("a.Request b.Request a.Forward b.Forward a.Connected b.Connected a.UpstreamRequest b.UpstreamRequest " +
		"a.RequestBody b.RequestBody b.Interim a.Interim b.UpstreamResponse a.UpstreamResponse b.Response a.Response " +
		"b.UpstreamResponseBody a.UpstreamResponseBody b.ResponseBody a.ResponseBody b.ResponseTrailer a.ResponseTrailer " +
		"a.Done b.Done")
}

// TestHookOrderLocal: a response made in filter i passes the response hooks of
// the filters before i; one of the engine passes all.
func TestHookOrderLocal(t *testing.T) {
	var b *bed
	stop := cirque.Filter{Name: "stop", Request: func(s *cirque.Session) error {
		if s.Request().Path() == "/stop" {
			return s.Respond(403, "stopped")
		}
		return nil
	}}
	b = newBed(t, http.HandlerFunc(hello), noting(&b, "a"), stop, noting(&b, "b"))
	dead := cirque.NewPeer("127.0.0.1:1")
	b.proxy.Peer = func(s *cirque.Session) (*cirque.Peer, error) { return dead, nil }
	c := b.client()
	b.want(c, "GET", "/stop", "", 403, "stopped")
	b.done()
	b.wantCalls("a.Request a.Response a.ResponseBody a.ResponseTrailer a.Done b.Done")

	b.want(c, "GET", "/dead", "", 502, "connect_refused")
	b.done()
	b.wantCalls("a.Request b.Request a.Forward b.Forward a.Failed b.Failed a.Failed b.Failed a.Failed b.Failed " +
		"b.Response a.Response b.ResponseBody a.ResponseBody b.ResponseTrailer a.ResponseTrailer a.Done b.Done")
}

func TestRespondInEachHook(t *testing.T) {
	respond := func(s *cirque.Session) error { return s.Respond(418, "local") }
	for name, f := range map[string]cirque.Filter{
		"Request":          {Request: respond},
		"Forward":          {Forward: respond},
		"Connected":        {Connected: respond},
		"UpstreamRequest":  {UpstreamRequest: respond},
		"UpstreamResponse": {UpstreamResponse: respond},
		"Response":         {Response: respond},
	} {
		t.Run(name, func(t *testing.T) {
			f.Name = name
			b := newBed(t, http.HandlerFunc(hello), f)
			c := b.client()
			for range 2 {
				b.want(c, "GET", "/", "", 418, "local")
				if e := b.done(); e != nil {
					t.Errorf("the session ended with %v", e)
				}
			}
			if n := b.srv.Stats().Accepted; n != 1 {
				t.Errorf("%d connections, want 1: a local response keeps it (row X3)", n)
			}
		})
	}
}

func TestErrorsOfHooks(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		filter cirque.Filter
		status int
		reason cirque.Reason
	}{
		"plain":       {cirque.Filter{Request: func(*cirque.Session) error { return boom }}, 500, reason.HookError},
		"rejected":    {cirque.Filter{Request: func(*cirque.Session) error { return cirque.Reject(429, boom) }}, 429, reason.Refused},
		"bad status":  {cirque.Filter{Request: func(*cirque.Session) error { return cirque.Reject(200, boom) }}, 500, reason.HookError},
		"forward":     {cirque.Filter{Forward: func(*cirque.Session) error { return cirque.Reject(402, boom) }}, 402, reason.Refused},
		"connected":   {cirque.Filter{Connected: func(*cirque.Session) error { return boom }}, 500, reason.HookError},
		"bad respond": {cirque.Filter{Request: func(s *cirque.Session) error { return s.Respond(99, "") }}, 500, reason.HookError},
		"body": {cirque.Filter{RequestBody: func(*cirque.Session, []byte, bool) ([]byte, error) {
			return nil, cirque.Reject(422, boom)
		}}, 422, reason.Refused},
		"failed hook": {cirque.Filter{
			UpstreamResponse: func(*cirque.Session) error { return boom },
			Failed:           func(*cirque.Session, *cirque.Error) error { return cirque.Reject(503, boom) },
		}, 503, reason.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			c.filter.Name = "f"
			b := newBed(t, http.HandlerFunc(hello), c.filter)
			b.want(b.client(), "GET", "/", "", c.status, "")
			e := b.done()
			if e == nil || e.Reason != c.reason || e.Hook != "f" {
				t.Fatalf("the session ended with %v, want %v of filter f", e, c.reason)
			}
			if name != "bad status" && name != "bad respond" && !errors.Is(e, boom) {
				t.Errorf("the cause is lost: %v", e)
			}
		})
	}
}

// TestUpstreamResponseFailsAttempt: an error in UpstreamResponse fails the
// attempt, and an idempotent request goes to another peer.
func TestUpstreamResponseFailsAttempt(t *testing.T) {
	var n atomic.Int64
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.WriteHeader(503)
		}
	}), cirque.Filter{Name: "503", UpstreamResponse: func(s *cirque.Session) error {
		if s.Response().Status == 503 {
			return cirque.Reject(503, errors.New("try another"))
		}
		return nil
	}})
	c := b.client()
	b.want(c, "GET", "/", "", 200, "")
	if e := b.done(); e != nil || n.Load() != 2 {
		t.Errorf("ended with %v after %d attempts", e, n.Load())
	}
	n.Store(0)
	b.want(c, "POST", "/", "x", 503, "")
	if e := b.done(); e == nil || n.Load() != 1 {
		t.Errorf("POST: ended with %v after %d attempts (row X13)", e, n.Load())
	}
}

// TestBodyHooks: row X6: change, drop, delay; with and without a length.
func TestBodyHooks(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d:%s", r.ContentLength, b)
	})
	var hold bytes.Buffer
	for name, c := range map[string]struct {
		filter cirque.Filter
		body   string
		want   string
	}{
		"drop": {cirque.Filter{
			UpstreamRequest: func(s *cirque.Session) error { s.UpstreamRequest().SetLength(0); return nil },
			RequestBody:     func(*cirque.Session, []byte, bool) ([]byte, error) { return nil, nil },
		}, "abc", "0:"},
		"make": {cirque.Filter{
			UpstreamRequest: func(s *cirque.Session) error { s.UpstreamRequest().SetLength(3); return nil },
			RequestBody: func(_ *cirque.Session, b []byte, last bool) ([]byte, error) {
				if last {
					return []byte("new"), nil
				}
				return nil, nil
			},
		}, "", "3:new"},
		"unknown": {cirque.Filter{
			UpstreamRequest: func(s *cirque.Session) error { s.UpstreamRequest().SetLength(-1); return nil },
			RequestBody: func(_ *cirque.Session, b []byte, last bool) ([]byte, error) {
				return append(bytes.Clone(b), '!'), nil
			},
		}, "abc", "-1:abc!"},
		"hold back": {cirque.Filter{
			RequestBody: func(_ *cirque.Session, b []byte, last bool) ([]byte, error) {
				hold.Write(b)
				if last {
					return hold.Bytes(), nil
				}
				return nil, nil
			},
		}, strings.Repeat("x", 200000), "200000:" + strings.Repeat("x", 200000)},
	} {
		t.Run(name, func(t *testing.T) {
			c.filter.Name = "f"
			b := newBed(t, echo, c.filter)
			method := "POST"
			if c.body == "" {
				method = "PUT"
			}
			if status, got := b.do(b.client(), method, "/", c.body); status != 200 || got != c.want {
				t.Errorf("got %d %.80q, want %.80q", status, got, c.want)
			}
		})
	}
}

// TestWrongLength: delivering another length than announced is an internal
// error.
func TestWrongLength(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "f", RequestBody: func(_ *cirque.Session, p []byte, _ bool) ([]byte, error) {
		return append(bytes.Clone(p), "too much"...), nil
	}})
	b.want(b.client(), "POST", "/", "abc", 500, "bad_hook_body")
	if e := b.done(); e == nil || e.Side() != cirque.Internal {
		t.Errorf("ended with %v", e)
	}
}

// TestRetryReplaysFilteredBody: body hooks run once per request; a retry sends
// what they made, while UpstreamRequest runs per attempt on a fresh copy.
func TestRetryReplaysFilteredBody(t *testing.T) {
	var n atomic.Int64
	var hooks, heads atomic.Int64
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if n.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "%s %s", body, r.Header.Values("X-Attempt"))
	}), cirque.Filter{
		Name: "f",
		UpstreamRequest: func(s *cirque.Session) error {
			heads.Add(1)
			s.UpstreamRequest().Header.Add("X-Attempt", fmt.Sprint(s.Attempts()))
			return nil
		},
		RequestBody: func(_ *cirque.Session, p []byte, _ bool) ([]byte, error) {
			hooks.Add(1)
			return bytes.ToUpper(p), nil
		},
	})
	b.want(b.client(), "PUT", "/", "abc", 200, "ABC [2]")
	if hooks.Load() != 1 || heads.Load() != 2 {
		t.Errorf("the body hook ran %d times, UpstreamRequest %d times", hooks.Load(), heads.Load())
	}
	if b.done() != nil {
		t.Error("the session failed")
	}
}

// TestUpstreamEditsStayUpstream: row X7.
func TestUpstreamEditsStayUpstream(t *testing.T) {
	seen := make(chan bool, 1)
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{
		Name: "f",
		UpstreamRequest: func(s *cirque.Session) error {
			s.UpstreamRequest().Header.Set("X-Up", "1")
			s.UpstreamRequest().SetTarget("/other")
			return nil
		},
		Done: func(s *cirque.Session, _ error) {
			seen <- s.Request().Header.Has("X-Up") || s.Request().Path() != "/"
		},
	})
	b.want(b.client(), "GET", "/", "", 200, "hello")
	if <-seen {
		t.Error("the edit is visible in the client's request")
	}
}

// TestKeys: row X16: session values end with the session, connection values with
// the connection.
func TestKeys(t *testing.T) {
	perSession := cirque.NewKey[int]("session")
	perConn := cirque.NewConnKey[int]("conn")
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "f", Request: func(s *cirque.Session) error {
		perSession.Set(s, perSession.Get(s)+1)
		perConn.Set(s, perConn.Get(s)+1)
		return s.Respond(200, fmt.Sprint(perSession.Get(s), perConn.Get(s), s.ConnRequests()))
	}})
	c := b.client()
	b.want(c, "GET", "/", "", 200, "1 1 1")
	b.want(c, "GET", "/", "", 200, "1 2 2")
	b.want(b.client(), "GET", "/", "", 200, "1 1 1")
}

// TestObserver: Began, and Ended exactly once per attempt.
func TestObserver(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	obs := &observer{}
	bad := &cirque.Peer{Addr: "127.0.0.1:1", Observer: obs}
	b.peer.Observer = obs
	b.proxy.Peer = func(s *cirque.Session) (*cirque.Peer, error) {
		if s.Attempts() == 0 {
			return bad, nil
		}
		return b.peer, nil
	}
	b.want(b.client(), "GET", "/", "", 200, "hello")
	b.done()
	if obs.began != 2 || len(obs.ended) != 2 {
		t.Fatalf("began %d, ended %d", obs.began, len(obs.ended))
	}
	first, second := obs.ended[0], obs.ended[1]
	if first.Peer != bad || first.Err == nil || first.Err.Reason != reason.ConnectRefused || first.Number != 1 {
		t.Errorf("first attempt: %+v", first)
	}
	if second.Err != nil || second.Status != 200 || second.Received != 5 || second.FirstByte <= 0 || second.Number != 2 {
		t.Errorf("second attempt: %+v", second)
	}
}

type observer struct {
	began int
	ended []cirque.Attempt
}

func (o *observer) Began(*cirque.Peer)     { o.began++ }
func (o *observer) Ended(a cirque.Attempt) { o.ended = append(o.ended, a) }

func TestDuplicateFilterName(t *testing.T) {
	// Row X21.
	p := &cirque.Proxy{Filters: []cirque.Filter{{Name: "x"}, {Name: "x"}}}
	if err := p.Validate(); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("got %v", err)
	}
	if err := (&cirque.Proxy{Filters: []cirque.Filter{{}}}).Validate(); err == nil {
		t.Error("a filter without a name was accepted")
	}
}

// TestPanics: row S24: a panic in any hook ends that session alone.
func TestPanics(t *testing.T) {
	var where atomic.Value
	where.Store("")
	boom := func(what string) func(*cirque.Session) error {
		return func(*cirque.Session) error {
			if where.Load() == what {
				panic(what)
			}
			return nil
		}
	}
	boomBody := func(what string) cirque.BodyHook {
		return func(s *cirque.Session, b []byte, _ bool) ([]byte, error) { return b, boom(what)(s) }
	}
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{
		Name: "f", Request: boom("Request"), Forward: boom("Forward"), Connected: boom("Connected"),
		UpstreamRequest: boom("UpstreamRequest"), RequestBody: boomBody("RequestBody"),
		UpstreamResponse: boom("UpstreamResponse"), Response: boom("Response"),
		Done: func(s *cirque.Session, _ error) { boom("Done")(s) },
	})
	b.proxy.ErrorPage = func(s *cirque.Session, _ *cirque.Error) error { return boom("ErrorPage")(s) }
	b.proxy.Peer = func(s *cirque.Session) (*cirque.Peer, error) { return b.peer, boom("Peer")(s) }
	for i, what := range []string{"Request", "Forward", "Peer", "Connected", "UpstreamRequest", "RequestBody", "UpstreamResponse", "Response", "Done"} {
		where.Store(what)
		status := 500
		if what == "Done" {
			status = 200
		}
		b.want(b.client(), "POST", "/", "x", status, "")
		b.done()
		where.Store("")
		b.want(b.client(), "GET", "/", "", 200, "hello")
		b.done()
		if n := b.srv.Stats().Panics; n != int64(i+1) {
			t.Errorf("%s: %d panics were counted, want %d", what, n, i+1)
		}
	}
}
