//go:build outer

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// ring is the program between curl and four real origins, each a host of its
// own: nginx.test, node.test, python.test (http.server) and asyncio.test.
type ring struct {
	t             *testing.T
	root          string            // of the files that all origins have in file/
	files         map[string][]byte // what is in them
	nginx         *nginx
	node, asyncio *program
	nodeAddr      string
	cirque        *process
	protocol      string   // between curl and Cirque: h1, h1+TLS, h2 or h2c
	addr          string   // of Cirque
	log           string   // its access log
	calls         int      // of curl
	options       []string // of curl, for the protocol
}

const ringConf = `
listeners:
  web: {address: "127.0.0.1:0", h2c: true}
  tls: {address: "127.0.0.1:0", tls: {certificates: [{cert: %q, key: %q}]}}
routes:
  - {match: {host: nginx.test}, upstream: nginx}
  - {match: {host: node.test}, upstream: node}
  - {match: {host: python.test}, upstream: python}
  - {match: {host: asyncio.test}, upstream: asyncio}
upstreams:
  nginx: {peers: [%q]}
  node: {peers: [%q]}
  python: {peers: [%q]}
  asyncio: {peers: [%q]}
admin: {address: "127.0.0.1:0"}
log: {access: {output: %q, format: json}}
`

func newRing(t *testing.T, protocol string) *ring {
	t.Helper()
	dir := t.TempDir()
	r := &ring{t: t, protocol: protocol, log: filepath.Join(dir, "access.log")}
	cert, key := testcert.SelfSigned(t, testcert.Options{Names: []string{"nginx.test", "node.test", "python.test", "asyncio.test"}}).Write(dir, "a")
	r.options = map[string][]string{
		"h1": {"--http1.1"}, "h1+TLS": {"--http1.1", "--cacert", cert},
		"h2": {"--http2", "--cacert", cert}, "h2c": {"--http2-prior-knowledge"},
	}[protocol]
	r.root, r.files = makeFiles(t)
	r.nginx = startNginx(t, r.root)
	r.node, r.nodeAddr = startScript(t, "node", "origin.mjs", r.root)
	python := startPythonServer(t, r.root)
	var asyncioAddr string
	r.asyncio, asyncioAddr = startScript(t, "python3", "origin.py", r.root)
	r.cirque = start(t, fmt.Sprintf(ringConf, cert, key, r.nginx.addr, r.nodeAddr, python, asyncioAddr, r.log), 3)
	r.addr = r.cirque.addrs["web"]
	if r.secure() {
		r.addr = r.cirque.addrs["tls"]
	}
	return r
}

// secure reports whether curl speaks TLS.
func (r *ring) secure() bool { return r.protocol == "h2" || r.protocol == "h1+TLS" }

// http2 reports whether curl speaks HTTP/2.
func (r *ring) http2() bool { return r.protocol == "h2" || r.protocol == "h2c" }

// oneEach reports whether curl cannot make a second request on its connection: curl
// 7.88 fails with error 16 then, whatever the server, when it knows beforehand that
// HTTP/2 is spoken. (With a newer curl this can go.)
func (r *ring) oneEach() bool { return r.protocol == "h2c" }

// statusLine is how curl shows the beginning of a head.
func (r *ring) statusLine(status int, text string) string {
	if r.http2() {
		return fmt.Sprintf("HTTP/2 %d ", status) // RFC 9113, section 8.3.2: there is no text
	}
	return fmt.Sprintf("HTTP/1.1 %d %s", status, text)
}

// curled is what curl says about a request.
type curled struct {
	exit       int
	head       string // all response heads, with LF
	body       []byte
	log        string // what curl says of the connection
	Status     int    `json:"http_code"`
	Connects   int    `json:"num_connects"`
	Uploaded   int64  `json:"size_upload"`
	Downloaded int64  `json:"size_download"`
	Redirect   int    `json:"num_redirects"`
	Version    string `json:"http_version"`
}

// curlCommand is curl with every host reached through Cirque, and with nothing
// of the user's own settings.
func (r *ring) curlCommand(args ...string) *exec.Cmd {
	r.t.Helper()
	if !slices.Contains(args, "-x") {
		args = append([]string{"--connect-to", "::" + r.addr}, args...)
	}
	if r.secure() {
		args = slices.Clone(args)
		for i := range args {
			args[i] = strings.Replace(args[i], "http://", "https://", 1)
		}
	}
	args = append(append([]string{"-q", "-sS", "--max-time", "20"}, r.options...), args...)
	cmd := exec.Command(tool(r.t, "curl"), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.root}
	return cmd
}

// curl makes a request and does not judge it.
func (r *ring) curl(t *testing.T, args ...string) curled {
	t.Helper()
	dir := t.TempDir()
	head, body := filepath.Join(dir, "head"), filepath.Join(dir, "body")
	cmd := r.curlCommand(append([]string{"-v", "-D", head, "-o", body, "-w", "%{json}"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r.calls++
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	c := curled{exit: cmd.ProcessState.ExitCode(), log: stderr.String()}
	if err := json.Unmarshal(stdout.Bytes(), &c); err != nil {
		t.Fatalf("%v: %q\n%s", err, stdout.String(), c.log)
	}
	text, _ := os.ReadFile(head)
	c.head = strings.ReplaceAll(string(text), "\r\n", "\n")
	c.body, _ = os.ReadFile(body)
	return c
}

// spoke wants the answer to have come in the protocol that was to be tested.
func (r *ring) spoke(t *testing.T, c curled) {
	t.Helper()
	want := map[bool]string{true: "2", false: "1.1"}[r.http2()]
	if c.Version != want {
		t.Errorf("answered in HTTP/%s, want %s", c.Version, want)
	}
}

// good wants curl to be content and the status to be as said.
func (c curled) good(t *testing.T, status int) curled {
	t.Helper()
	if c.exit != 0 || c.Status != status {
		t.Fatalf("curl exits with %d, status %d, want 0 and %d\n%s\n%s", c.exit, c.Status, status, c.log, c.head)
	}
	return c
}

// has wants a line in the response heads.
func (c curled) has(t *testing.T, line string) curled {
	t.Helper()
	if !slices.ContainsFunc(strings.Split(c.head, "\n"), func(s string) bool { return strings.EqualFold(s, line) }) {
		t.Errorf("there is no line %q in\n%s", line, c.head)
	}
	return c
}

// lacks wants no field of that name in the response heads.
func (c curled) lacks(t *testing.T, name string) {
	t.Helper()
	for line := range strings.Lines(c.head) {
		if n, _, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			t.Errorf("there is a line %q", strings.TrimSpace(line))
		}
	}
}

func (c curled) wantBody(t *testing.T, want []byte) {
	t.Helper()
	if !bytes.Equal(c.body, want) {
		t.Errorf("the body has %d bytes with hash %s, want %d with %s", len(c.body), hashOf(c.body), len(want), hashOf(want))
	}
}

func TestOuterCurl(t *testing.T) {
	for _, protocol := range []string{"h1", "h1+TLS", "h2", "h2c"} {
		t.Run(protocol, func(t *testing.T) { testCurl(t, protocol) })
	}
}

func testCurl(t *testing.T, protocol string) {
	r := newRing(t, protocol)
	t.Run("downloads", r.testDownloads)
	t.Run("uploads", r.testUploads)
	t.Run("expect", r.testExpect)
	if !r.http2() {
		t.Run("http10", r.testHTTP10)
		t.Run("upgrade", r.testRefusedUpgrade)
	}
	t.Run("odd responses", r.testOddResponses)
	t.Run("fields", r.testFields)
	t.Run("nginx", r.testNginxFeatures)
	if !r.oneEach() {
		t.Run("keep-alive", r.testKeepAlive)
	}
	if r.protocol == "h1" {
		t.Run("forms of the target", r.testTargets)
	}
	t.Run("events", r.testEvents)
	t.Run("aborts", r.testAborts)
	r.cirque.stop()
	r.wantLog()
}

// wantLog wants each line of the access log to be JSON, and no failure but
// those that the tests make on purpose.
func (r *ring) wantLog() {
	r.t.Helper()
	text, err := os.ReadFile(r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	lines := parseAccessLines(r.t, string(text))
	if len(lines) < r.calls {
		r.t.Errorf("%d lines in the access log after curl ran %d times", len(lines), r.calls)
	}
	for _, l := range lines {
		switch {
		case l.Reason == "none":
		case l.Reason == "client_gone" || l.Reason == "client_reset":
			if !strings.Contains(l.Target, "aborted") {
				r.t.Errorf("%+v", l)
			}
		case l.Reason == "upstream_truncated" && l.Target == "/cut":
		case l.Reason == "method_refused" && l.Method == "CONNECT":
		default:
			r.t.Errorf("%+v", l)
		}
	}
}

func (r *ring) testDownloads(t *testing.T) {
	for _, origin := range []string{"nginx", "node", "python", "asyncio"} {
		t.Run(origin, func(t *testing.T) {
			url := "http://" + origin + ".test/file/"
			for _, name := range []string{"empty", "small", "1m", "20m"} {
				c := r.curl(t, url+name).good(t, 200).has(t, fmt.Sprintf("Content-Length: %d", len(r.files[name])))
				c.wantBody(t, r.files[name])
			}
			c := r.curl(t, "-I", url+"1m").good(t, 200).has(t, "Content-Length: 1048576")
			r.spoke(t, c)
			if c.Downloaded != 0 {
				t.Errorf("HEAD has a body of %d bytes", c.Downloaded)
			}
			r.curl(t, url+"none").good(t, 404)
		})
	}
	t.Run("chunked", func(t *testing.T) {
		for _, name := range []string{"empty", "small", "20m"} {
			c := r.curl(t, "http://node.test/stream/"+name).good(t, 200)
			c.wantBody(t, r.files[name])
			if r.http2() {
				c.lacks(t, "Transfer-Encoding") // RFC 9113, section 8.1: frames say where it ends
			} else {
				c.has(t, "Transfer-Encoding: chunked")
			}
		}
	})
}

// uploadWays are the ways in which curl sends a file.
var uploadWays = []struct {
	name, method string
	chunked      bool
	args         []string
}{
	{"put", "PUT", false, []string{"-T"}},
	{"put chunked", "PUT", true, []string{"-H", "Transfer-Encoding: chunked", "-T"}},
	{"post", "POST", false, []string{"--data-binary"}},
	{"post chunked", "POST", true, []string{"-H", "Transfer-Encoding: chunked", "--data-binary"}},
}

func (r *ring) testUploads(t *testing.T) {
	for _, origin := range []string{"node", "asyncio"} {
		for _, way := range uploadWays {
			t.Run(origin+" "+way.name, func(t *testing.T) {
				for _, name := range []string{"empty", "small", "1m", "20m"} {
					if way.name == "put chunked" && name == "empty" {
						continue // curl 7.88 sends no last chunk after an empty file
					}
					r.upload(t, "http://"+origin+".test/upload", name, way.method, way.chunked, way.args)
				}
			})
		}
	}
	t.Run("nginx", func(t *testing.T) {
		for i, args := range [][]string{{}, {"-H", "Transfer-Encoding: chunked"}} {
			for _, name := range []string{"small", "1m", "20m"} {
				to := fmt.Sprintf("upload/%d-%s", i, name)
				r.curl(t, append(args, "-T", filepath.Join(r.root, "file", name), "http://nginx.test/"+to)...).good(t, 201)
				got, err := os.ReadFile(filepath.Join(r.root, to))
				if err != nil || !bytes.Equal(got, r.files[name]) {
					t.Errorf("%s: nginx has %d bytes, want %d (%v)", to, len(got), len(r.files[name]), err)
				}
			}
		}
	})
}

// upload sends a file to an origin that tells what it got.
func (r *ring) upload(t *testing.T, url, name, method string, chunked bool, args []string) {
	t.Helper()
	file := filepath.Join(r.root, "file", name)
	if method == "POST" {
		file = "@" + file
	}
	c := r.curl(t, append(slices.Clone(args), file, url)...).good(t, 200)
	var got struct {
		Method, SHA256 string
		Length         int
		Chunked        bool
	}
	if err := json.Unmarshal(c.body, &got); err != nil {
		t.Fatalf("%v: %s", err, c.body)
	}
	want := r.files[name]
	if got.Method != method || got.Length != len(want) || got.SHA256 != hashOf(want) {
		t.Errorf("%s: the origin got %+v, want %s with %d bytes", name, got, method, len(want))
	}
	if got.Chunked != chunked {
		t.Errorf("%s: chunked is %v at the origin, want %v", name, got.Chunked, chunked)
	}
}

// testExpect gives curl 15 s to wait for a 100: without one it fails.
func (r *ring) testExpect(t *testing.T) {
	file := filepath.Join(r.root, "file", "20m")
	for _, origin := range []string{"node", "asyncio", "nginx"} {
		t.Run(origin, func(t *testing.T) {
			url, status := "http://"+origin+".test/upload", 200
			if origin == "nginx" {
				url, status = url+"/expect", 201
			}
			begun := time.Now()
			c := r.curl(t, "--expect100-timeout", "15", "-H", "Expect: 100-continue", "-T", file, url).good(t, status)
			// RFC 9110, section 10.1.1: the client waits for 100 before it sends.
			c.has(t, r.statusLine(100, "Continue"))
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		c := r.curl(t, "--expect100-timeout", "15", "-H", "Expect: 100-continue", "-T", file, "http://node.test/refuse")
		if r.http2() {
			// curl before 8 does not wait for a 100 there, and takes a stream that ends
			// while it sends for an error, with a whole response before it: from nginx and
			// Go's server too. TestOuterNghttp has this case.
			if c.exit != 92 {
				c.good(t, 413)
			}
			return
		}
		c.good(t, 413)
		if c.Uploaded != 0 || strings.Contains(c.head, " 100 ") {
			t.Errorf("curl sent %d bytes of a refused upload\n%s", c.Uploaded, c.head)
		}
	})
}

func (r *ring) testHTTP10(t *testing.T) {
	for _, tt := range []struct{ url, file string }{
		{"http://nginx.test/file/1m", "1m"}, {"http://node.test/file/small", "small"}, {"http://python.test/file/20m", "20m"},
		// RFC 9112, section 7.1: a client of 1.0 cannot read chunks.
		{"http://node.test/stream/1m", "1m"}, {"http://node.test/stream/empty", "empty"},
	} {
		t.Run(tt.url, func(t *testing.T) {
			c := r.curl(t, "--http1.0", tt.url).good(t, 200)
			c.wantBody(t, r.files[tt.file])
			c.lacks(t, "Transfer-Encoding")
		})
	}
	t.Run("upload", func(t *testing.T) {
		r.upload(t, "http://node.test/upload", "1m", "POST", false, []string{"--http1.0", "--data-binary"})
	})
}

// testOddResponses has what servers send seldom.
func (r *ring) testOddResponses(t *testing.T) {
	t.Run("early hints", func(t *testing.T) {
		c := r.curl(t, "http://node.test/hints").good(t, 200)
		c.wantBody(t, []byte("after two hints"))
		if n := strings.Count(c.head, r.statusLine(103, "")); n != 2 {
			t.Errorf("%d responses 103, want 2\n%s", n, c.head)
		}
		c.has(t, "Link: </style.css>; rel=preload; as=style").has(t, "X-Second: yes")
	})
	t.Run("trailers", func(t *testing.T) {
		c := r.curl(t, "http://node.test/trailers").good(t, 200)
		c.wantBody(t, []byte("a body and its end"))
		c.has(t, "X-Sum: "+hashOf([]byte("a body and its end"))).has(t, "X-Late: yes")
	})
	t.Run("crumbs", func(t *testing.T) {
		c := r.curl(t, "http://asyncio.test/crumbs").good(t, 200)
		c.wantBody(t, []byte("crumb by crumb"))
		c.has(t, "X-End: yes")
	})
	t.Run("until the end of the connection", func(t *testing.T) {
		c := r.curl(t, "http://asyncio.test/old").good(t, 200).has(t, r.statusLine(200, "Fine")).has(t, "X-Kind: old")
		c.wantBody(t, []byte("until the end"))
	})
	t.Run("cut", func(t *testing.T) {
		c := r.curl(t, "http://asyncio.test/cut")
		if r.http2() {
			// A stream error. What came before it may be lost to curl.
			if c.exit != 92 || !strings.HasPrefix("too little", string(c.body)) {
				t.Errorf("curl exits with %d, body %q; want 92 (stream error)", c.exit, c.body)
			}
		} else if c.exit != 18 || c.Status != 200 || string(c.body) != "too little" {
			t.Errorf("curl exits with %d, status %d, body %q; want 18 (partial file), 200 and what came", c.exit, c.Status, c.body)
		}
	})
	t.Run("redirect with a body", func(t *testing.T) {
		if r.oneEach() {
			return
		}
		c := r.curl(t, "-L", "--data-binary", "@"+filepath.Join(r.root, "file", "small"), "http://node.test/redirect").good(t, 200)
		if !strings.Contains(string(c.body), hashOf(r.files["small"])) || c.Redirect != 1 {
			t.Errorf("%d redirects, the origin got %s", c.Redirect, c.body)
		}
	})
}

func (r *ring) testRefusedUpgrade(t *testing.T) {
	r.curl(t, "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "http://node.test/").good(t, 403)
	// V8: HTTP/2 by an upgrade is not offered, and not asked of the origin.
	c := r.curl(t, "--http2", "-H", "Connection: Upgrade, HTTP2-Settings", "-H", "Upgrade: h2c", "-H", "HTTP2-Settings: AAMAAABk", "http://node.test/file/small").good(t, 200)
	if c.wantBody(t, r.files["small"]); c.Version != "1.1" && !r.secure() {
		t.Errorf("it was answered in HTTP/%s", c.Version)
	}
}

// testFields looks at what Node gets.
func (r *ring) testFields(t *testing.T) {
	c := r.curl(t, "-A", "outer ring", "-H", "X-Odd-CASE: kept", "-H", "X-Twice: 1", "-H", "X-Twice: 2",
		"-H", "Connection: X-Hop", "-H", "X-Hop: here", "-H", "TE: gzip", "http://node.test/headers?a=%20b&c").good(t, 200)
	var got struct {
		Version, URL string
		Raw          []string
	}
	if err := json.Unmarshal(c.body, &got); err != nil {
		t.Fatal(err)
	}
	var fields []string
	for i := 0; i+1 < len(got.Raw); i += 2 {
		fields = append(fields, got.Raw[i]+": "+got.Raw[i+1])
	}
	if got.Version != "1.1" || got.URL != "/headers?a=%20b&c" {
		t.Errorf("the origin got version %s and target %s", got.Version, got.URL)
	}
	for _, want := range []string{
		"Host: node.test", "User-Agent: outer ring", "Accept: */*", "X-Odd-CASE: kept", "X-Twice: 1", "X-Twice: 2",
		"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: " + map[bool]string{true: "https", false: "http"}[r.secure()], "X-Forwarded-Host: node.test",
	} {
		same := func(s string) bool { return s == want }
		if r.http2() { // RFC 9113, section 8.2: names are in lower case
			same = func(s string) bool { return strings.EqualFold(s, want) }
		}
		if !slices.ContainsFunc(fields, same) {
			t.Errorf("the origin did not get %q", want)
		}
	}
	for _, f := range fields {
		// RFC 9110, section 7.6.1: what Connection names goes no further.
		if f = strings.ToLower(f); strings.HasPrefix(f, "x-hop") && !r.http2() || strings.HasPrefix(f, "te:") || strings.HasPrefix(f, "connection: x-hop") {
			t.Errorf("the origin got %q", f)
		}
	}
	if t.Failed() {
		t.Logf("%q", fields)
	}
}

// testNginxFeatures has what clients do with a server for files.
func (r *ring) testNginxFeatures(t *testing.T) {
	big := r.files["1m"]
	t.Run("redirect", func(t *testing.T) {
		if r.oneEach() {
			return
		}
		r.curl(t, "http://nginx.test/redirect").good(t, 302).has(t, "Location: /file/small")
		c := r.curl(t, "-L", "http://nginx.test/redirect").good(t, 200)
		c.wantBody(t, r.files["small"])
		if c.Redirect != 1 {
			t.Errorf("%d redirects, want 1", c.Redirect)
		}
	})
	t.Run("range", func(t *testing.T) {
		c := r.curl(t, "-r", "1000-1999", "http://nginx.test/file/1m").good(t, 206).has(t, "Content-Range: bytes 1000-1999/1048576")
		c.wantBody(t, big[1000:2000])
		r.curl(t, "-r", "-5", "http://nginx.test/file/1m").good(t, 206).wantBody(t, big[len(big)-5:])
		r.curl(t, "-r", "2000000-", "http://nginx.test/file/1m").good(t, 416)
		many := r.curl(t, "-r", "0-9,100-109", "http://nginx.test/file/1m").good(t, 206)
		if !bytes.Contains(many.body, big[:10]) || !bytes.Contains(many.body, big[100:110]) {
			t.Errorf("two ranges: %q", many.body)
		}
	})
	t.Run("resume", func(t *testing.T) {
		r.curl(t, "-C", "1000000", "http://nginx.test/file/1m").good(t, 206).wantBody(t, big[1000000:])
	})
	t.Run("not modified", func(t *testing.T) {
		etag := filepath.Join(t.TempDir(), "etag")
		r.curl(t, "--etag-save", etag, "http://nginx.test/file/small").good(t, 200)
		c := r.curl(t, "--etag-compare", etag, "http://nginx.test/file/small").good(t, 304)
		c.wantBody(t, nil)
	})
}

func (r *ring) testKeepAlive(t *testing.T) {
	for _, origin := range []string{"nginx", "node", "asyncio"} {
		t.Run(origin, func(t *testing.T) {
			var args []string
			for _, name := range []string{"small", "none", "empty", "1m", "small"} {
				args = append(args, "-o", os.DevNull, "http://"+origin+".test/file/"+name)
			}
			out, err := r.curlCommand(append(args, "-w", `%{http_code} %{num_connects}\n`)...).Output()
			if want := "200 1\n404 0\n200 0\n200 0\n200 0\n"; err != nil || string(out) != want {
				t.Errorf("status and connects are\n%s(%v), want\n%s", out, err, want)
			}
		})
	}
	t.Run("close", func(t *testing.T) {
		if r.http2() {
			return // it has no such thing
		}
		c := r.curl(t, "-H", "Connection: close", "http://nginx.test/file/small").good(t, 200)
		c.has(t, "Connection: close")
	})
	t.Run("100 at once", func(t *testing.T) {
		out, err := r.curlCommand("-Z", "--parallel-max", "20", "-o", filepath.Join(t.TempDir(), "#1"), "-w", `%{http_code}\n`,
			"http://node.test/file/small?[1-100]").Output()
		if err != nil || string(out) != strings.Repeat("200\n", 100) {
			t.Errorf("%q, %v", out, err)
		}
	})
}

// testTargets uses Cirque as if it were a forward proxy.
func (r *ring) testTargets(t *testing.T) {
	// RFC 9112, section 3.2.2: the absolute form is accepted in requests.
	c := r.curl(t, "-x", "http://"+r.addr, "http://nginx.test/file/small").good(t, 200)
	c.wantBody(t, r.files["small"])
	if c = r.curl(t, "-p", "-x", "http://"+r.addr, "http://nginx.test/file/small"); c.exit != 56 || !strings.Contains(c.head, " 405 ") {
		t.Errorf("CONNECT: curl exits with %d, want 56 and a 405\n%s", c.exit, c.head)
	}
}

// testEvents sends an event when the one before it has reached the client.
func (r *ring) testEvents(t *testing.T) {
	cmd := r.curlCommand("-N", "http://node.test/events?aborted")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	r.node.says(t, `^has /events$`, 1)
	lines := bufio.NewScanner(stdout)
	for i := range 10 {
		resp, err := http.Post(fmt.Sprintf("http://%s/event?%d", r.nodeAddr, i), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if want := fmt.Sprintf("data: %d", i); !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
		lines.Scan() // the empty line after it
	}
}

// testAborts has curl give up, and wants the origin to notice within a second.
func (r *ring) testAborts(t *testing.T) {
	big := filepath.Join(r.root, "file", "20m")
	for _, tt := range []struct {
		name   string
		origin *program
		args   []string
		left   string // what the origin says
	}{
		{"before the head", r.node, []string{"http://node.test/never?aborted"}, `/never\?aborted`},
		{"before the head, asyncio", r.asyncio, []string{"http://asyncio.test/never?aborted"}, `/never\?aborted`},
		{"after the head", r.node, []string{"http://node.test/silent?aborted"}, `/silent\?aborted`},
		{"in a download", r.node, []string{"http://node.test/endless?aborted=1"}, `/endless\?aborted=1`},
		{"in a slow download", r.node, []string{"--limit-rate", "100k", "http://node.test/endless?aborted=2"}, `/endless\?aborted=2`},
		{"in an upload", r.node, []string{"--limit-rate", "100k", "-T", big, "http://node.test/upload?aborted=1"}, `/upload\?aborted=1`},
		{"in a chunked upload", r.node, []string{"--limit-rate", "100k", "-H", "Transfer-Encoding: chunked", "-T", big, "http://node.test/upload?aborted=2"}, `/upload\?aborted=2`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c := r.curl(t, append([]string{"--max-time", "0.4"}, tt.args...)...); c.exit != 28 {
				t.Fatalf("curl exits with %d, want 28 (time is up)\n%s", c.exit, c.log)
			}
			gone := time.Now()
			tt.origin.says(t, "^left "+tt.left+"$", 1)
			if took := time.Since(gone); took > time.Second {
				t.Errorf("the origin noticed after %s, want 1s at most", took)
			}
		})
	}
}
