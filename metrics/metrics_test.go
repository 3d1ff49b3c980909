package metrics

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/cirqueproxy/cirque"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newMetrics(t testing.TB, o Options) *Metrics {
	t.Helper()
	o.NoRuntime = true
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// bed is a real server on loopback.
type bed struct {
	t     testing.TB
	addr  string
	srv   *cirque.Server
	donec chan struct{} // a value for each session after it was counted
}

func newBed(t testing.TB, srv *cirque.Server, proxies ...*cirque.Proxy) *bed {
	b := &bed{t: t, srv: srv, donec: make(chan struct{}, 1000)}
	srv.Logger = slog.New(slog.DiscardHandler)
	for _, p := range append(proxies, srv.Proxy) {
		if p != nil {
			p.Filters = append(p.Filters, cirque.Filter{Name: "ended", Done: func(*cirque.Session, error) { b.donec <- struct{}{} }})
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	return b
}

// send sends one request on a connection of its own and returns the status.
func (b *bed) send(head, body string) int {
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\nConnection: close\r\n\r\n"+body); err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	<-b.donec
	return resp.StatusCode
}

func get(path string) string { return "GET " + path + " HTTP/1.1\nHost: h" }

// scrape returns what Prometheus gets, without comments.
func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	var out strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			out.WriteString(line)
		}
	}
	return out.String()
}

func want(t testing.TB, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+text, "\n"+l+"\n") {
			t.Errorf("no line %s in\n%s", l, text)
		}
	}
}

func respond(s *cirque.Session) error {
	switch s.Request().Path() {
	case "/missing":
		return s.Respond(404, "no")
	case "/refused":
		return cirque.Reject(403, errors.New("no"))
	case "/panic":
		panic("a hook's mistake")
	case "/body":
		if _, err := s.BufferRequest(1 << 20); err != nil {
			return err
		}
	}
	return s.Respond(200, "hello")
}

func site(name string, m *Metrics) *cirque.Proxy {
	return &cirque.Proxy{Name: name, LogError: func(*cirque.Session, *cirque.Error) {},
		Filters: []cirque.Filter{m.Filter(), {Name: "local", Request: respond}}}
}

func TestRequests(t *testing.T) {
	m := newMetrics(t, Options{})
	api, web := site("api", m), site("web", m)
	b := newBed(t, &cirque.Server{Proxy: web, Route: func(s *cirque.Session) *cirque.Proxy {
		if s.Request().HasPathPrefix("/api") {
			return api
		}
		return nil
	}}, api)
	m.AddServer("main", b.srv)
	for range 3 {
		b.send(get("/api/x"), "")
	}
	b.send(get("/missing"), "")
	b.send(get("/refused"), "")
	b.send(get("/panic"), "")
	b.send("POST /body HTTP/1.1\nHost: h\nContent-Length: 4", "1234")
	b.send("GET / HTTP/1.1\nHost: a\nHost: b", "")
	b.srv.Close()
	text := scrape(t, m)
	want(t, text,
		`cirque_requests_total{class="2xx",reason="none",route="api"} 3`,
		`cirque_requests_total{class="2xx",reason="none",route="web"} 1`,
		`cirque_requests_total{class="4xx",reason="none",route="web"} 1`,
		`cirque_requests_total{class="4xx",reason="refused",route="web"} 1`,
		`cirque_requests_total{class="4xx",reason="bad_host",route="web"} 1`,
		`cirque_requests_total{class="5xx",reason="hook_panic",route="web"} 1`,
		`cirque_requests_in_flight{route="api"} 0`,
		`cirque_requests_in_flight{route="web"} 0`,
		`cirque_request_body_bytes_total{route="web"} 4`,
		`cirque_response_body_bytes_total{route="api"} 15`,
		`cirque_request_duration_seconds_count{route="api"} 3`,
		`cirque_request_duration_seconds_bucket{route="api",le="+Inf"} 3`,
		`cirque_server_requests_total{server="main"} 8`,
		`cirque_server_failures_total{reason="refused",server="main"} 1`,
		`cirque_hook_panics_total{server="main"} 1`,
		`cirque_connections_accepted_total{server="main"} 8`,
		`cirque_connections_refused_total{server="main"} 0`,
		`cirque_connections{server="main",state="active"} 0`,
		`cirque_connections{server="main",state="parked"} 0`,
	)
	if !strings.Contains(text, `cirque_connection_ends_total{reason="keep_alive_off",server="main"}`) {
		t.Errorf("no ends of connections in\n%s", text)
	}
}

func TestUpstream(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") }))
	defer origin.Close()
	m := newMetrics(t, Options{})
	tr := &cirque.Transport{}
	defer tr.Close()
	m.AddTransport("main", tr)
	p := cirque.NewPeer(origin.Listener.Addr().String())
	b := newBed(t, &cirque.Server{Proxy: &cirque.Proxy{Transport: tr, Filters: []cirque.Filter{m.Filter()},
		Peer: func(*cirque.Session) (*cirque.Peer, error) { return p, nil }}})
	for range 3 {
		b.send(get("/"), "")
	}
	want(t, scrape(t, m),
		`cirque_upstream_connects_total{transport="main"} 1`,
		`cirque_upstream_reuses_total{transport="main"} 2`,
		`cirque_upstream_connections{state="idle",transport="main"} 1`,
		`cirque_upstream_connections{state="busy",transport="main"} 0`,
		`cirque_upstream_strays_total{transport="main"} 0`,
		`cirque_upstream_evicted_total{transport="main"} 0`,
		`cirque_upstream_retired_total{transport="main"} 0`,
		`cirque_requests_total{class="2xx",reason="none",route="(none)"} 3`,
	)
	m.AddTransport("main", &cirque.Transport{}) // a reload
	want(t, scrape(t, m), `cirque_upstream_connects_total{transport="main"} 0`)
}

func TestInFlight(t *testing.T) {
	m := newMetrics(t, Options{})
	inc, goc := make(chan struct{}), make(chan struct{})
	wait := cirque.Filter{Name: "wait", Request: func(s *cirque.Session) error {
		inc <- struct{}{}
		<-goc
		return s.Respond(200, "")
	}}
	b := newBed(t, &cirque.Server{Proxy: &cirque.Proxy{Name: "slow", Filters: []cirque.Filter{m.Filter(), wait}}})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { b.send(get("/"), "") })
	}
	<-inc
	<-inc
	want(t, scrape(t, m), `cirque_requests_in_flight{route="slow"} 2`, `cirque_requests_total{class="2xx",reason="none",route="slow"} 0`)
	close(goc)
	wg.Wait()
	want(t, scrape(t, m), `cirque_requests_in_flight{route="slow"} 0`, `cirque_requests_total{class="2xx",reason="none",route="slow"} 2`)
}

func TestRoutesAreBounded(t *testing.T) {
	m := newMetrics(t, Options{MaxRoutes: 2})
	var proxies []*cirque.Proxy
	for i := range 5 {
		proxies = append(proxies, site(fmt.Sprint("r", i), m))
	}
	n := 0
	b := newBed(t, &cirque.Server{Route: func(*cirque.Session) *cirque.Proxy { n++; return proxies[(n-1)%5] }}, proxies...)
	for range 10 {
		b.send(get("/"), "")
	}
	want(t, scrape(t, m),
		`cirque_requests_total{class="2xx",reason="none",route="r0"} 2`,
		`cirque_requests_total{class="2xx",reason="none",route="r1"} 2`,
		`cirque_requests_total{class="2xx",reason="none",route="(other)"} 6`)
	if got := len(*m.routes.byName.Load()); got != 3 {
		t.Errorf("%d routes are kept", got)
	}
}

func TestBuckets(t *testing.T) {
	m := newMetrics(t, Options{Buckets: []time.Duration{time.Millisecond, time.Second}})
	for d, want := range map[time.Duration]int{0: 0, time.Millisecond: 0, time.Millisecond + 1: 1, time.Second: 1, time.Second + 1: 2, time.Hour: 2} {
		if got := m.bucket(d); got != want {
			t.Errorf("bucket(%v) = %d, want %d", d, got, want)
		}
	}
	r := m.get("x")
	for i, n := range []int64{5, 3, 1} {
		r.shards[i%len(r.shards)].buckets[i].Add(n)
	}
	r.shards[0].nanoseconds.Add(1_500_000_000)
	want(t, scrape(t, m),
		`cirque_request_duration_seconds_bucket{route="x",le="0.001"} 5`,
		`cirque_request_duration_seconds_bucket{route="x",le="1"} 8`,
		`cirque_request_duration_seconds_bucket{route="x",le="+Inf"} 9`,
		`cirque_request_duration_seconds_sum{route="x"} 1.5`,
		`cirque_request_duration_seconds_count{route="x"} 9`)
}

func TestBadBuckets(t *testing.T) {
	cases := []struct {
		name string
		b    []time.Duration
	}{
		{"falling", []time.Duration{2, 1}},
		{"twice the same", []time.Duration{1, 1}},
		{"zero", []time.Duration{0, 1}},
		{"negative", []time.Duration{-1}},
		{"too many", make([]time.Duration, 65)},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := New(Options{Buckets: tc.b}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestClasses(t *testing.T) {
	for status, want := range map[int]string{0: "other", 101: "1xx", 200: "2xx", 304: "3xx", 499: "4xx", 599: "5xx", 600: "other", 999: "other"} {
		if got := classes[classOf(status)]; got != want {
			t.Errorf("class of %d is %s, want %s", status, got, want)
		}
	}
}

// TestCollector checks what Prometheus asks of names, helps and labels.
func TestCollector(t *testing.T) {
	m := newMetrics(t, Options{})
	m.get("x").failed[5][1].Add(1)
	m.AddServer("s", &cirque.Server{})
	m.AddTransport("t", &cirque.Transport{})
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(m); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
}

func TestRuntimeAndOwn(t *testing.T) {
	m, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.Registerer().MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "mine_total", Help: "Mine."}))
	text := scrape(t, m)
	for _, name := range []string{"go_goroutines ", "process_cpu_seconds_total ", "mine_total 0"} {
		if !strings.Contains(text, name) {
			t.Errorf("no %s", name)
		}
	}
}

// TestScrapeWhileCounting is for the race detector, and that nothing is lost.
func TestScrapeWhileCounting(t *testing.T) {
	m := newMetrics(t, Options{MaxRoutes: 10})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 1000 {
				m.get(fmt.Sprint("r", (i+j)%12)).shard(uint32(j)).ok[2].Add(1)
			}
		})
	}
	for range 20 {
		scrape(t, m)
	}
	wg.Wait()
	total := int64(0)
	for _, r := range *m.routes.byName.Load() {
		for i := range r.shards {
			total += r.shards[i].ok[2].Load()
		}
	}
	if total != 4000 {
		t.Errorf("counted %d of 4000", total)
	}
}

func TestShardsShareNoLine(t *testing.T) {
	if size := unsafe.Sizeof(shard{}); size%128 != 0 {
		t.Errorf("a shard has %d bytes", size)
	}
}

// keepAlive sends one request on a connection and reads the response, without
// allocating.
func keepAlive(t testing.TB, b *bed) (turn func()) {
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	req, buf, end := []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), make([]byte, 4096), []byte("\r\n\r\nhello")
	return func() {
		if _, err := c.Write(req); err != nil {
			t.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], end); {
			k, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
		<-b.donec
	}
}

// fast responds without looking at anything.
var fast = cirque.Filter{Name: "local", Request: func(s *cirque.Session) error { return s.Respond(200, "hello") }}

// TestAllocs runs whole requests through a real server: counting adds no
// allocation to them.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates; the run without it counts")
		return
	}
	measure := func(filters ...cirque.Filter) float64 {
		p := &cirque.Proxy{Name: "site", Filters: append(filters, fast)}
		turn := keepAlive(t, newBed(t, &cirque.Server{Proxy: p}))
		for range 200 {
			turn()
		}
		return testing.AllocsPerRun(2000, turn)
	}
	without := measure()
	if with := measure(newMetrics(t, Options{}).Filter()); with > without {
		t.Errorf("%v allocations per request, %v without metrics", with, without)
	}
}

// BenchmarkHooks runs both hooks of a session.
func BenchmarkHooks(b *testing.B) {
	h := &hooks{m: newMetrics(b, Options{})}
	bench := cirque.Filter{Name: "bench", Done: func(s *cirque.Session, err error) {
		b.ReportAllocs()
		for b.Loop() {
			_ = h.request(s)
			h.done(s, err)
		}
	}}
	p := &cirque.Proxy{Name: "site", Filters: []cirque.Filter{fast, bench}}
	keepAlive(b, newBed(b, &cirque.Server{Proxy: p}))()
}
