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
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
)

// doorHandlers are served by net/http itself and through each door; the bytes
// that a client sees must be the same.
var doorHandlers = map[string]http.HandlerFunc{
	"nothing": func(http.ResponseWriter, *http.Request) {},
	"short":   hello,
	"html":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html><body>hi</body></html>") },
	"own type": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	},
	"status":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
	"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
	"error":    func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusTeapot) },
	"204": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
	},
	"304": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"a"`)
		w.WriteHeader(304)
	},
	"long": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 100000)) },
	"length": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "hello")
	},
	"flushed": func(w http.ResponseWriter, _ *http.Request) {
		for i := range 3 {
			fmt.Fprint(w, i)
			w.(http.Flusher).Flush()
		}
	},
	"trailer": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "4")
	},
	"trailer prefix": func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"X-Late", "5")
	},
	"interim": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(103)
		io.WriteString(w, "done")
	},
	"close": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "bye")
	},
	"twice": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		w.Header().Set("X-Late", "1")
		io.WriteString(w, "one")
	},
	"many fields": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("X-Newline", "a\r\nb")
	},
	"echo": func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q %d %v %v %v", r.Method, r.URL, r.Proto, b, r.ContentLength, err, r.Header.Get("X-In"), r.Trailer)
	},
	"unread": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "did not look") },
	"form": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.FormValue("a"), r.Host, r.RequestURI)
	},
}

// doorRequests are sent to each of them.
var doorRequests = map[string]string{
	"get":     "GET /p?a=1 HTTP/1.1\r\nHost: h.example\r\nX-In: v\r\n\r\n",
	"head":    "HEAD / HTTP/1.1\r\nHost: h.example\r\n\r\n",
	"http10":  "GET / HTTP/1.0\r\n\r\n",
	"post":    "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=2",
	"chunked": "POST / HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: t\r\n\r\n",
}

// talk sends a request, ends its side, and returns all that comes back.
func talk(t *testing.T, addr, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	// A last request that makes either server close.
	io.WriteString(c, request+"GET /last HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(c)
	if err != nil && len(got) == 0 {
		t.Fatal(err)
	}
	return string(got)
}

var dates = regexp.MustCompile(`Date: [^\r]*`)

// normal makes what two right servers may do differently equal: the date, the
// order of fields, the cut of chunks, and what of the second response follows a
// close.
func normal(t *testing.T, raw, method string) string {
	var out strings.Builder
	r := bufio.NewReader(strings.NewReader(dates.ReplaceAllString(raw, "Date: x")))
	for i := 0; ; i++ {
		m := method
		if i > 0 {
			m = "GET"
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: m})
		if err != nil {
			if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
				fmt.Fprintf(&out, "error %v\n", err)
			}
			return out.String()
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode < 200 {
			i--
		}
		var h bytes.Buffer
		resp.Header.Del("Connection") // resp.Close says it
		resp.Header.Write(&h)
		fmt.Fprintf(&out, "%s\n%slength %d close %v te %v trailer %v\n%s\n%v\n", resp.Status, h.String(), resp.ContentLength, resp.Close, resp.TransferEncoding, resp.Trailer, body, err)
	}
}

// TestHandlerDoor: the first door: a Handler inside a Session.
func TestHandlerDoor(t *testing.T) {
	for name, h := range doorHandlers {
		both := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/last" {
				io.WriteString(w, "last")
				return
			}
			h(w, r)
		})
		theirs := httptest.NewServer(both)
		t.Cleanup(theirs.Close)
		b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "h", Request: func(s *cirque.Session) error { return s.ServeHTTP(both) }})
		b.start()
		for what, req := range doorRequests {
			t.Run(name+"/"+what, func(t *testing.T) {
				method, _, _ := strings.Cut(req, " ")
				if name == "interim" && what == "http10" {
					return // RFC 9110, section 15.2: no 1xx to HTTP/1.0; net/http sends it
				}
				want := normal(t, talk(t, theirs.Listener.Addr().String(), req), method)
				got := normal(t, talk(t, b.addr, req), method)
				if got != want {
					t.Errorf("through the door:\n%s\nnet/http:\n%s", got, want)
				}
			})
		}
	}
}

// TestProxyDoor: the second door: a Proxy as a Handler, in front of the same
// handlers.
func TestProxyDoor(t *testing.T) {
	for name, h := range doorHandlers {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, h)
			front := httptest.NewServer(b.proxy)
			defer front.Close()
			direct := httptest.NewServer(h)
			defer direct.Close()
			for _, method := range []string{"GET", "HEAD", "POST"} {
				want := fetch(t, direct.URL, method)
				if got := fetch(t, front.URL, method); got != want {
					t.Errorf("%s through the door:\n%s\ndirect:\n%s", method, got, want)
				}
			}
		})
	}
}

// fetch returns a response as text.
func fetch(t *testing.T, url, method string) string {
	t.Helper()
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader("some body")
	}
	req, _ := http.NewRequest(method, url+"/p", body)
	req.Host = "h.example"
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	resp.Header.Del("Date")
	var h bytes.Buffer
	resp.Header.Write(&h)
	return fmt.Sprintf("%s\n%s%d %v %v\n%s\n%v", resp.Status, h.String(), resp.ContentLength, resp.Uncompressed, resp.Trailer, b, err)
}

// TestRoundTripperUpstream: the third door, one half: a RoundTripper as an
// upstream.
func TestRoundTripperUpstream(t *testing.T) {
	b := newBed(t, http.NotFoundHandler())
	b.peer.RoundTripper = roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/fail" {
			return nil, errors.New("broken")
		}
		body, _ := io.ReadAll(r.Body)
		h := http.Header{"X-From": {"function"}}
		text := r.Method + " " + r.URL.Path + " " + r.Host + " " + strconv.Itoa(len(body))
		return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text))}, nil
	})
	c := b.client()
	b.want(c, "GET", "/x", "", 200, "GET /x "+b.addr+" 0")
	b.want(c, "POST", "/x", "abc", 200, "POST /x "+b.addr+" 3")
	b.want(c, "POST", "/x", strings.Repeat("y", 300000), 200, "300000")
	b.want(c, "GET", "/fail", "", 502, "")
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	return f(r)
}

// TestPoolAsRoundTripper: the third door, the other half.
func TestPoolAsRoundTripper(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL, b)
	}))
	defer origin.Close()
	tr := &cirque.Transport{}
	defer tr.Close()
	c := http.Client{Transport: tr.RoundTripper(cirque.NewPeer(origin.Listener.Addr().String()))}
	for range 3 {
		resp, err := c.Post("http://any.example/p?q", "", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != "POST /p?q body" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	}
	if st := tr.Stats(); st.Connects != 1 || st.Reuses != 2 {
		t.Errorf("%+v", st)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://any.example/slow", nil)
	if _, err := c.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestHijack: a Handler takes the connection over, with what the client had
// sent early.
func TestHijack(t *testing.T) {
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "h", Request: func(s *cirque.Session) error {
		return s.ServeHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			line, _ := rw.ReadString('\n')
			fmt.Fprintf(rw, "you said %s", line)
			rw.Flush()
		}))
	}})
	c, r := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nearly words\n")
	got, err := r.ReadString('\n')
	if got != "you said early words\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the connection is open: %v", err)
	}
}

// TestControllerDeadlines: http.ResponseController's deadlines work.
func TestControllerDeadlines(t *testing.T) {
	errc := make(chan error, 1)
	b := newBed(t, http.NotFoundHandler(), cirque.Filter{Name: "h", Request: func(s *cirque.Session) error {
		return s.ServeHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Error(err)
			}
			_, err := io.ReadAll(r.Body)
			errc <- err
			w.WriteHeader(408)
		}))
	}})
	c, r := b.raw()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
	line, _ := r.ReadString('\n')
	if !strings.HasPrefix(line, "HTTP/1.1 408") {
		t.Errorf("got %q", line)
	}
	if err := <-errc; err == nil {
		t.Error("the read succeeded")
	}
}
