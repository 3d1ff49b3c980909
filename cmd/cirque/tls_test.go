package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// served returns the common name of the certificate that a listener has.
func served(t *testing.T, addr, name string) string {
	t.Helper()
	c := dialTLS(t, addr, name)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func dialTLS(t *testing.T, addr, name string) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// TestCertificatesReload: rows T8 and V11: new certificates are taken while
// connections go on; a bad file keeps the old one and is reported.
func TestCertificatesReload(t *testing.T) {
	dir := t.TempDir()
	ca := testcert.NewCA(t, "CA")
	issue := func(file, cn string) (cert, key string) {
		return ca.Issue(testcert.Options{Name: cn, Names: []string{file + ".test"}}).Write(dir, file)
	}
	aCert, aKey := issue("a", "a1")
	bCert, bKey := issue("b", "b1")
	p := start(t, fmt.Sprintf(`
listeners:
  web: {address: "127.0.0.1:0", tls: {certificates: [{cert: %q, key: %q}, {cert: %q, key: %q}]}}
routes: [{upstream: web}]
upstreams: {web: {peers: [%q]}}
`, aCert, aKey, bCert, bKey, origin(t, "web")), 1)
	addr := p.addrs["web"]
	want := func(when, a, b string) {
		t.Helper()
		if gotA, gotB := served(t, addr, "a.test"), served(t, addr, "b.test"); gotA != a || gotB != b {
			t.Errorf("%s: %s and %s, want %s and %s", when, gotA, gotB, a, b)
		}
	}
	want("first", "a1", "b1")
	c := dialTLS(t, addr, "a.test")
	r := bufio.NewReader(c)
	ask := func(when string) {
		t.Helper()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %d, %v", when, resp.StatusCode, err)
		}
	}
	ask("before")
	issue("a", "a2")
	p.says("certificates reloaded")
	want("a new one", "a2", "b1")
	ask("after")

	os.WriteFile(bCert, []byte("nonsense"), 0o600)
	p.says("files cannot be used, what was there before stays")
	p.says(filepath.Base(bCert) + ": there is no certificate in it")
	want("a bad one", "a2", "b1")
	ask("after a bad one")
	issue("b", "b2")
	p.says("all files can be used again")
	want("good again", "a2", "b2")
	ask("at the end")
	p.stop()
}
