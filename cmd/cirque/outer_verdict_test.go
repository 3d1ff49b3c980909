//go:build outer

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// tlsOriginWith is an origin with the certificate.
func tlsOriginWith(t *testing.T, c *testcert.Cert) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{*c.TLS()}}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// TestOuterVerdicts: row U6: Cirque believes the certificates that OpenSSL
// believes. The one difference is listed, with its reason.
func TestOuterVerdicts(t *testing.T) {
	dir := t.TempDir()
	ca, other := testcert.NewCA(t, "CA"), testcert.NewCA(t, "other")
	between := ca.Issue(testcert.Options{Name: "between", CA: true})
	caFile, _ := ca.Write(dir, "ca")
	certs := map[string]*testcert.Cert{
		"good":         ca.Server("a.x.test"),
		"wild":         ca.Server("*.x.test"),
		"wild-deep":    ca.Server("*.a.x.test"),
		"rsa":          ca.Issue(testcert.Options{Names: []string{"a.x.test"}, RSA: true}),
		"expired":      ca.Issue(testcert.Options{Names: []string{"a.x.test"}, NotAfter: time.Now().Add(-time.Minute)}),
		"future":       ca.Issue(testcert.Options{Names: []string{"a.x.test"}, NotBefore: time.Now().Add(time.Hour)}),
		"other-name":   ca.Server("b.x.test"),
		"self-signed":  testcert.SelfSigned(t, testcert.Options{Names: []string{"a.x.test"}}),
		"other-ca":     other.Server("a.x.test"),
		"chain":        between.Server("a.x.test"),
		"broken-chain": between.Server("a.x.test").Alone(),
		"common-name":  ca.Issue(testcert.Options{Name: "a.x.test"}),
		"both-names":   ca.Issue(testcert.Options{Name: "a.x.test", Names: []string{"c.x.test"}}),
		"for-clients":  ca.Issue(testcert.Options{Names: []string{"a.x.test"}, Client: true}),
		"address":      ca.Server("127.0.0.1"),
	}
	ways := []struct {
		name, keys string
		openssl    [][]string // one of them must be satisfied
	}{
		{"full", "server_name: a.x.test", [][]string{{"-verify_hostname", "a.x.test"}}},
		{"alt-name", "server_name: a.x.test, alt_name: b.x.test", [][]string{{"-verify_hostname", "a.x.test"}, {"-verify_hostname", "b.x.test"}}},
		{"common-name", "server_name: a.x.test, allow_common_name: true", [][]string{{"-verify_hostname", "a.x.test"}}},
		{"address", "server_name: 127.0.0.1", [][]string{{"-verify_ip", "127.0.0.1"}}},
		{"chain", "server_name: a.x.test, verify: chain", [][]string{nil}},
	}
	// RFC 9525, section 2: names are in the subjectAltName; OpenSSL still takes the
	// common name of a certificate without.
	differs := []string{"full common-name", "alt-name common-name"}

	var routes, upstreams strings.Builder
	addrs := map[string]string{}
	for cert, c := range certs {
		addrs[cert] = tlsOriginWith(t, c)
		for _, way := range ways {
			host := cert + "." + way.name + ".test"
			fmt.Fprintf(&routes, "- {match: {host: %s}, upstream: %s}\n", host, host)
			fmt.Fprintf(&upstreams, "  %s: {peers: [%q], tls: {ca: %q, %s}}\n", host, addrs[cert], caFile, way.keys)
		}
	}
	p := start(t, "listeners: {web: {address: \"127.0.0.1:0\"}}\nroutes:\n"+routes.String()+"upstreams:\n"+upstreams.String(), 1)
	believed := 0
	for cert := range certs {
		for _, way := range ways {
			resp, body := get(t, p.addrs["web"], cert+"."+way.name+".test", "/")
			ours := resp.StatusCode == 200
			if !ours && (resp.StatusCode != 502 || !strings.Contains(body, "upstream_tls_certificate")) {
				t.Errorf("%s, %s: %d %s", way.name, cert, resp.StatusCode, body)
			}
			theirs, said := false, ""
			for _, args := range way.openssl {
				out, err := output(t, patience, "openssl", append([]string{"s_client", "-connect", addrs[cert], "-servername", "a.x.test",
					"-CAfile", caFile, "-no-CApath", "-no-CAstore", "-verify_return_error"}, args...)...)
				theirs, said = theirs || err == nil, said+out
			}
			if want := theirs != slices.Contains(differs, way.name+" "+cert); ours != want {
				t.Errorf("%s, %s: we say %v, OpenSSL %v\n%s", way.name, cert, ours, theirs, said)
			}
			if ours {
				believed++
			}
		}
	}
	if believed < len(ways) {
		t.Errorf("only %d certificates were believed at all", believed)
	}
	p.stop()
}

// mtlsOrigin is nginx that wants to know who asks.
const mtlsOrigin = `
%[1]s
daemon off;
worker_processes 1;
pid %[2]s/pid;
error_log stderr notice;
events { worker_connections 100; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server {
		listen %[3]s ssl;
		ssl_certificate %[4]s;
		ssl_certificate_key %[5]s;
		ssl_client_certificate %[6]s;
		ssl_verify_client on;
		ssl_verify_depth 3;
		location / { return 200 "you are $ssl_client_s_dn"; }
	}
}
`

// TestOuterClientCertificate: row U8: nginx that requires certificates answers
// 200 with ours and its intermediate, 400 without.
func TestOuterClientCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, clients := testcert.NewCA(t, "CA"), testcert.NewCA(t, "clients")
	cert, key := ca.Server("a.test").Write(dir, "a")
	caFile, _ := ca.Write(dir, "ca")
	clientsFile, _ := clients.Write(dir, "clients")
	ourCert, ourKey := clients.Issue(testcert.Options{Name: "between", CA: true}).Issue(testcert.Options{Name: "us", Client: true}).Write(dir, "us")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	addr, conf := reserve(t), filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, mtlsOrigin, user, dir, addr, cert, key, clientsFile), 0o600); err != nil {
		t.Fatal(err)
	}
	launch(t, exec.Command(tool(t, "nginx"), "-p", dir, "-e", "stderr", "-c", conf)).says(t, "start worker process [0-9]", 1)
	p := start(t, fmt.Sprintf(`
listeners: {web: {address: "127.0.0.1:0"}}
routes: [{match: {host: with.test}, upstream: with}, {match: {host: without.test}, upstream: without}]
upstreams:
  with: {peers: [%[1]q], tls: {server_name: a.test, ca: %[2]q, client_certificate: {cert: %[3]q, key: %[4]q}}}
  without: {peers: [%[1]q], tls: {server_name: a.test, ca: %[2]q}}
`, addr, caFile, ourCert, ourKey), 1)
	for range 2 { // the second on the connection of the first
		if resp, body := get(t, p.addrs["web"], "with.test", "/"); resp.StatusCode != 200 || body != "you are CN=us" {
			t.Errorf("with: %d %q", resp.StatusCode, body)
		}
		if resp, body := get(t, p.addrs["web"], "without.test", "/"); resp.StatusCode != 400 || !strings.Contains(body, "No required SSL certificate was sent") {
			t.Errorf("without: %d %q", resp.StatusCode, body)
		}
	}
	p.stop()
}

// TestOuterMutualTLS: row T5, with OpenSSL's client and curl: who is asked, who is
// let in, what the origin and the log learn; and 421 where names have different
// policies (RFC 9110, section 15.5.20).
func TestOuterMutualTLS(t *testing.T) {
	dir := t.TempDir()
	ca, clients, others := testcert.NewCA(t, "CA"), testcert.NewCA(t, "clients"), testcert.NewCA(t, "others")
	cert, key := ca.Server("a.test", "open.test").Write(dir, "a")
	caFile, _ := ca.Write(dir, "ca")
	clientsFile, _ := clients.Write(dir, "clients")
	alice := clients.Issue(testcert.Options{Name: "alice", Org: "Acme", Client: true})
	aliceCert, aliceKey := alice.Write(dir, "alice")
	malloryCert, malloryKey := others.Issue(testcert.Options{Name: "mallory", Client: true}).Write(dir, "mallory")
	access := filepath.Join(dir, "access.log")
	p := start(t, fmt.Sprintf(`
listeners:
  web:
    address: "127.0.0.1:0"
    tls:
      certificates: [{cert: %q, key: %q}]
      client_auth: {mode: require, ca: %q}
      names: [{names: open.test, client_auth: {mode: off}}]
defaults: {forwarding: {client_cert: leaf}}
routes: [{upstream: web}]
upstreams: {web: {peers: [%q]}}
log: {access: {output: %q, format: "$status $tls_server_name $client_cert_subject $client_cert_serial"}}
`, cert, key, clientsFile, origin(t, "web"), access), 1)
	_, port, _ := strings.Cut(p.addrs["web"], ":")
	curl := func(host, ask string, args ...string) (string, error) {
		return output(t, patience, "curl", append([]string{"-sS", "--cacert", caFile, "--connect-to", "::127.0.0.1:" + port,
			"-H", "Host: " + ask, "-H", "Client-Cert: :bWU=:", "-w", "\n%{http_code}", "https://" + host + "/headers"}, args...)...)
	}
	us := []string{"--cert", aliceCert, "--key", aliceKey}
	for _, c := range []struct {
		name, host, ask string
		args            []string
		want, not       string // in the output; want "" means that the handshake fails
	}{
		{"alice", "a.test", "a.test", us, "\n200", ":bWU=:"},
		{"alice over HTTP/1", "a.test", "a.test", append(us, "--http1.1"), "\n200", ":bWU=:"},
		{"nobody", "a.test", "a.test", nil, "", ""},
		{"mallory", "a.test", "a.test", []string{"--cert", malloryCert, "--key", malloryKey}, "", ""},
		{"nobody at the open door", "open.test", "open.test", nil, "\n200", "Client-Cert"},
		{"through the open door", "open.test", "a.test", nil, "\n421", ""},
		{"alice through the open door", "open.test", "a.test", us, "\n421", ""},
		{"out of the closed one", "a.test", "open.test", us, "\n421", ""},
	} {
		out, err := curl(c.host, c.ask, c.args...)
		if (err == nil) != (c.want != "") || !strings.Contains(out, c.want) || c.not != "" && strings.Contains(out, c.not) {
			t.Errorf("%s: %v, want %q and not %q\n%s", c.name, err, c.want, c.not, out)
		}
		if c.name == "alice" && !strings.Contains(out, "Client-Cert: :MII") {
			t.Errorf("%s: the origin did not get the certificate\n%s", c.name, out)
		}
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		out, err := output(t, patience, "openssl", "s_client", "-connect", p.addrs["web"], "-servername", "a.test", "-CAfile", caFile, version,
			"-verify_return_error", "-cert", aliceCert, "-key", aliceKey)
		if err != nil || !strings.Contains(out, "Acceptable client certificate CA names\nCN = clients") {
			t.Errorf("%s: %v\n%s", version, err, out)
		}
	}
	p.stop()
	log, _ := os.ReadFile(access)
	if want := "200 a.test CN=alice,O=Acme " + alice.X509.SerialNumber.Text(16) + "\n"; !strings.Contains(string(log), want) {
		t.Errorf("the log has no %q:\n%s", want, log)
	}
}

// TestOuterTickets: OpenSSL's client takes a session from one process to another
// that has the same secret, and to none that has not.
func TestOuterTickets(t *testing.T) {
	dir := t.TempDir()
	ca := testcert.NewCA(t, "CA")
	cert, key := ca.Server("a.test").Write(dir, "a")
	secret := filepath.Join(dir, "secret")
	os.WriteFile(secret, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600)
	run := func(name, tickets string) string {
		return start(t, fmt.Sprintf(`
listeners: {%s: {address: "127.0.0.1:0", tls: {certificates: [{cert: %q, key: %q}], tickets: {%s}}}}
routes: [{upstream: web}]
upstreams: {web: {peers: [%q]}}
`, name, cert, key, tickets, origin(t, "web")), 1).addrs[name]
	}
	shared := fmt.Sprintf("secret_file: %q", secret)
	one, two := run("web", shared), run("web", shared)
	alone, elsewhere := run("web", "rotate: 1h"), run("other", shared)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		session := filepath.Join(dir, "session"+version)
		visit := func(addr string, args ...string) string {
			cmd := exec.Command(tool(t, "openssl"), append([]string{"s_client", "-connect", addr, "-servername", "a.test", "-ign_eof", version}, args...)...)
			cmd.Stdin = strings.NewReader("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
			timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			out, err := cmd.CombinedOutput()
			if !strings.Contains(string(out), "HTTP/1.1 200 OK") {
				t.Errorf("%s: %v\n%s", version, err, out)
			}
			return string(out)
		}
		visit(one, "-sess_out", session)
		for name, c := range map[string]struct {
			addr string
			want string
		}{
			"the same":             {one, "Reused, TLS"},
			"the other process":    {two, "Reused, TLS"},
			"one without a secret": {alone, "New, TLS"},
			"another listener":     {elsewhere, "New, TLS"},
		} {
			if out := visit(c.addr, "-sess_in", session); !strings.Contains(out, c.want) {
				t.Errorf("%s, %s: want %q\n%s", version, name, c.want, out)
			}
		}
	}
}
