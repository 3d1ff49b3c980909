//go:build outer

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// crowd is many clients, each with a connection of its own and nothing that
// would repeat a request behind the test's back.
type crowd struct {
	addr    string
	clients int
	// total bounds the requests. If zero, they go on till stop.
	total int64
	// once ends each client at its first failure.
	once bool
	// ask makes request number id, and check says what is wrong with what came
	// back for it.
	ask   func(id int64) []byte
	check func(id int64, resp *http.Response, body []byte) error

	next, answered atomic.Int64
	stopped        atomic.Bool
	running        sync.WaitGroup

	mu       sync.Mutex
	failures []failure               // Guarded by mu.
	marks    map[int64]chan struct{} // closed after so many answers. Guarded by mu.
}

// failure is a request that did not get its response.
type failure struct {
	id         int64
	begun, end time.Time
	status     int // 0: no response
	reason     string
	err        error
}

func (f failure) String() string {
	return fmt.Sprintf("request %d, %s: status %d %q, %v", f.id, f.end.Sub(f.begun), f.status, f.reason, f.err)
}

// start starts the clients. It returns at once.
func (l *crowd) start() {
	for range l.clients {
		l.running.Go(l.client)
	}
}

// stop lets each client finish its request and returns when all have.
func (l *crowd) stop() {
	l.stopped.Store(true)
	l.running.Wait()
}

// reached returns a channel that is closed when so many requests were answered
// as they should be.
func (l *crowd) reached(n int64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan struct{})
	if l.answered.Load() >= n {
		close(c)
		return c
	}
	if l.marks == nil {
		l.marks = map[int64]chan struct{}{}
	}
	if l.marks[n] == nil {
		l.marks[n] = c
	}
	return l.marks[n]
}

// await waits for so many answers.
func (l *crowd) await(t *testing.T, n int64) {
	t.Helper()
	select {
	case <-l.reached(n):
	case <-time.After(patience):
		t.Fatalf("%d answers, want %d", l.answered.Load(), n)
	}
}

// client makes requests, one after the other.
func (l *crowd) client() {
	var c net.Conn
	var br *bufio.Reader
	for !l.stopped.Load() {
		id := l.next.Add(1)
		if l.total > 0 && id > l.total {
			break
		}
		f := failure{id: id, begun: time.Now()}
		if c == nil {
			if c, f.err = net.DialTimeout("tcp", l.addr, patience); f.err != nil {
				l.fail(f)
				c = nil
				if l.once {
					return
				}
				continue
			}
			br = bufio.NewReader(c)
		}
		kept := l.exchange(c, br, &f)
		if f.err != nil {
			l.fail(f)
		} else {
			l.succeed()
		}
		if !kept {
			c.Close()
			c = nil
		}
		if f.err != nil && l.once {
			break
		}
	}
	if c != nil {
		c.Close()
	}
}

// exchange makes a request and reports whether the connection can be used for
// another one.
func (l *crowd) exchange(c net.Conn, br *bufio.Reader, f *failure) (kept bool) {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, f.err = c.Write(l.ask(f.id)); f.err != nil {
		return false
	}
	// An end with nothing before it is another thing than a response that is cut.
	if _, f.err = br.Peek(1); f.err != nil {
		return false
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		f.err = err
		return false
	}
	body, err := io.ReadAll(resp.Body)
	if f.status, f.err = resp.StatusCode, err; err != nil {
		return false
	}
	if f.err = l.check(f.id, resp, body); f.err != nil {
		f.reason = string(body)
	}
	return !resp.Close
}

func (l *crowd) fail(f failure) {
	f.end = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, f)
}

func (l *crowd) succeed() {
	n := l.answered.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	for at, c := range l.marks {
		if n >= at {
			close(c)
			delete(l.marks, at)
		}
	}
}

// wantNoFailure wants every request to have been answered.
func (l *crowd) wantNoFailure(t *testing.T) {
	t.Helper()
	if n := len(l.failures); n > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", n, l.next.Load(), l.failures[0])
	}
	if n := l.answered.Load(); l.total > 0 && n != l.total {
		t.Errorf("%d answers, want %d", n, l.total)
	}
}

// digestCrowd asks Node for digests below prefix, /digest/ or /v1/: paths,
// methods, bodies and their framing follow from the request's number, and so
// does the response.
func digestCrowd(addr, host, prefix string, clients int, total int64) *crowd {
	type asked struct {
		method, path string
		body         []byte
		chunked      bool
	}
	plan := func(id int64) asked {
		r := rand.New(rand.NewPCG(uint64(id), 2))
		a := asked{method: "GET", path: fmt.Sprintf("%s%d", prefix, id)}
		if r.IntN(4) == 0 {
			a.path += "/chunked"
		}
		if r.IntN(3) == 0 {
			a.method, a.chunked = "POST", r.IntN(2) == 0
			a.body = bytes.Repeat(fmt.Appendf(nil, "%d.", id), r.IntN(3000)/2)
		}
		return a
	}
	ask := func(id int64) []byte {
		a := plan(id)
		b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", a.method, a.path, host)
		switch {
		case a.method == "GET":
			b = append(b, "\r\n"...)
		case a.chunked && len(a.body) > 0:
			b = fmt.Appendf(b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(a.body), a.body)
		default:
			b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n%s", len(a.body), a.body)
		}
		return b
	}
	return &crowd{addr: addr, clients: clients, total: total, ask: ask, check: func(id int64, resp *http.Response, body []byte) error {
		a := plan(id)
		inner := sha256.Sum256(a.body)
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %s", a.method, a.path, hex.EncodeToString(inner[:])))
		return sameResponse(resp, body, hex.EncodeToString(sum[:]), "X-Path", a.path)
	}}
}

// idCrowd asks nginx for what is below /id/.
func idCrowd(addr string, clients int, total int64) *crowd {
	return &crowd{
		addr: addr, clients: clients, total: total,
		ask: func(id int64) []byte {
			return fmt.Appendf(nil, "GET /id/%d HTTP/1.1\r\nHost: id.test\r\nX-Id: <%d>\r\n\r\n", id, id)
		},
		check: func(id int64, resp *http.Response, body []byte) error {
			return sameResponse(resp, body, fmt.Sprintf("nginx /id/%d <%d>", id, id), "X-Id", fmt.Sprintf("<%d>", id))
		},
	}
}

func sameResponse(resp *http.Response, body []byte, want, field, value string) error {
	if resp.StatusCode != 200 || string(body) != want || resp.Header.Get(field) != value {
		return fmt.Errorf("status %d, %s %q, body %.200q; want %q and %q", resp.StatusCode, field, resp.Header.Get(field), body, value, want)
	}
	return nil
}

// nginxCount returns how many requests nginx had, this one not among them.
func nginxCount(t *testing.T, addr string) int64 {
	t.Helper()
	_, body := get(t, addr, "x", "/count")
	m := regexp.MustCompile(`(?m)^ \d+ \d+ (\d+) $`).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("nginx says %q", body)
	}
	n, _ := strconv.ParseInt(m[1], 10, 64)
	return n - 1
}

const loadConns = 64

// TestOuterLoad has 20,000 requests at 64 connections: no error, no response
// that belongs to another request, and no request that the origin saw twice.
func TestOuterLoad(t *testing.T) {
	t.Run("node", func(t *testing.T) {
		root, _ := makeFiles(t)
		_, addr := startScript(t, "node", "origin.mjs", root)
		p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", addr), 1)
		l := digestCrowd(p.addrs["web"], "node.test", "/digest/", loadConns, 20000)
		l.start()
		l.running.Wait()
		l.wantNoFailure(t)
		if _, count := get(t, addr, "x", "/count"); count != "20000" {
			t.Errorf("the origin saw %s requests, want 20000", count)
		}
		p.stop()
	})
	t.Run("nginx", func(t *testing.T) {
		n := startNginx(t, t.TempDir())
		p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", n.addr), 1)
		l := idCrowd(p.addrs["web"], loadConns, 20000)
		l.start()
		l.running.Wait()
		l.wantNoFailure(t)
		if count := nginxCount(t, n.addr); count != 20000 {
			t.Errorf("the origin saw %d requests, want 20000", count)
		}
		p.stop()
	})
	t.Run("wrk", testWrk)
}

// testWrk has wrk load nginx for some seconds. At the end of its time wrk lets
// go of what is under way, at most one request per connection.
func testWrk(t *testing.T) {
	n := startNginx(t, t.TempDir())
	p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", n.addr), 1)
	cmd := exec.Command(tool(t, "wrk"), "-t", "2", "-c", strconv.Itoa(loadConns), "-d", "4s",
		"-s", filepath.Join("testdata", "outer", "ids.lua"), "http://"+p.addrs["web"]+"/")
	wrk := launch(t, cmd)
	m := wrk.says(t, `^sent=(\d+) got=(\d+) wrong=(\d+) requests=(\d+) errors=(\d+)$`, 1)
	var sent, got, wrong, requests, errors int64
	for i, v := range []*int64{&sent, &got, &wrong, &requests, &errors} {
		*v, _ = strconv.ParseInt(m[i+1], 10, 64)
	}
	t.Log(m[0])
	if wrong != 0 || errors != 0 || got != requests || got < 1000 {
		t.Errorf("wrk says %s", m[0])
	}
	if code := wrk.wait(); code != 0 {
		t.Errorf("wrk exits with %d", code)
	}
	p.stop() // no request is under way after it
	if count := nginxCount(t, n.addr); count < got || count > got+loadConns {
		t.Errorf("the origin saw %d requests, wrk %d", count, got)
	}
}

// TestOuterReload reloads nginx ten times under load. It closes connections that
// Cirque may just be using: no request may fail.
func TestOuterReload(t *testing.T) {
	n := startNginx(t, t.TempDir())
	p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", n.addr), 1)
	l := idCrowd(p.addrs["web"], loadConns, 0)
	l.start()
	for i := range int64(10) {
		l.await(t, l.answered.Load()+1000)
		n.reload()
		// The old worker is gone when its connections are.
		n.says(t, "worker process [0-9]+ exited with code 0", int(i)+1)
	}
	l.await(t, l.answered.Load()+2000)
	l.stop()
	l.wantNoFailure(t)
	t.Logf("%d requests during 10 reloads", l.answered.Load())
	p.stop()
}

// TestOuterRestart stops nginx under load and starts it again, once gracefully
// and once at once.
func TestOuterRestart(t *testing.T) {
	for _, tt := range []struct {
		name string
		sig  syscall.Signal
	}{{"graceful", syscall.SIGQUIT}, {"at once", syscall.SIGTERM}} {
		t.Run(tt.name, func(t *testing.T) { testRestart(t, tt.sig) })
		t.Run(tt.name+", another peer is there", func(t *testing.T) { testRestartOfTwo(t, tt.sig) })
	}
}

// testRestart has one origin. What fails must be under way while it is gone,
// and must be told so: a page of Cirque's with 502, not a cut.
func testRestart(t *testing.T, sig syscall.Signal) {
	n := startNginx(t, t.TempDir())
	p := start(t, fmt.Sprintf(oneRoute, "127.0.0.1:0", n.addr), 1)
	l := idCrowd(p.addrs["web"], loadConns, 0)
	l.start()
	l.await(t, 2000)
	gone := time.Now()
	n.signal(sig)
	n.wait()
	n.restart()
	back := time.Now()
	l.await(t, l.answered.Load()+2000)
	l.stop()
	for _, f := range l.failures {
		if f.end.Before(gone) || f.begun.After(back) || f.status != http.StatusBadGateway || !strings.Contains(f.reason, "connect_refused") {
			t.Errorf("%s; the origin was gone from %s to %s of it", f, gone.Sub(f.begun), back.Sub(f.begun))
			break
		}
	}
	t.Logf("%d of %d requests failed while the origin was gone for %s", len(l.failures), l.next.Load(), back.Sub(gone))
	p.stop()
}

// testRestartOfTwo has another origin that stays: nothing may fail.
func testRestartOfTwo(t *testing.T, sig syscall.Signal) {
	n, stays := startNginx(t, t.TempDir()), startNginx(t, t.TempDir())
	p := start(t, fmt.Sprintf(`
listeners: {web: {address: "127.0.0.1:0"}}
routes: [{upstream: web}]
upstreams: {web: {peers: [%q, %q]}}
`, n.addr, stays.addr), 1)
	l := idCrowd(p.addrs["web"], loadConns, 0)
	l.start()
	l.await(t, 2000)
	n.signal(sig)
	n.wait()
	l.await(t, l.answered.Load()+2000)
	n.restart()
	l.await(t, l.answered.Load()+2000)
	l.stop()
	l.wantNoFailure(t)
	p.stop()
}
