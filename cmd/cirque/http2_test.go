package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// clientOf returns a client that believes ca and speaks the protocols.
func clientOf(t *testing.T, ca *testcert.Cert, set func(p *http.Protocols)) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	set(p)
	tr := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func onlyHTTP1(p *http.Protocols) { p.SetHTTP1(true) }
func onlyHTTP2(p *http.Protocols) { p.SetHTTP2(true) }
func bothHTTP(p *http.Protocols)  { p.SetHTTP1(true); p.SetHTTP2(true) }
func onlyH2C(p *http.Protocols)   { p.SetUnencryptedHTTP2(true) }

// TestRunHTTP2: rows T3, T4 and D2: what the keys of listeners let clients speak.
func TestRunHTTP2(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	cert, key := ca.Server("a.test").Write(t.TempDir(), "a")
	keys := fmt.Sprintf("certificates: [{cert: %q, key: %q}]", cert, key)
	p := start(t, fmt.Sprintf(`
listeners:
  plain: {address: "127.0.0.1:0"}
  both: {address: "127.0.0.1:0", h2c: true, http2: {max_streams: 7}}
  tls: {address: "127.0.0.1:0", tls: {%[1]s}}
  tls1: {address: "127.0.0.1:0", tls: {%[1]s, protocols: [http1]}}
  tls2: {address: "127.0.0.1:0", tls: {%[1]s, protocols: [http2]}}
  tls12: {address: "127.0.0.1:0", tls: {%[1]s, protocols: [http1, http2]}}
routes: [{upstream: web}]
upstreams: {web: {peers: [%[2]q]}}
`, keys, origin(t, "web")), 6)
	for _, c := range []struct {
		listener string
		set      func(*http.Protocols)
		want     string // the protocol; "": refused
	}{
		{"plain", onlyHTTP1, "HTTP/1.1"},
		{"plain", onlyH2C, ""},
		{"both", onlyHTTP1, "HTTP/1.1"},
		{"both", onlyH2C, "HTTP/2.0"},
		{"tls", onlyHTTP1, "HTTP/1.1"},
		{"tls", bothHTTP, "HTTP/2.0"},
		{"tls", onlyHTTP2, "HTTP/2.0"},
		{"tls1", bothHTTP, "HTTP/1.1"},
		{"tls1", onlyHTTP2, ""},
		{"tls2", bothHTTP, "HTTP/2.0"},
		{"tls2", onlyHTTP1, ""},
		{"tls12", bothHTTP, "HTTP/1.1"},
		{"tls12", onlyHTTP2, "HTTP/2.0"},
	} {
		scheme := "http://"
		if strings.HasPrefix(c.listener, "tls") {
			scheme = "https://"
		}
		resp, err := clientOf(t, ca, c.set).Get(scheme + p.addrs[c.listener] + "/x")
		if c.want == "" {
			if err == nil {
				resp.Body.Close()
				t.Errorf("%s: answered in %s, want no answer", c.listener, resp.Proto)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v, want %s", c.listener, err, c.want)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.Proto != c.want || string(body) != "web /x" || err != nil {
			t.Errorf("%s: %s %q %v, want %s", c.listener, resp.Proto, body, err, c.want)
		}
	}
	p.stop()
}

// TestProxyH2C: cirque proxy --h2c.
func TestProxyH2C(t *testing.T) {
	for _, args := range [][]string{{"--h2c"}, nil} {
		cmd := command(append([]string{"proxy", "--listen", "127.0.0.1:0", "--to", origin(t, "web")}, args...)...)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		var addr string
		if _, err := fmt.Fscanf(stderr, "proxying %s to", &addr); err != nil {
			t.Error(err)
		}
		resp, err := clientOf(t, testcert.NewCA(t, "none"), onlyH2C).Get("http://" + addr)
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != (args != nil) {
			t.Errorf("with %q: %v", args, err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		timer.Stop()
	}
}
