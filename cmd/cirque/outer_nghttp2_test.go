//go:build outer

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// This file has nghttp2's programs on both sides: its clients nghttp and h2load, and
// its server nghttpd.

// nghttp makes requests to a host behind Cirque and returns what it prints.
func (r *ring) nghttp(t *testing.T, host, path string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(tool(t, "nghttp"), append(args, "-t", "20", "-y", "-H", ":authority: "+host, r.url()+path)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		t.Fatalf("nghttp %q: %v\n%s", args, err, errs.String())
	}
	return out.Bytes()
}

// url is where Cirque is.
func (r *ring) url() string {
	if r.secure() {
		return "https://" + r.addr
	}
	return "http://" + r.addr
}

func TestOuterNghttp(t *testing.T) {
	for _, protocol := range []string{"h2", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			r := newRing(t, protocol)
			t.Run("downloads", r.testNghttpDownloads)
			t.Run("uploads", r.testNghttpUploads)
			t.Run("refused upload", r.testNghttpRefused)
			t.Run("many", r.testNghttpMany)
			t.Run("h2load", r.testH2load)
			r.cirque.stop()
			r.wantLog()
		})
	}
}

// testNghttpDownloads has the client in all its settings.
func (r *ring) testNghttpDownloads(t *testing.T) {
	for name, args := range map[string][]string{
		"as it is":         nil,
		"small windows":    {"-w", "10", "-W", "16"},
		"large windows":    {"-w", "30", "-W", "30"},
		"padding":          {"-b", "200"},
		"no table":         {"-c", "0", "--encoder-header-table-size", "0"},
		"tables that grow": {"-c", "100", "-c", "64K"},
		"continuation":     {"--continuation"},
		"new priorities":   {"--no-rfc7540-pri"},
	} {
		for _, file := range []string{"empty", "small", "20m"} {
			if name == "small windows" && file == "20m" {
				file = "1m" // 1,024 updates of the window
			}
			host := "nginx.test"
			if name == "continuation" {
				host = "python.test" // nginx and Node take no head of 32 KiB
			}
			if got := r.nghttp(t, host, "/file/"+file, args...); !bytes.Equal(got, r.files[file]) {
				t.Errorf("%s, %s: %d bytes with hash %s, want %d with %s", name, file, len(got), hashOf(got), len(r.files[file]), hashOf(r.files[file]))
			}
		}
	}
	if got := r.nghttp(t, "nginx.test", "/file/1m", "-H", ":method: HEAD"); len(got) != 0 {
		t.Errorf("HEAD has a body of %d bytes", len(got))
	}
}

func (r *ring) testNghttpUploads(t *testing.T) {
	for name, args := range map[string][]string{
		"as it is":  nil,
		"no length": {"--no-content-length"},
		"padding":   {"-b", "255"},
		"expect":    {"-H", "expect: 100-continue", "--expect-continue"},
		// Where the length is known beforehand HTTP/1 sends no trailers.
		"trailers": {"--no-content-length", "--trailer", "x-sum: 12", "--trailer", "x-late: yes"},
	} {
		for _, file := range []string{"empty", "small", "20m"} {
			if file == "empty" && (name == "expect" || name == "trailers") {
				continue // nghttp sends no body then
			}
			out := r.nghttp(t, "node.test", "/upload", append(slices.Clone(args), "-d", filepath.Join(r.root, "file", file))...)
			var got struct {
				SHA256   string
				Length   int
				Trailers map[string]string
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Errorf("%s, %s: %v: %s", name, file, err, out)
				continue
			}
			if got.Length != len(r.files[file]) || got.SHA256 != hashOf(r.files[file]) {
				t.Errorf("%s, %s: the origin got %d bytes with hash %s", name, file, got.Length, got.SHA256)
			}
			if name == "trailers" && (got.Trailers["x-sum"] != "12" || got.Trailers["x-late"] != "yes") {
				t.Errorf("%s: the origin got the trailers %v", file, got.Trailers)
			}
		}
	}
}

// testNghttpRefused wants a whole answer to an upload that the origin does not want, and
// then an end without an error. RFC 9113, section 8.1.
func (r *ring) testNghttpRefused(t *testing.T) {
	out := string(r.nghttp(t, "node.test", "/refuse", "-v", "-H", "expect: 100-continue", "--expect-continue", "-d", filepath.Join(r.root, "file", "20m")))
	at := 0
	for _, want := range []string{":status: 413", "too much", "END_STREAM", "recv RST_STREAM", "(error_code=NO_ERROR(0x00)"} {
		n := strings.Index(out[at:], want)
		if n < 0 {
			t.Fatalf("there is no %q after byte %d of\n%s", want, at, out)
		}
		at += n
	}
	if strings.Contains(out, ":status: 100") {
		t.Errorf("a refused upload got 100\n%s", out)
	}
}

// testNghttpMany has 100 streams at a time.
func (r *ring) testNghttpMany(t *testing.T) {
	out := r.nghttp(t, "node.test", "/digest/many", "-m", "500", "-n", "-s")
	if n := len(regexp.MustCompile(`(?m) 200 +64 /digest/many$`).FindAll(out, -1)); n != 500 {
		t.Errorf("%d of 500 answers are good\n%s", n, out)
	}
}

// testH2load wants every response of a crowd, over all connections.
func (r *ring) testH2load(t *testing.T) {
	for name, args := range map[string][]string{
		"small":         {"-n", "5000", "-c", "10", "-m", "50", "/file/small"},
		"large":         {"-n", "64", "-c", "4", "-m", "8", "/file/1m"},
		"small windows": {"-n", "64", "-c", "4", "-m", "8", "-w", "12", "-W", "16", "/file/1m"},
		"one stream":    {"-n", "1000", "-c", "20", "-m", "1", "/file/small"},
	} {
		path := args[len(args)-1]
		args = append(args[:len(args)-1], "-H", ":authority: nginx.test", r.url()+path)
		cmd := exec.Command(tool(t, "h2load"), args...)
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		out, err := cmd.CombinedOutput()
		timer.Stop()
		want := fmt.Sprintf("requests: %[1]s total, %[1]s started, %[1]s done, %[1]s succeeded, 0 failed, 0 errored, 0 timeout", args[1])
		size := len(r.files[filepath.Base(path)])
		var n int
		_, _ = fmt.Sscan(args[1], &n)
		if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), fmt.Sprintf("(%d) data", n*size)) {
			t.Errorf("%s: %v, want %q and %d bytes of data\n%s", name, err, want, n*size, out)
		}
	}
}

// TestOuterNghttpd has nghttpd as the origin, with TLS and without, for curl in each
// protocol.
func TestOuterNghttpd(t *testing.T) {
	root, files := makeFiles(t)
	dir, ca := t.TempDir(), testcert.NewCA(t, "CA")
	cert, key := ca.Server("plain.test", "secure.test").Write(dir, "a")
	caFile, _ := ca.Write(dir, "ca")
	nghttpd := func(args ...string) string {
		addr := reserve(t)
		host, port, _ := net.SplitHostPort(addr)
		args = append([]string{"-a", host, "-d", root, "--echo-upload", "--trailer", "x-sum: 12", "-m", "10"}, args...)
		args[slices.Index(args, "PORT")] = port
		launch(t, exec.Command(tool(t, "nghttpd"), args...))
		awaitDoor(t, addr)
		return addr
	}
	p := start(t, fmt.Sprintf(`
listeners:
  web: {address: "127.0.0.1:0", h2c: true}
  tls: {address: "127.0.0.1:0", tls: {certificates: [{cert: %q, key: %q}]}}
routes:
  - {match: {host: plain.test}, upstream: plain}
  - {match: {host: secure.test}, upstream: secure}
upstreams:
  plain: {peers: [%q], protocol: h2c}
  secure: {peers: [%q], tls: {server_name: secure.test, ca: %q}}
`, cert, key, nghttpd("--no-tls", "PORT"), nghttpd("PORT", key, cert), caFile), 2)
	for protocol, options := range map[string][]string{
		"h1": {"--http1.1"}, "h1+TLS": {"--http1.1", "--cacert", caFile}, "h2": {"--http2", "--cacert", caFile}, "h2c": {"--http2-prior-knowledge"},
	} {
		r := &ring{t: t, root: root, files: files, protocol: protocol, options: options, addr: p.addrs["web"]}
		if r.secure() {
			r.addr = p.addrs["tls"]
		}
		for _, host := range []string{"plain.test", "secure.test"} {
			t.Run(protocol+" to "+host, func(t *testing.T) { r.testNghttpd(t, "http://"+host) })
		}
	}
	p.stop()
}

func (r *ring) testNghttpd(t *testing.T, url string) {
	for _, name := range []string{"empty", "small", "20m"} {
		c := r.curl(t, url+"/file/"+name).good(t, http.StatusOK)
		c.wantBody(t, r.files[name])
		if name != "empty" {
			c.has(t, "x-sum: 12") // a trailer
		}
		c = r.curl(t, "--data-binary", "@"+filepath.Join(r.root, "file", name), url+"/file/"+name).good(t, http.StatusOK)
		c.wantBody(t, r.files[name])
	}
	if c := r.curl(t, "-I", url+"/file/1m").good(t, http.StatusOK); c.Downloaded != 0 {
		t.Errorf("HEAD has a body of %d bytes", c.Downloaded)
	}
	r.curl(t, url+"/file/none").good(t, http.StatusNotFound)
	if r.oneEach() {
		return
	}
	// Ten streams are all that the origin takes on a connection.
	out, err := r.curlCommand("-Z", "--parallel-max", "50", "-o", os.DevNull, "-w", `%{http_code}\n`, url+"/file/1m?[1-100]").Output()
	if err != nil || string(out) != strings.Repeat("200\n", 100) {
		t.Errorf("100 at a time: %q, %v", out, err)
	}
}
