//go:build outer

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// accessLine is a line of an access log in JSON.
type accessLine struct {
	Time      string
	RequestID string `json:"request_id"`
	Client    string
	Method    string
	Host      string
	Target    string
	Protocol  string
	Status    int
	Reason    string
	Duration  float64
	Received  int64
	Sent      int64
	Route     string
	Peer      string
	Attempts  int
	Reused    bool
}

// parseAccessLines reads the lines of an access log. Others are not JSON.
func parseAccessLines(t *testing.T, text string) []accessLine {
	t.Helper()
	var lines []accessLine
	for text := range strings.Lines(text) {
		if text[0] != '{' {
			continue
		}
		var l accessLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// coreConf is the core of the configuration, key by key.
const coreConf = `
listeners:
  web: {address: "127.0.0.1:0"}
routes:
  - match: {host: api.example.com, path_prefix: /v1}
    upstream: api
  - upstream: web
upstreams:
  api: {peers: [%q, {address: %q, weight: 2}]}
  web: {peers: [%q]}
admin: {address: "127.0.0.1:0"}
log: {access: {output: stdout, format: json}}
`

// coreBed is the program with the core of the configuration: two Node origins
// behind api, nginx behind web.
type coreBed struct {
	*program
	api        [2]string
	nginx      *nginx
	files      map[string][]byte
	web, admin string
}

func newCoreBed(t *testing.T) *coreBed {
	t.Helper()
	root, files := makeFiles(t)
	b := &coreBed{files: files, nginx: startNginx(t, root)}
	for i := range b.api {
		_, b.api[i] = startScript(t, "node", "origin.mjs", root)
	}
	b.program = launch(t, command("run", "-c", write(t, fmt.Sprintf(coreConf, b.api[0], b.api[1], b.nginx.addr))))
	b.admin = b.says(t, `msg=listening listener=admin address=(\S+)`, 1)[1]
	b.web = b.says(t, `msg=listening listener=web address=(\S+)`, 1)[1]
	return b
}

// metric returns the value of a series, or -1.
func (b *coreBed) metric(t *testing.T, series string) int {
	t.Helper()
	_, text := get(t, b.admin, "x", "/metrics")
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\d+)$`).FindStringSubmatch(text)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// nodeCount returns how many requests the two Node origins had.
func (b *coreBed) nodeCount(t *testing.T) (first, second int64) {
	t.Helper()
	var n [2]int64
	for i, addr := range b.api {
		_, text := get(t, addr, "x", "/count")
		n[i], _ = strconv.ParseInt(text, 10, 64)
	}
	return n[0], n[1]
}

// TestOuterRun runs the core of the configuration and looks at all that it
// shows of itself.
func TestOuterRun(t *testing.T) {
	b := newCoreBed(t)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200} {
		if resp, body := get(t, b.admin, "x", path); resp.StatusCode != want {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	api := digestCrowd(b.web, "api.example.com", "/v1/", 1, 30)
	api.start()
	api.running.Wait()
	api.wantNoFailure(t)
	if first, second := b.nodeCount(t); first != 10 || second != 20 {
		t.Errorf("the peers with weights 1 and 2 got %d and %d of 30 requests", first, second)
	}
	other := idCrowd(b.web, 1, 10)
	other.start()
	other.running.Wait()
	other.wantNoFailure(t)
	b.wantMetrics(t)
	b.signal(syscall.SIGTERM)
	if code := b.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	b.wantAccessLog(t)
}

// wantMetrics wants the numbers of 30 requests to two origins and 10 to one,
// one after the other: three connects, and all others reused them.
func (b *coreBed) wantMetrics(t *testing.T) {
	t.Helper()
	for series, want := range map[string]int{
		`cirque_upstream_connects_total{transport="pool"}`:                               3,
		`cirque_upstream_reuses_total{transport="pool"}`:                                 37,
		`cirque_upstream_connections{state="idle",transport="pool"}`:                     3,
		`cirque_requests_total{class="2xx",reason="none",route="api.example.com/v1/*"}`:  30,
		`cirque_server_requests_total{server="web"}`:                                     40,
		`cirque_connections_accepted_total{server="web"}`:                                2,
		`cirque_request_duration_seconds_count{route="api.example.com/v1/*"}`:            30,
		`cirque_requests_in_flight{route="api.example.com/v1/*"}`:                        0,
		`cirque_request_duration_seconds_bucket{route="api.example.com/v1/*",le="+Inf"}`: 30,
	} {
		b.wantMetric(t, series, want)
	}
}

// wantMetric waits for a value: a client has its response a moment before the
// request is over.
func (b *coreBed) wantMetric(t *testing.T, series string, want int) {
	t.Helper()
	late, again := time.After(2*time.Second), time.NewTicker(20*time.Millisecond)
	defer again.Stop()
	for {
		got := b.metric(t, series)
		if got == want {
			return
		}
		select {
		case <-again.C:
		case <-late:
			t.Errorf("%s is %d, want %d", series, got, want)
			return
		}
	}
}

func (b *coreBed) wantAccessLog(t *testing.T) {
	t.Helper()
	lines := parseAccessLines(t, b.text())
	if len(lines) != 40 {
		t.Fatalf("%d lines in the access log, want 40", len(lines))
	}
	ids := map[string]bool{}
	for i, l := range lines {
		ids[l.RequestID] = true
		host, prefix := "api.example.com", "/v1/"+strconv.Itoa(i+1)
		if i >= 30 {
			host, prefix = "id.test", "/id/"+strconv.Itoa(i-29)
		}
		if l.Host != host || !strings.HasPrefix(l.Target, prefix) || l.Status != 200 || l.Reason != "none" || l.Client != "127.0.0.1" ||
			l.Protocol != "HTTP/1.1" || l.Attempts != 1 || l.Peer == "" || l.Route == "" || l.Duration <= 0 {
			t.Errorf("line %d: %+v", i, l)
		}
		if _, err := time.Parse(time.RFC3339Nano, l.Time); err != nil {
			t.Errorf("line %d: %v", i, err)
		}
	}
	if len(ids) != 40 {
		t.Errorf("%d request ids in 40 lines", len(ids))
	}
}

// TestOuterSIGTERM ends the program under load. What reached an origin must
// reach the client, a slow download too; what did not reach one must not look
// like a response.
func TestOuterSIGTERM(t *testing.T) {
	b := newCoreBed(t)
	l := digestCrowd(b.web, "api.example.com", "/v1/", 32, 0)
	l.once = true
	l.start()
	l.await(t, 1000)
	download, rest := b.download(t)
	b.signal(syscall.SIGTERM)
	b.says(t, "msg=draining", 1)
	wantClosedDoor(t, b.web)
	if resp, _ := get(t, b.admin, "x", "/readyz"); resp.StatusCode != 503 {
		t.Errorf("/readyz says %d while it drains", resp.StatusCode)
	}
	l.running.Wait() // each client ends when nothing listens any more
	rest(download)
	if code := b.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	first, second := b.nodeCount(t)
	if answered := l.answered.Load(); first+second != answered {
		t.Errorf("the origins got %d requests, the clients %d responses", first+second, answered)
	}
	for _, f := range l.failures {
		if f.status != 0 || !isUnanswered(f.err) {
			t.Errorf("%s", f)
		}
	}
	if n := int64(len(parseAccessLines(t, b.text()))); n != l.answered.Load()+1 {
		t.Errorf("%d lines in the access log, want %d", n, l.answered.Load()+1)
	}
	t.Logf("%d requests, %d of them before a closed door", l.next.Load(), len(l.failures))
}

// wantClosedDoor waits till nothing listens at addr.
func wantClosedDoor(t *testing.T, addr string) {
	t.Helper()
	late, again := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		c.Close()
		select {
		case <-again.C:
		case <-late:
			t.Fatal("it takes connections while it drains")
		}
	}
}

// isUnanswered reports whether an error says that a request was not taken.
func isUnanswered(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// download begins a download with curl and stops reading in its middle; the
// function that it returns reads the rest.
func (b *coreBed) download(t *testing.T) (io.Reader, func(io.Reader)) {
	t.Helper()
	r := &ring{t: t, root: filepath.Dir(b.nginx.root), addr: b.web}
	cmd := r.curlCommand("-N", "http://web.test/file/20m")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	begin := make([]byte, mib)
	if _, err := io.ReadFull(stdout, begin); err != nil {
		t.Fatal(err)
	}
	return stdout, func(stdout io.Reader) {
		rest, err := io.ReadAll(stdout)
		if werr := cmd.Wait(); err != nil || werr != nil {
			t.Errorf("the download: %v, %v", err, werr)
		}
		if hashOf(append(begin, rest...)) != hashOf(b.files["20m"]) {
			t.Errorf("the download has %d bytes, or others than it should", len(begin)+len(rest))
		}
	}
}
