//go:build linux

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the origin and the relay too, as the bench's own is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "origin" || os.Args[1] == "relay") {
		main()
		return
	}
	os.Exit(m.Run())
}

// testOrigin starts an origin in a process of its own.
func testOrigin(t *testing.T) (r *running, addr string) {
	t.Helper()
	b := &bench{opts: &options{}}
	r = &running{}
	addr, err := b.startOrigin(r, &scenario{}, filepath.Join(t.TempDir(), "origin"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	return r, addr
}

// A proxy that does its work passes, in every kind of load.
func TestLoadPassesThroughProxy(t *testing.T) {
	origin, addr := testOrigin(t)
	proxy := httptest.NewServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr}))
	defer proxy.Close()
	to := proxy.Listener.Addr().String()
	tests := []struct {
		name string
		spec loadSpec
	}{
		{"keep-alive", loadSpec{conns: 4, target: target{size: kib}}},
		{"a connection per request", loadSpec{conns: 4, perConn: true, target: target{size: kib}}},
		{"download", loadSpec{conns: 4, target: target{size: mib}}},
		{"upload", loadSpec{conns: 4, target: target{size: kib, upload: mib}}},
		{"slow origin", loadSpec{conns: 8, target: target{size: kib, delayMS: 5}}},
		{"swing", loadSpec{conns: 8, inFlight: 4, swing: 2, target: target{size: kib}}},
		{"open loop", loadSpec{conns: 8, rate: 500, target: target{size: kib}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before, err := origin.ask()
			if err != nil {
				t.Fatal(err)
			}
			spec := test.spec
			spec.addr, spec.measure = to, 100*time.Millisecond
			edges := 0
			res, err := runLoad(spec, func(bool) { edges++ })
			for err == nil && res.completed == 0 && spec.measure < 10*time.Second {
				// A busy machine answers nothing in so short a time.
				spec.measure *= 5
				edges = 0
				if before, err = origin.ask(); err == nil {
					res, err = runLoad(spec, func(bool) { edges++ })
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			after, err := origin.ask()
			if err != nil {
				t.Fatal(err)
			}
			var r round
			r.OriginSaw = after.Requests - before.Requests
			r.prove(res, after.Bad-before.Bad, after.FirstBad)
			if r.Problem != "" {
				t.Error(r.Problem)
			}
			if edges != 2 || res.latency.total != res.completed {
				t.Errorf("%d edges, %d latencies of %d requests", edges, res.latency.total, res.completed)
			}
		})
	}
}

// A proxy that does not do its work is found out.
func TestLoadFindsWrongAnswers(t *testing.T) {
	origin, addr := testOrigin(t)
	body := func(path string) []byte {
		want, _ := parsePath([]byte(path))
		return append(appendID(nil, want.id), bodyBytes(want.id, idLen, want.size)...)
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		problem string
	}{
		{"another status", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
		}, "status"},
		{"another length", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(body(r.URL.Path)[:100])
		}, "wrong length"},
		{"no length", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = w.Write(body(r.URL.Path))
		}, "wrong length"},
		{"another request's answer", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(body("/1k/0/00000000000000aa/0"))
		}, "another request's body"},
		{"one byte is wrong", func(w http.ResponseWriter, r *http.Request) {
			b := body(r.URL.Path)
			b[len(b)-1] ^= 1
			_, _ = w.Write(b)
		}, "another request's body"},
		{"cut off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1024")
			_, _ = w.Write(body(r.URL.Path)[:1000])
		}, "early end"},
		{"right, but not from the origin", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(body(r.URL.Path))
		}, "the origin counted 0 requests"},
		{"asked the origin twice", func(w http.ResponseWriter, r *http.Request) {
			for range 2 {
				if resp, err := http.Get("http://" + addr + r.URL.Path); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
			_, _ = w.Write(body(r.URL.Path))
		}, "but the origin counted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			proxy := httptest.NewServer(test.handler)
			proxy.Config.ErrorLog = nil
			defer proxy.Close()
			before, err := origin.ask()
			if err != nil {
				t.Fatal(err)
			}
			res, err := runLoad(loadSpec{addr: proxy.Listener.Addr().String(), conns: 2, target: target{size: kib},
				measure: 50 * time.Millisecond}, func(bool) {})
			if err != nil {
				t.Fatal(err)
			}
			after, err := origin.ask()
			if err != nil {
				t.Fatal(err)
			}
			r := round{OriginSaw: after.Requests - before.Requests}
			r.prove(res, after.Bad-before.Bad, after.FirstBad)
			if !strings.Contains(r.Problem, test.problem) {
				t.Errorf("problem %q, want one with %q", r.Problem, test.problem)
			}
		})
	}
}

// An upload that a proxy changes is found by the origin.
func TestOriginRefusesWrongUpload(t *testing.T) {
	origin, addr := testOrigin(t)
	good := append(appendID(nil, 7), bodyBytes(7, idLen, 2000)...)
	wrong := bytes.Clone(good)
	wrong[1999] ^= 1
	const path = "/1k/0/0000000000000007/2000"
	tests := []struct {
		name string
		body io.Reader
		bad  int64
	}{
		{"with a length", bytes.NewReader(good), 0},
		{"chunked", io.MultiReader(bytes.NewReader(good[:700]), bytes.NewReader(good[700:])), 0},
		{"changed", bytes.NewReader(wrong), 1},
		{"changed, chunked", io.MultiReader(bytes.NewReader(wrong)), 1},
		{"short", bytes.NewReader(good[:1999]), 1},
		{"another's", bytes.NewReader(append(appendID(nil, 8), good[idLen:]...)), 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before, _ := origin.ask()
			resp, err := http.Post("http://"+addr+path, "application/octet-stream", test.body)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != (test.bad == 0) {
				t.Errorf("error %v", err)
			}
			after, err := origin.ask()
			if err != nil || after.Bad-before.Bad != test.bad {
				t.Errorf("the origin found %d bad requests, want %d (%v)", after.Bad-before.Bad, test.bad, err)
			}
		})
	}
}

func TestPath(t *testing.T) {
	tests := []struct {
		path string
		want target
		ok   bool
	}{
		{"/1k", target{size: kib}, true},
		{"/64k/100/00000000000000ff/0", target{size: 64 * kib, delayMS: 100, id: 255}, true},
		{"/1m/0/0123456789abcdef/1048576", target{size: mib, id: 0x0123456789abcdef, upload: mib}, true},
		{"/2m", target{size: 2 * mib}, true}, // longer than the pattern
		{"/129m", target{}, false},
		{"/15", target{}, false}, // no room for the id
		{"/k", target{}, false},  // no digits
		{"1k", target{}, false},  // no slash
		{"/1k/x", target{}, false},
		{"/1k/0/00ff", target{}, false}, // a short id
		{"/1k/0/00000000000000ff/0/0", target{}, false},
	}
	for _, test := range tests {
		got, ok := parsePath([]byte(test.path))
		if ok != test.ok || ok && got != test.want {
			t.Errorf("parsePath(%q) = %+v, %v, want %+v, %v", test.path, got, ok, test.want, test.ok)
		}
		if !ok {
			continue
		}
		if again, ok := parsePath(got.appendPath(nil)); !ok || again != got {
			t.Errorf("%+v becomes %q and then %+v", got, got.appendPath(nil), again)
		}
	}
}

// Every piece of a body is known by itself, wherever it was cut.
func TestCheckBody(t *testing.T) {
	const id = 4097
	whole := append(appendID(nil, id), bodyBytes(id, idLen, 64*kib)...)
	for _, cut := range []int{1, idLen - 1, idLen, idLen + 1, 100, 32 * edge, 33 * edge, 64*kib - 1} {
		if !checkBody(id, 0, whole[:cut]) || !checkBody(id, cut, whole[cut:]) {
			t.Errorf("a body cut at %d is not known", cut)
		}
		if checkBody(id+1, 0, whole[:max(cut, idLen)]) || checkBody(id+1, cut, whole[cut:]) {
			t.Errorf("a body cut at %d passes for another's", cut)
		}
	}
	if checkBody(id, maxBody-10, make([]byte, 11)) {
		t.Error("more than the largest body passes")
	}
}

func TestQuantiles(t *testing.T) {
	var h hist
	for i := int64(1); i <= 1000; i++ {
		h.add(i * 1000)
	}
	for _, test := range []struct {
		q    float64
		want int64
	}{{0.5, 500_000}, {0.99, 990_000}, {0.999, 999_000}, {1, 1_000_000}} {
		if got := h.quantile(test.q); got < test.want*98/100 || got > test.want*102/100 {
			t.Errorf("quantile %v is %d, want %d within 2 %%", test.q, got, test.want)
		}
	}
	var small hist
	for _, ns := range []int64{-5, 0, 63, 64, 127, 1 << 62} {
		small.add(ns) // none may be out of range
	}
	if got := small.quantile(0.5); got != 63 {
		t.Errorf("the median of six is %d, want the third, 63", got)
	}
}

func TestForeign(t *testing.T) {
	start := time.Unix(0, 0)
	a := probe{at: start, cpus: map[int]time.Duration{0: 0, 1: 0}}
	b := probe{at: start.Add(time.Second), proxy: 600 * time.Millisecond,
		cpus: map[int]time.Duration{0: 800 * time.Millisecond, 1: time.Second}}
	if got := foreign(a, b, []int{0}); got < 0.199 || got > 0.201 {
		t.Errorf("foreign share %v, want 0.2: 800 ms of a second, less the proxy's 600", got)
	}
	if got := machine(a, b); got != 1800*time.Millisecond {
		t.Errorf("machine %v, want 1.8s", got)
	}
}

func TestChoose(t *testing.T) {
	tests := []struct{ list, want string }{
		{"keepalive-64", "keepalive-64"}, // not keepalive-64-log too
		{"upload-1", "upload-1k upload-1m"},
		{"latency,reuse", "reuse latency"},
		{"nothing", ""},
	}
	for _, test := range tests {
		var names []string
		for _, s := range choose(scenarios(), test.list) {
			names = append(names, s.name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("choose(%q) = %q, want %q", test.list, got, test.want)
		}
	}
}

func TestCPUOf(t *testing.T) {
	before := cpuOf([]int{os.Getpid()})
	for n := 0; cpuOf([]int{os.Getpid()})-before < 2*tick; n++ {
		strconv.Itoa(n) // ends as soon as two ticks are counted
	}
	// The resident size first: it may grow in between. The kernel counts it in
	// batches of each CPU, so that the two may differ a little.
	resident := memoryOf([]int{os.Getpid()}, "VmRSS")
	if peak := memoryOf([]int{os.Getpid()}, "VmHWM"); peak+mib < resident {
		t.Error("the peak is below what is resident now")
	}
}
