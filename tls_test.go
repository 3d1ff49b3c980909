package cirque_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/testcert"
	"github.com/cirqueproxy/cirque/listen"
	"github.com/cirqueproxy/cirque/reason"
)

// tlsBed is a bed whose server speaks TLS.
type tlsBed struct {
	*bed
	ca *testcert.Cert
	t  *listen.TLS
}

func newTLSBed(t *testing.T, h http.Handler, filters ...cirque.Filter) *tlsBed {
	b := &tlsBed{bed: newBed(t, h, filters...), ca: testcert.NewCA(t, "CA")}
	certs, err := listen.NewCertificates(b.ca.Server("a.test", "*.w.test").TLS(), b.ca.Server("b.test").TLS())
	if err != nil {
		t.Fatal(err)
	}
	b.t = &listen.TLS{Certificates: certs}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	var wg sync.WaitGroup
	b.start = sync.OnceFunc(func() { wg.Go(func() { b.srv.ServeTLS(l, b.t) }) })
	t.Cleanup(func() {
		b.start()
		b.srv.Close()
		wg.Wait()
	})
	return b
}

// config is what a client that believes the bed's CA uses.
func (b *tlsBed) config(name string) *tls.Config {
	return &tls.Config{RootCAs: b.ca.Pool(), ServerName: name}
}

// dial makes a connection.
func (b *tlsBed) dial(cfg *tls.Config) (*tls.Conn, error) {
	b.start()
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		return nil, err
	}
	b.bed.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(c, cfg)
	return tc, tc.Handshake()
}

// get sends a request for a host on a connection.
func (b *tlsBed) get(c net.Conn, host string) (int, string) {
	b.bed.t.Helper()
	req, _ := http.NewRequest("GET", "http://"+host+"/", nil)
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		b.bed.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// mustDial is dial for a handshake that succeeds.
func (b *tlsBed) mustDial(cfg *tls.Config) *tls.Conn {
	b.bed.t.Helper()
	c, err := b.dial(cfg)
	if err != nil {
		b.bed.t.Fatal(err)
	}
	return c
}

// TestTLSServes: rows T1, T2, T9: certificates by name, facts on the Session.
func TestTLSServes(t *testing.T) {
	digestc := make(chan *cirque.TLSDigest, 1)
	b := newTLSBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-Proto"))
	}), cirque.Filter{Name: "tls", Request: func(s *cirque.Session) error {
		digestc <- s.TLS()
		return nil
	}})
	for sni, want := range map[string]string{"a.test": "a.test", "A.TEST": "a.test", "x.w.test": "a.test", "b.test": "b.test", "unknown.test": "a.test", "": "a.test"} {
		cfg := b.config(sni)
		cfg.InsecureSkipVerify = sni == "" || sni == "unknown.test"
		c := b.mustDial(cfg)
		if got := c.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("%q got the certificate of %s", sni, got)
		}
		if status, body := b.get(c, "a.test"); status != 200 || body != "https" {
			t.Errorf("%q: %d %q", sni, status, body)
		}
		if e := b.done(); e != nil {
			t.Error(e)
		}
		want := cirque.TLSDigest{Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519MLKEM768", ServerName: strings.ToLower(sni)}
		if digest := <-digestc; *digest != want {
			t.Errorf("%q: %+v", sni, *digest)
		}
	}
}

// TestTLSReasons: failed handshakes end with a reason each.
func TestTLSReasons(t *testing.T) {
	for _, c := range []struct {
		name   string
		reason cirque.Reason
		set    func(*tlsBed)
		dial   func(*tlsBed) error
	}{
		{"protocols", reason.TLSProtocol, nil, func(b *tlsBed) error {
			cfg := b.config("a.test")
			cfg.NextProtos = []string{"acme"}
			_, err := b.dial(cfg)
			return err
		}},
		{"old version", reason.TLSHandshake, nil, func(b *tlsBed) error {
			cfg := b.config("a.test")
			cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			_, err := b.dial(cfg)
			return err
		}},
		{"silence", reason.TLSHandshakeTimeout, func(b *tlsBed) { b.t.HandshakeTimeout = 20 * time.Millisecond }, func(b *tlsBed) error {
			c, _ := b.raw()
			_, err := c.Read(make([]byte, 1))
			return err
		}},
		{"plain HTTP", reason.TLSHandshake, nil, func(b *tlsBed) error {
			c, r := b.raw()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			text, err := io.ReadAll(r)
			if !strings.HasPrefix(string(text), "HTTP/1.0 400 ") {
				t.Errorf("got %q, %v", text, err)
			}
			return errors.New("refused")
		}},
		{"no certificate", reason.TLSClientCertificate, func(b *tlsBed) {
			b.t.ClientAuth, b.t.ClientCAs = listen.ClientAuthRequire, listen.NewCAs(b.ca.X509)
		}, func(b *tlsBed) error {
			c, err := b.dial(b.config("a.test"))
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			return err
		}},
		{"filter", reason.FilterRefused, func(b *tlsBed) {
			b.srv.AcceptConn = func(net.Conn) error { return errors.New("no") }
		}, func(b *tlsBed) error {
			_, err := b.dial(b.config("a.test"))
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newTLSBed(t, http.HandlerFunc(hello))
			if c.set != nil {
				c.set(b)
			}
			if err := c.dial(b); err == nil {
				t.Error("it was accepted")
			}
			b.srv.Shutdown(t.Context())
			if st := b.srv.Stats(); st.Ends[c.reason] != 1 {
				t.Errorf("the ends are %v, want one %s", st.Ends, c.reason)
			}
		})
	}
}

// TestTLSProtocols: rows T3 and T4: what ALPN agrees on, and that no overlap is
// fatal, also where HTTP/2 alone is offered. RFC 7301, section 3.2; RFC 9113,
// section 3.2.
func TestTLSProtocols(t *testing.T) {
	both, h1, h2 := []string{"h2", "http/1.1"}, []string{"http/1.1"}, []string{"h2"}
	for _, c := range []struct {
		ours, theirs []string
		want         string
		refused      string // a part of the client's error
	}{
		{nil, both, "h2", ""},
		{nil, h1, "http/1.1", ""},
		{nil, nil, "", ""},
		{nil, []string{"http/1.0"}, "http/1.0", ""},
		{nil, []string{"spdy/3"}, "", "no application protocol"},
		{h1, both, "http/1.1", ""},
		{h1, h2, "", "no application protocol"},
		{h2, both, "h2", ""},
		{h2, h1, "", "no application protocol"},
		{h2, nil, "", "remote error"},
		{[]string{"http/1.1", "h2"}, both, "http/1.1", ""},
		{[]string{"of-ours", "http/1.1"}, []string{"of-ours"}, "of-ours", ""},
	} {
		b := newTLSBed(t, http.HandlerFunc(hello))
		b.t.Protocols = c.ours
		cfg := b.config("a.test")
		cfg.NextProtos = c.theirs
		conn, err := b.dial(cfg)
		switch {
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%q for a client with %q: got %v", c.ours, c.theirs, err)
		case c.refused != "":
			b.srv.Shutdown(t.Context())
			if n := b.srv.Stats().Ends[reason.TLSProtocol]; n != 1 {
				t.Errorf("%q for a client with %q: the ends are %v", c.ours, c.theirs, b.srv.Stats().Ends)
			}
		case err != nil || conn.ConnectionState().NegotiatedProtocol != c.want:
			t.Errorf("%q for a client with %q: got %q, %v", c.ours, c.theirs, conn.ConnectionState().NegotiatedProtocol, err)
		}
	}
}

// TestClientCertificates: row T5.
func TestClientCertificates(t *testing.T) {
	ca, other := testcert.NewCA(t, "clients"), testcert.NewCA(t, "others")
	good := ca.Issue(testcert.Options{Name: "alice", Org: "Acme", Client: true})
	bad := other.Issue(testcert.Options{Name: "mallory", Client: true})
	for _, c := range []struct {
		mode listen.ClientAuth
		cert *testcert.Cert
		ok   bool
	}{
		{listen.ClientAuthOff, good, true},
		{listen.ClientAuthRequest, nil, true},
		{listen.ClientAuthRequest, good, true},
		{listen.ClientAuthRequest, bad, false},
		{listen.ClientAuthRequire, nil, false},
		{listen.ClientAuthRequire, good, true},
		{listen.ClientAuthRequire, bad, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			gotc := make(chan *cirque.CertificateDigest, 1)
			b := newTLSBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "who", Request: func(s *cirque.Session) error {
				gotc <- s.TLS().Certificate
				return nil
			}})
			b.t.ClientAuth, b.t.ClientCAs = c.mode, listen.NewCAs(ca.X509)
			cfg := b.config("a.test")
			cfg.MaxVersion = version
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if c.cert == nil {
					return &tls.Certificate{}, nil
				}
				return c.cert.TLS(), nil
			}
			conn, err := b.dial(cfg)
			if err == nil && !c.ok {
				_, err = conn.Read(make([]byte, 1))
			}
			if (err == nil) != c.ok {
				t.Errorf("%s with %v: %v", c.mode, c.cert, err)
				continue
			}
			if !c.ok {
				continue
			}
			if status, _ := b.get(conn, "a.test"); status != 200 {
				t.Errorf("%s: %d", c.mode, status)
			}
			got := <-gotc
			if (got != nil) != (c.mode != listen.ClientAuthOff && c.cert != nil) {
				t.Errorf("%s: identified as %v", c.mode, got)
			}
			if got != nil && (got.Subject != "CN=alice,O=Acme" || got.Organization != "Acme" || len(got.SHA256) != 64 || !strings.HasPrefix(got.Serial, "abcd")) {
				t.Errorf("%+v", got)
			}
		}
	}
}

// TestMisdirected: RFC 9110, section 15.5.20: names with different policies on
// one listener.
func TestMisdirected(t *testing.T) {
	clients := testcert.NewCA(t, "clients")
	alice := clients.Issue(testcert.Options{Name: "alice", Client: true})
	b := newTLSBed(t, http.HandlerFunc(hello))
	b.t.Names = []listen.NamePolicy{{Names: []string{"b.test", "*.w.test"}, Policy: listen.Policy{ClientAuth: listen.ClientAuthRequire, ClientCAs: listen.NewCAs(clients.X509)}}}
	for _, c := range []struct {
		sni, host string
		status    int
	}{
		{"a.test", "a.test", 200},
		{"a.test", "a.test:8443", 200},
		{"a.test", "other.test", 200},
		{"a.test", "b.test", 421},
		{"a.test", "B.Test.", 421},
		{"a.test", "x.w.test", 421},
		{"", "a.test", 200},
		{"", "b.test", 421},
		{"b.test", "b.test", 200},
		{"b.test", "x.w.test", 200}, // the same policy
		{"b.test", "a.test", 421},
	} {
		cfg := b.config(c.sni)
		cfg.InsecureSkipVerify = c.sni == ""
		cfg.Certificates = []tls.Certificate{*alice.TLS()}
		if status, _ := b.get(b.mustDial(cfg), c.host); status != c.status {
			t.Errorf("a connection for %q and a request for %q: %d, want %d", c.sni, c.host, status, c.status)
		}
		e := b.done()
		if (e != nil) != (c.status == 421) || e != nil && e.Reason != reason.Misdirected {
			t.Errorf("%q: %v", c.host, e)
		}
	}
}

var handshakeKey = cirque.NewConnKey[string]("handshake")

// TestHandshakenHook: row T6.
func TestHandshakenHook(t *testing.T) {
	b := newTLSBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "key", Request: func(s *cirque.Session) error {
		return s.Respond(200, handshakeKey.Get(s))
	}})
	b.srv.Handshaken = func(h *cirque.Handshake) error {
		if h.TLS().ServerName == "b.test" {
			return errors.New("not today")
		}
		handshakeKey.SetHandshake(h, h.TLS().ServerName+" of "+h.ClientAddr().Addr().String())
		return nil
	}
	if _, body := b.get(b.mustDial(b.config("a.test")), "a.test"); body != "a.test of 127.0.0.1" {
		t.Errorf("got %q", body)
	}
	c := b.mustDial(b.config("b.test"))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the hook refused and the connection lives")
	}
}

// TestListenAndServeTLS: as in net/http.
func TestListenAndServeTLS(t *testing.T) {
	cert, key := testcert.NewCA(t, "CA").Server("a.test").Write(t.TempDir(), "a")
	srv := &cirque.Server{Addr: "127.0.0.1:0", Proxy: &cirque.Proxy{}}
	errc := make(chan error)
	go func() { errc <- srv.ListenAndServeTLS(cert, key) }()
	srv.Close()
	if err := <-errc; err != cirque.ErrServerClosed {
		t.Error(err)
	}
	var wrong listen.PairErrors
	if err := srv.ListenAndServeTLS(key, key); !errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
	if err := srv.ListenAndServeTLS("", ""); err == nil || err == cirque.ErrServerClosed {
		t.Errorf("no certificate: %v", err)
	}
}
