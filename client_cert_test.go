package cirque_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/testcert"
	"github.com/cirqueproxy/cirque/listen"
)

// TestClientCertFields: RFC 9440, section 2 and 2.4: what the origin learns of the
// client's certificate comes from us alone.
func TestClientCertFields(t *testing.T) {
	clients := testcert.NewCA(t, "clients")
	between := clients.Issue(testcert.Options{Name: "between", CA: true})
	alice := between.Issue(testcert.Options{Name: "alice", Client: true})
	field := func(c *testcert.Cert) string {
		return ":" + base64.StdEncoding.EncodeToString(c.X509.Raw) + ":"
	}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, c := range []struct {
		name        string
		cert        bool // the client has one
		forwarding  cirque.Forwarding
		leaf, chain string
	}{
		{"off", true, cirque.Forwarding{}, "", ""},
		{"leaf", true, cirque.Forwarding{ClientCert: true}, field(alice), ""},
		{"chain", true, cirque.Forwarding{ClientCert: true, ClientCertChain: true}, field(alice), field(between)},
		{"none", false, cirque.Forwarding{ClientCert: true, ClientCertChain: true}, "", ""},
		{"no X-Forwarded either", false, cirque.Forwarding{NoXForwarded: true}, "", ""},
		{"trusted", false, cirque.Forwarding{TrustedProxies: loopback}, ":bWU=:", ":dGhlbQ==:"},
		{"trusted with one of its own", true, cirque.Forwarding{TrustedProxies: loopback}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			gotc := make(chan http.Header, 10)
			b := newTLSBed(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { gotc <- r.Header }))
			b.proxy.Forwarding = c.forwarding
			b.t.ClientAuth, b.t.ClientCAs = listen.ClientAuthRequest, listen.NewCAs(clients.X509)
			cfg := b.config("a.test")
			if c.cert {
				cfg.Certificates = []tls.Certificate{*alice.TLS()}
			}
			conn := b.mustDial(cfg)
			r := bufio.NewReader(conn)
			for range 2 {
				fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a.test\r\nclient-cert: :bWU=:\r\nCLIENT-CERT-CHAIN: :dGhlbQ==:\r\nClient-Cert: :eW91:\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 200 {
					t.Fatal(err, resp)
				}
				h := <-gotc
				leaf, chain := strings.Join(h.Values("Client-Cert"), "|"), strings.Join(h.Values("Client-Cert-Chain"), "|")
				if want := strings.TrimSuffix(c.leaf, "|"); leaf != want && !(c.name == "trusted" && leaf == ":bWU=:|:eW91:") {
					t.Errorf("Client-Cert is %q, want %q", leaf, want)
				}
				if chain != c.chain {
					t.Errorf("Client-Cert-Chain is %q, want %q", chain, c.chain)
				}
			}
		})
	}
}
