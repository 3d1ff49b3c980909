package accesslog

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/testcert"
	"github.com/cirqueproxy/cirque/listen"
)

// TestTLSVariables: rows T5 and T9: what the log says of TLS on both sides.
func TestTLSVariables(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	alice := ca.Issue(testcert.Options{Name: "alice", Org: "Acme", Client: true})
	o := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer o.Close()
	var out buffer
	log := newLog(t, Options{Output: &out, Format: "$tls_version $tls_cipher $tls_group $tls_server_name $tls_protocol $tls_resumed " +
		"$client_cert_subject $client_cert_organization $client_cert_serial $client_cert_sha256 " +
		"$upstream_tls_version $upstream_tls_cipher $upstream_tls_protocol $upstream_tls_resumed"})
	tr := &cirque.Transport{}
	srv := &cirque.Server{Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Transport: tr, Filters: []cirque.Filter{log.Filter()},
		Peer: to(&cirque.Peer{Addr: o.Listener.Addr().String(), TLS: &cirque.PeerTLS{Verify: cirque.InsecureVerifyNone, MaxVersion: tls.VersionTLS12}}),
	}}
	certs, err := listen.NewCertificates(ca.Server("a.test").TLS())
	if err != nil {
		t.Fatal(err)
	}
	serve := func(serve func(net.Listener) error, client *http.Client, scheme string) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = serve(l) })
		resp, err := client.Get(scheme + "://" + l.Addr().String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		l.Close()
		wg.Wait()
	}
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: ca.Pool(), ServerName: "A.test", Certificates: []tls.Certificate{*alice.TLS()},
	}}}
	serve(func(l net.Listener) error {
		return srv.ServeTLS(l, &listen.TLS{Certificates: certs, Policy: listen.Policy{ClientAuth: listen.ClientAuthRequire, ClientCAs: listen.NewCAs(ca.X509)}})
	}, secure, "https")
	for tr.Stats().Idle == 0 {
		runtime.Gosched() // the client has its response before the pool has the connection
	}
	serve(srv.Serve, &http.Client{Transport: &http.Transport{}}, "http")
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.Close()
	log.Close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	up := `TLS 1\.2 TLS_ECDHE_[A-Z0-9_]+ http/1\.1 `
	for i, want := range []string{
		`^TLS 1\.3 TLS_[A-Z0-9_]+ X25519MLKEM768 a\.test - false CN=alice,O=Acme Acme [0-9a-f]+ [0-9a-f]{64} ` + up + `false$`,
		`^- - - - - false - - - - ` + up + `false$`,
	} {
		if i >= len(lines) || !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("lines %q, want %s", lines, want)
		}
	}
}
