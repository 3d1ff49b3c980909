package accesslog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/cirqueproxy/cirque"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is an output for tests.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newLog(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// bed is a real server on loopback with the log in it.
type bed struct {
	t     testing.TB
	addr  string
	donec chan struct{} // a value for each session after its line was added
}

func newBed(t testing.TB, proxy *cirque.Proxy, filters ...cirque.Filter) *bed {
	b := &bed{t: t, donec: make(chan struct{}, 1000)}
	proxy.Name = "site"
	proxy.Transport = &cirque.Transport{}
	proxy.Filters = append(proxy.Filters, filters...)
	proxy.Filters = append(proxy.Filters, cirque.Filter{Name: "ended", Done: func(*cirque.Session, error) { b.donec <- struct{}{} }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	srv := &cirque.Server{Proxy: proxy, Logger: slog.New(slog.DiscardHandler)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
		proxy.Transport.Close()
	})
	return b
}

func (b *bed) dial() net.Conn {
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// send sends a request and reads the response to its end.
func (b *bed) send(head string) {
	c := b.dial()
	defer c.Close()
	if _, err := io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"); err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	<-b.donec
}

func origin(t testing.TB, h http.HandlerFunc) *cirque.Peer {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &cirque.Peer{Addr: srv.Listener.Addr().String(), Name: "origin-1"}
}

func to(p *cirque.Peer) func(*cirque.Session) (*cirque.Peer, error) {
	return func(*cirque.Session) (*cirque.Peer, error) { return p, nil }
}

func TestFormats(t *testing.T) {
	p := origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"v1"`)
		_, _ = io.WriteString(w, "hello")
	})
	head := "GET /a/../b?q=1 HTTP/1.1\nHost: Example.com:80\nUser-Agent: curl \"8\"\nReferer: http://r/\nX-One: 1\nConnection: close"
	cases := []struct{ name, format, want string }{
		{"common", "common", `^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/20\d\d:\d\d:\d\d:\d\d \+0000\] "GET /a/\.\./b\?q=1 HTTP/1\.1" 200 5$`},
		{"combined", "combined", `"GET /a/\.\./b\?q=1 HTTP/1\.1" 200 5 "http://r/" "curl \\x228\\x22"$`},
		{"custom", "$client $method $path $status $duration", `^127\.0\.0\.1 GET /b 200 \d+\.\d{6}$`},
		{"braces and dollars", "${host}x $$ ${query}", `^example\.comx \$ q=1$`},
		{"fields", `$http_x_one $http_missing $sent_http_etag`, `^1 - \\x22v1\\x22$`},
		{"way", "$route $peer $attempts $reused $reason $side", `^site origin-1 1 false none -$`},
		{"timings", "$connect $first_byte", `^0\.\d{6} 0\.\d{6}$`},
		{"rest", "$time $time_unix $client_port $listener $connection_requests $scheme $received $filter",
			`^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d{10} \d+ 127\.0\.0\.1:\d+ 1 http 0 -$`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var out buffer
			l := newLog(t, Options{Output: &out, Format: tc.format})
			newBed(t, &cirque.Proxy{Peer: to(p)}, l.Filter()).send(head)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			got := strings.TrimSuffix(out.String(), "\n")
			if !regexp.MustCompile(tc.want).MatchString(got) {
				t.Errorf("line  %s\nwants %s", got, tc.want)
			}
			if strings.Count(out.String(), "\n") != 1 {
				t.Errorf("not one line: %q", out.String())
			}
		})
	}
}

func TestJSON(t *testing.T) {
	p := origin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello")
	})
	var out buffer
	l := newLog(t, Options{Output: &out})
	newBed(t, &cirque.Proxy{Peer: to(p)}, l.Filter()).send("GET /x HTTP/1.1\nHost: h\nUser-Agent: ü\"\\\nConnection: close")
	l.Close()
	var got map[string]any
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	for _, name := range DefaultFields() {
		if _, ok := got[name]; !ok {
			t.Errorf("no %q in %s", name, out.String())
		}
	}
	for name, want := range map[string]any{"method": "GET", "host": "h", "target": "/x", "status": 200.0, "reason": "none",
		"route": "site", "peer": "origin-1", "attempts": 1.0, "reused": false, "sent": 5.0, "user_agent": "ü\"\\", "referer": ""} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
	if d, _ := got["duration"].(float64); d <= 0 || d > 60 {
		t.Errorf("duration = %v", got["duration"])
	}
}

// TestEveryEndHasALine has sessions that end in other ways than with a response
// from an origin.
func TestEveryEndHasALine(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	slow := origin(t, func(http.ResponseWriter, *http.Request) { <-block })
	dead := &cirque.Peer{Addr: "127.0.0.1:1", Name: "dead"}
	cases := []struct {
		name, head string
		peer       *cirque.Peer
		leave      bool
		want       string
	}{
		{"client left", "GET /slow HTTP/1.1\nHost: h", slow, true, "499 client_gone GET h origin-1 downstream\n"},
		{"no origin", "GET / HTTP/1.1\nHost: h", dead, false, "502 connect_refused GET h dead upstream\n"},
		{"head refused", "GET / HTTP/1.1\nHost: a\nHost: b", dead, false, "400 bad_host GET a - downstream\n"},
		{"garbage", "\x16\x03\x01", dead, false, "400 bad_request - - - downstream\n"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var out buffer
			l := newLog(t, Options{Output: &out, Format: "$status $reason $method $host $peer $side"})
			b := newBed(t, &cirque.Proxy{Peer: to(tc.peer), LogError: func(*cirque.Session, *cirque.Error) {}}, l.Filter())
			if tc.leave {
				c := b.dial()
				_, _ = io.WriteString(c, strings.ReplaceAll(tc.head, "\n", "\r\n")+"\r\n\r\n")
				c.Close()
				<-b.donec
			} else {
				b.send(tc.head)
			}
			l.Close()
			if out.String() != tc.want {
				t.Errorf("line %q, want %q", out.String(), tc.want)
			}
		})
	}
}

func TestSkip(t *testing.T) {
	var out buffer
	l := newLog(t, Options{Output: &out, Format: "$path", Skip: func(s *cirque.Session) bool { return s.Request().Path() == "/healthz" }})
	b := newBed(t, local(), l.Filter())
	b.send("GET /healthz HTTP/1.1\nHost: h\nConnection: close")
	b.send("GET /seen HTTP/1.1\nHost: h\nConnection: close")
	l.Close()
	if out.String() != "/seen\n" {
		t.Errorf("log %q", out.String())
	}
}

// local is a proxy that answers itself.
func local() *cirque.Proxy {
	return &cirque.Proxy{Filters: []cirque.Filter{{Name: "local", Request: func(s *cirque.Session) error { return s.Respond(200, "ok") }}}}
}

func TestBadOptions(t *testing.T) {
	cases := []struct {
		name string
		o    Options
		want string
	}{
		{"no output", Options{Format: "json"}, "no output"},
		{"unknown format", Options{Format: "jsn"}, `unknown format "jsn"; did you mean "json"?`},
		{"unknown variable", Options{Format: "$client $methd"}, `unknown variable "methd"; did you mean "method"?`},
		{"unknown field", Options{Fields: []string{"clinet"}}, `unknown variable "clinet"; did you mean "client"?`},
		{"field twice", Options{Fields: []string{"client", "client"}}, `"client" is there twice`},
		{"bad name in braces", Options{Format: "${http x}"}, `"http x" is no name`},
		{"quote in a field", Options{Fields: []string{`a"b`}}, `is no name`},
		{"open brace", Options{Format: "x ${client"}, "the $ at byte 2 has no name"},
		{"lone dollar", Options{Format: "$client $"}, "the $ at byte 8 has no name"},
		{"line break", Options{Format: "$client\n$method"}, "control character at byte 7"},
		{"fields of a text format", Options{Format: "common", Fields: []string{"client"}}, "Fields are for"},
		{"prefix alone", Options{Format: "$http_"}, "unknown variable"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name != "no output" {
				tc.o.Output = io.Discard
			}
			l, err := New(tc.o)
			if err == nil {
				l.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v\nwants %s", err, tc.want)
			}
		})
	}
}

// keepAlive sends one request on a connection and reads the response, without
// allocating.
func keepAlive(t testing.TB, b *bed) (turn func()) {
	c := b.dial()
	t.Cleanup(func() { c.Close() })
	req := []byte("GET /some/path?with=query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
		"Referer: http://example.com/\r\nX-Custom: 1\r\n\r\n")
	buf, end := make([]byte, 4096), []byte("\r\n\r\nok")
	return func() {
		if _, err := c.Write(req); err != nil {
			t.Fatal(err)
		}
		n := 0
		for !bytes.HasSuffix(buf[:n], end) {
			k, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
		<-b.donec
	}
}

// TestAllocs runs whole requests through a real server: a line adds no
// allocation to them.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates; the run without it counts")
		return
	}
	measure := func(filters ...cirque.Filter) float64 {
		turn := keepAlive(t, newBed(t, local(), filters...))
		for range 200 {
			turn()
		}
		return testing.AllocsPerRun(2000, turn)
	}
	without := measure()
	for _, format := range []string{"json", "common", "combined", "$time $peer $http_x_custom $sent_http_server $path $query $reused $connect"} {
		l := newLog(t, Options{Output: io.Discard, Format: format})
		if with := measure(l.Filter()); with > without {
			t.Errorf("format %s: %v allocations per request, %v without a log", format, with, without)
		}
		l.Close()
	}
}

// BenchmarkAppend makes lines of a session as the hook does.
func BenchmarkAppend(b *testing.B) {
	for _, format := range []string{"json", "combined"} {
		b.Run(format, func(b *testing.B) {
			l := newLog(b, Options{Output: io.Discard, Format: format})
			defer l.Close()
			bench := cirque.Filter{Name: "bench", Done: func(s *cirque.Session, err error) {
				b.ReportAllocs()
				for b.Loop() {
					l.done(s, err)
				}
			}}
			keepAlive(b, newBed(b, local(), bench))()
		})
	}
}
