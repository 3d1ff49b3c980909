package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunRoutes(t *testing.T) {
	api, web := origin(t, "api"), origin(t, "web")
	logFile := filepath.Join(t.TempDir(), "access.log")
	p := start(t, fmt.Sprintf(`
listeners:
  web: {address: "127.0.0.1:0"}
  ops: {address: "127.0.0.1:0"}
routes:
  - match: {host: api.example.com, path_prefix: /v1}
    upstream: api
    request_headers: {set: {X-Set: one}, remove: [User-Agent]}
    response_headers: {set: {X-Proxy: cirque}, add: {X-Many: [a, b]}, remove: [X-Origin]}
  - match: {path: /ops, listener: ops}
    upstream: api
  - match: {host: web.example.com}
    upstream: web
upstreams:
  api: {peers: [%q]}
  web: {peers: [%q]}
admin: {address: "127.0.0.1:0"}
log: {access: {output: %q, format: json}}
`, api, web, logFile), 3)
	for _, tt := range []struct {
		name, listener, host, path string
		status                     int
		body                       string
	}{
		{"prefix", "web", "api.example.com", "/v1/x", 200, "api /v1/x"},
		{"another host", "web", "web.example.com", "/v1/x", 200, "web /v1/x"},
		{"nothing matches", "web", "api.example.com", "/v2", 404, ""},
		{"a route of another listener", "web", "x.test", "/ops", 404, ""},
		{"that listener", "ops", "x.test", "/ops", 200, "api /ops"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := get(t, p.addrs[tt.listener], tt.host, tt.path)
			if resp.StatusCode != tt.status || tt.body != "" && body != tt.body {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, tt.status, tt.body)
			}
		})
	}
	t.Run("headers", func(t *testing.T) {
		resp, body := get(t, p.addrs["web"], "api.example.com", "/v1/../headers")
		if resp.StatusCode != 404 {
			t.Errorf("a path that leaves the prefix got %d: %s", resp.StatusCode, body)
		}
		resp, _ = get(t, p.addrs["web"], "api.example.com", "/v1/x")
		h := resp.Header
		if h.Get("X-Proxy") != "cirque" || strings.Join(h.Values("X-Many"), ",") != "a,b" || h.Get("X-Origin") != "" {
			t.Errorf("response fields: %v", h)
		}
	})
	t.Run("admin", func(t *testing.T) {
		for path, status := range map[string]int{"/healthz": 200, "/readyz": 200, "/version": 200, "/metrics": 200, "/no": 404} {
			if resp, _ := get(t, p.addrs["admin"], "x", path); resp.StatusCode != status {
				t.Errorf("%s: got %d, want %d", path, resp.StatusCode, status)
			}
		}
	})
	t.Run("metrics", func(t *testing.T) {
		_, body := get(t, p.addrs["admin"], "x", "/metrics")
		for _, want := range []string{
			`route="api.example.com/v1/*"`, `route="ops: /ops"`, "cirque_upstream_connects_total", "cirque_upstream_reuses_total", `server="ops"`,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("the metrics have no %s", want)
			}
		}
		if t.Failed() {
			t.Log(body)
		}
	})
	p.stop()
	wantAccessLog(t, logFile, 7)
}

// wantAccessLog wants so many lines of JSON, each with a status.
func wantAccessLog(t *testing.T, file string, lines int) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil || v["status"] == nil {
			t.Errorf("line %q: %v", line, err)
		}
	}
	if n != lines {
		t.Errorf("%d lines in the access log, want %d:\n%s", n, lines, data)
	}
}

func TestRunSetsRequestHeaders(t *testing.T) {
	p := start(t, fmt.Sprintf(`
listeners: {web: {address: "127.0.0.1:0"}}
routes: [{upstream: web, request_headers: {set: {X-Set: one, Host: inner.test}, add: {X-Add: [1, 2]}, remove: [X-Forwarded-For]}}]
upstreams: {web: {peers: [%q]}}
`, origin(t, "web")), 1)
	_, body := get(t, p.addrs["web"], "outer.test", "/headers")
	for _, want := range []string{"Host: inner.test\n", "X-Set: one\r\n", "X-Add: 1\r\nX-Add: 2\r\n", "X-Forwarded-Host: outer.test\r\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("the origin did not see %q:\n%s", want, body)
		}
	}
	if strings.Contains(body, "X-Forwarded-For") {
		t.Errorf("the origin saw what was removed:\n%s", body)
	}
	p.stop()
}

// TestRunPreconnects: the connections that shall be ready are there before a
// request is.
func TestRunPreconnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := start(t, fmt.Sprintf(`
listeners: {web: {address: "127.0.0.1:0"}}
routes: [{upstream: web}]
upstreams: {web: {peers: [%q, {address: "127.0.0.1:1", weight: 0}], preconnect: 2}}
`, l.Addr()), 1)
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	p.stop()
}

// slowOrigin holds its responses till the channel is closed, and says when a
// request came.
func slowOrigin(t *testing.T) (addr string, release chan struct{}, camec chan struct{}) {
	release, camec = make(chan struct{}), make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		camec <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "late")
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), release, camec
}

const oneRoute = `
listeners: {web: {address: %q}}
routes: [{upstream: web}]
upstreams: {web: {peers: [%q]}}
`

// request begins a request and returns its connection.
func request(t *testing.T, addr string, camec <-chan struct{}) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-camec:
	case <-time.After(patience):
		t.Fatal("the request did not reach the origin")
	}
	return c
}

func TestSIGTERMDrains(t *testing.T) {
	addr, release, camec := slowOrigin(t)
	p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", addr)+`admin: {address: "127.0.0.1:0"}`, 2)
	c := request(t, p.addrs["web"], camec)
	p.signal(syscall.SIGTERM)
	p.says("msg=draining")
	if resp, _ := get(t, p.addrs["admin"], "x", "/readyz"); resp.StatusCode != 503 {
		t.Errorf("/readyz says %d while it drains, want 503", resp.StatusCode)
	}
	// New connections are refused while the old one is served.
	for deadline := time.Now().Add(patience); ; {
		n, err := net.DialTimeout("tcp", p.addrs["web"], patience)
		if err != nil {
			break
		}
		n.Close()
		if time.Now().After(deadline) {
			t.Fatal("it still accepts")
		}
	}
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "late" || !resp.Close {
		t.Errorf("got %q, close %v; want the whole response and a close", body, resp.Close)
	}
	begun := time.Now()
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s to end when nothing was left", took)
	}
}

func TestSIGTERMWithIdleConnections(t *testing.T) {
	p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", origin(t, "web")), 1)
	c, err := net.Dial("tcp", p.addrs["web"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	br := bufio.NewReader(c)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	begun := time.Now()
	p.stop()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s to end with an idle connection only", took)
	}
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection ended with %v, want EOF", err)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	addr, release, camec := slowOrigin(t)
	defer close(release)
	p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", addr), 1)
	request(t, p.addrs["web"], camec)
	p.signal(syscall.SIGTERM)
	p.says("msg=draining")
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

func TestGraceCutsRequests(t *testing.T) {
	addr, release, camec := slowOrigin(t)
	defer close(release)
	p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", addr), 1, "--grace", "100ms")
	request(t, p.addrs["web"], camec)
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 1 || !strings.Contains(p.stderr(), "were cut") {
		t.Errorf("exit code %d, want 1 and a line that says so", code)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	conf := fmt.Sprintf(oneRoute, "unix:"+path, origin(t, "web"))
	// What a dead process left behind.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	p := start(t, conf, 1)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	if resp, body := get(t, path, "x", "/a"); resp.StatusCode != 200 || body != "web /a" {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
	// A second one leaves the first one alone.
	_, stderr, code := runToEnd(t, "run", "-c", write(t, conf))
	if code != 1 || !strings.Contains(stderr, "another process listens on unix:"+path) {
		t.Errorf("a second process: code %d, %q", code, stderr)
	}
	if resp, _ := get(t, path, "x", "/a"); resp.StatusCode != 200 {
		t.Errorf("got %d afterwards", resp.StatusCode)
	}
	p.stop()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket file is still there: %v", err)
	}
}

func TestUnixSocketLeavesFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := runToEnd(t, "run", "-c", write(t, fmt.Sprintf(oneRoute, "unix:"+path, "127.0.0.1:1")))
	if code != 1 || !strings.Contains(stderr, "is not a socket") {
		t.Errorf("code %d, %q", code, stderr)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "x" {
		t.Errorf("the file: %q, %v", data, err)
	}
}

// TestNothingIsBoundOnErrors holds the port that the second listener wants and
// proves that the first one was given back, and that a bad file binds none.
func TestNothingIsBoundOnErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(t.TempDir(), "s")
	conf := `
listeners: {a: {address: "unix:` + path + `"}, b: {address: %q}}
routes: [{upstream: %s}]
upstreams: {web: {peers: ["127.0.0.1:1"]}}
`
	_, stderr, code := runToEnd(t, "run", "-c", write(t, fmt.Sprintf(conf, l.Addr(), "web")))
	if code != 1 || !strings.Contains(stderr, "cirque: listener b: ") || strings.Contains(stderr, "listening") {
		t.Errorf("port in use: code %d, %q", code, stderr)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the first listener's socket is still there: %v", err)
	}
	file := write(t, fmt.Sprintf(conf, "127.0.0.1:0", "wep"))
	_, stderr, code = runToEnd(t, "run", "-c", file)
	if want := file + `:3:21: routes.1.upstream: there is no upstream "wep"; did you mean "web"?` + "\n"; code != 1 || stderr != want {
		t.Errorf("bad file: code %d, %q, want %q", code, stderr, want)
	}
}

func TestCheck(t *testing.T) {
	good := write(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", "127.0.0.1:1"))
	stdout, stderr, code := runToEnd(t, "check", "-c", good)
	if want := good + " is good: 1 listener, 1 route, 1 upstream\n"; code != 0 || stdout != want || stderr != "" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if stdout, _, code = runToEnd(t, "check", "--dump", "-c", good); code != 0 || !strings.Contains(stdout, "first_byte: 1m\n") {
		t.Errorf("dump: code %d, %q", code, stdout)
	}
	bad := write(t, "listeners: {web: {adress: x}}\nroutes: []\n")
	_, stderr, code = runToEnd(t, "check", "-c", bad)
	want := strings.ReplaceAll(`FILE:1:1: the file: the key "upstreams" is missing
FILE:1:18: listeners.web: the key "address" is missing
FILE:1:19: listeners.web: unknown key "adress"; did you mean "address"?
FILE:2:9: routes: the list is empty
`, "FILE", bad)
	if code != 1 || stderr != want {
		t.Errorf("code %d, got\n%swant\n%s", code, stderr, want)
	}
	if _, stderr, code = runToEnd(t, "check", "-c", bad+".not"); code != 1 || !strings.Contains(stderr, "no such file") {
		t.Errorf("no file: code %d, %q", code, stderr)
	}
}

func TestExplain(t *testing.T) {
	file := write(t, `listeners:
  web: {address: ":8080"}
  ops: {address: "127.0.0.1:8081", allow_paths: [hidden_separator]}
routes:
  - match: {host: "*.example.com", path_prefix: /v1, method: GET}
    upstream: api
    request_headers: {set: {A: b}}
  - match: {listener: ops, path_regex: "/o.*"}
    name: operators
    upstream: web
upstreams:
  api: {peers: ["127.0.0.1:9001", {address: "127.0.0.1:9002", weight: 2}]}
  web: {peers: ["127.0.0.1:9000"]}
log: {access: {}}
`)
	for _, tt := range []struct{ name, question, listener, want string }{
		{"route, filters and peers", "GET http://a.example.com:80/v1//x?y=z#f", "web", `request   GET a.example.com:80/v1//x?y=z
listener  web (:8080)
route     GET *.example.com/v1/* (FILE:5)
  path    /v1/x, in normal form
  because host *.example.com, prefix path /v1, method GET
filters   access-log, request_headers
upstream  api
  peer    127.0.0.1:9001, weight 1
  peer    127.0.0.1:9002, weight 2
`},
		{"no route", "POST http://a.example.com/v1", "web", `request   POST a.example.com/v1
listener  web (:8080)
route     none: 404
filters   access-log
`},
		{"each listener", "x.test/o%2Fp", "", `request   GET x.test/o%2Fp
listener  web (:8080)
refused   400: the path hides a separator

request   GET x.test/o%2Fp
listener  ops (127.0.0.1:8081)
route     operators (FILE:8)
  because regex path /o.*
filters   access-log
upstream  web
  peer    127.0.0.1:9000, weight 1
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := runToEnd(t, "explain", "-c", file, "--listener", tt.listener, tt.question)
			if want := strings.ReplaceAll(tt.want, "FILE", file); code != 0 || stdout != want {
				t.Errorf("code %d, got\n%s%swant\n%s", code, stdout, stderr, want)
			}
		})
	}
	if _, stderr, code := runToEnd(t, "explain", "-c", file, "--listener", "wob", "http://x/"); code != 1 || !strings.Contains(stderr, "there are: web, ops") {
		t.Errorf("unknown listener: code %d, %q", code, stderr)
	}
}
