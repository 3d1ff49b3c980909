package config

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/testcert"
	"github.com/cirqueproxy/cirque/listen"
)

// TestBuildTLS compares what the TLS of the file that has every key becomes.
func TestBuildTLS(t *testing.T) {
	data, err := os.ReadFile("testdata/everything.txt")
	if err != nil {
		t.Fatal(err)
	}
	in, _, _ := strings.Cut(string(data), "----\n")
	b := build(t, in)
	web, local := b.Servers[0].TLS, b.Servers[1].TLS
	if n := len(web.Certificates.All()); n != 2 || !web.RefuseUnknownNames || web.HandshakeTimeout != 5*time.Second || web.NoTickets || web.Tickets.Files()[0] != "testdata/tls/secret" {
		t.Errorf("the listener has %d certificates and %+v", n, web)
	}
	policy := func(what string, p listen.Policy, min uint16, auth listen.ClientAuth) {
		t.Helper()
		if p.MinVersion != min || p.ClientAuth != auth || (auth != listen.ClientAuthOff) != (p.ClientCAs != nil) {
			t.Errorf("%s: %+v", what, p)
		}
	}
	policy("the listener", web.Policy, tls.VersionTLS13, listen.ClientAuthRequest)
	policy("b.test", web.Names[0].Policy, tls.VersionTLS13, listen.ClientAuthRequire)
	policy("c.test", web.Names[1].Policy, tls.VersionTLS12, listen.ClientAuthOff)
	policy("local", local.Policy, tls.VersionTLS12, listen.ClientAuthOff)
	if !local.NoTickets {
		t.Error("tickets are not off")
	}
	p := b.Groups["api"].Members()[0].Peer.TLS
	if p.ServerName != "api.test" || p.AltName != "api2.test" || len(p.CAs) != 1 || len(p.Certificates) != 1 ||
		p.MinVersion != tls.VersionTLS13 || p.Verify != cirque.InsecureVerifyChain || !p.AllowCommonName {
		t.Errorf("the peers have %+v", p)
	}
}

// TestTLSFiles: what is wrong with files that the configuration names is said at
// the place that names them; relative paths begin at the file's directory.
func TestTLSFiles(t *testing.T) {
	dir := t.TempDir()
	ca := testcert.NewCA(t, "CA")
	ca.Server("a.test").Write(dir, "a")
	ca.Server("b.test").Write(dir, "b")
	os.WriteFile(filepath.Join(dir, "ca.pem"), ca.CertPEM(), 0o600)
	os.WriteFile(filepath.Join(dir, "short"), []byte("too short"), 0o600)
	load := func(text string) string {
		path := filepath.Join(dir, "c.yaml")
		os.WriteFile(path, []byte(text), 0o600)
		c, err := Load(path)
		var errs Errors
		switch {
		case err == nil:
			if _, err := c.Build(Options{}); err != nil {
				t.Error(err)
			}
			return ""
		case !errors.As(err, &errs):
			t.Errorf("an error of type %T: %v", err, err)
		}
		return strings.ReplaceAll(err.Error(), dir+"/", "")
	}
	const rest = `routes: [{upstream: web}]
upstreams: {web: {peers: ["a:1"]}}
`
	if got := load(`listeners: {web: {address: ":0", tls: {certificates: [{cert: a.pem, key: a.key}], client_auth: {ca: ca.pem}}}}` + "\n" + rest); got != "" {
		t.Error(got)
	}
	got := load(`listeners:
  web:
    address: ":0"
    tls:
      certificates:
      - {cert: a.pem, key: a.key}
      - {cert: none.pem, key: a.key}
      - {cert: a.pem, key: b.key}
      - {cert: short, key: a.key}
      tickets: {secret_file: short}
      client_auth: {ca: a.key}
      names: [{names: x.test, client_auth: {ca: missing.pem}}]
routes: [{upstream: web}]
upstreams:
  web:
    peers: ["a:1"]
    tls: {ca: gone.pem, client_certificate: {cert: b.pem, key: a.key}}
`)
	want := `c.yaml:7:16: listeners.web.tls: none.pem: no such file or directory
c.yaml:8:28: listeners.web.tls: b.key: private key does not match public key
c.yaml:9:16: listeners.web.tls: short: there is no certificate in it: want PEM, -----BEGIN CERTIFICATE-----
c.yaml:10:30: listeners.web.tls: short: the secret of session tickets must have at least 32 bytes, at random
c.yaml:11:25: listeners.web.tls: a.key: there is no certificate in it: want PEM, -----BEGIN CERTIFICATE-----
c.yaml:12:49: listeners.web.tls: missing.pem: no such file or directory
c.yaml:17:15: upstreams.web.tls: gone.pem: no such file or directory
c.yaml:17:64: upstreams.web.tls: a.key: private key does not match public key`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
