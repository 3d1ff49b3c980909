//go:build outer

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// patientOrigin answers when it has the whole request. One that answers before that
// has the proxy end the stream, and what comes on it after that is ignored, whatever
// it is (RFC 9113, section 5.1): nothing to learn from.
func patientOrigin(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "a body with some bytes\n")
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// h2Conf has a listener for each way to speak HTTP/2.
const h2Conf = `
listeners:
  h2c: {address: "127.0.0.1:0", h2c: true}
  tls: {address: "127.0.0.1:0", tls: {certificates: [{cert: %q, key: %q}]}}
routes: [{upstream: web}]
upstreams: {web: {peers: [%q]}}
`

// TestOuterH2spec runs every case of h2spec, in its strict mode, on both listeners.
func TestOuterH2spec(t *testing.T) {
	cert, key := testcert.NewCA(t, "CA").Server("localhost").Write(t.TempDir(), "a")
	p := start(t, fmt.Sprintf(h2Conf, cert, key, patientOrigin(t)), 2)
	for name, args := range map[string][]string{"h2c": nil, "tls": {"-t", "-k"}} {
		t.Run(name, func(t *testing.T) {
			host, port, _ := net.SplitHostPort(p.addrs[name])
			cmd := exec.Command(tool(t, "h2spec"), append([]string{"-S", "-h", host, "-p", port}, args...)...)
			timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			out, err := cmd.CombinedOutput()
			m := regexp.MustCompile(`(?m)^(\d+) tests, (\d+) passed, 0 skipped, 0 failed$`).FindSubmatch(out)
			if err != nil || m == nil || string(m[1]) != string(m[2]) || string(m[1]) != "146" {
				text := string(out)
				t.Errorf("%v, want 146 tests and all of them passed\n%s", err, text[max(0, strings.Index(text, "Failures:")):])
			}
		})
	}
	p.stop()
}
