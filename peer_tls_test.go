package cirque_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/testcert"
	"github.com/cirqueproxy/cirque/reason"
)

// tlsOrigin is an origin behind TLS, at an address that resolves to nothing but
// its own name.
type tlsOrigin struct {
	addr  string
	conns atomic.Int64
}

func newTLSOrigin(t *testing.T, l net.Listener, cfg *tls.Config, h http.Handler) *tlsOrigin {
	o := &tlsOrigin{addr: l.Addr().String()}
	srv := &http.Server{
		Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				o.conns.Add(1)
			}
		},
	}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(tls.NewListener(l, cfg)) })
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	return o
}

func tcp(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serving(c *testcert.Cert) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{*c.TLS()}}
}

func cas(certs ...*testcert.Cert) []*x509.Certificate {
	out := []*x509.Certificate{}
	for _, c := range certs {
		out = append(out, c.X509)
	}
	return out
}

// TestPeerVerdicts: row U6; RFC 9525, section 6. What OpenSSL says of the same certificates is in
// the outer ring, TestOuterVerdicts.
func TestPeerVerdicts(t *testing.T) {
	ca, other := testcert.NewCA(t, "CA"), testcert.NewCA(t, "other")
	between := ca.Issue(testcert.Options{Name: "between", CA: true})
	past := time.Now().Add(-time.Minute)
	certs := map[string]*testcert.Cert{
		"good":         ca.Server("a.test"),
		"wild":         ca.Server("*.test"),
		"expired":      ca.Issue(testcert.Options{Names: []string{"a.test"}, NotAfter: past}),
		"future":       ca.Issue(testcert.Options{Names: []string{"a.test"}, NotBefore: time.Now().Add(time.Hour)}),
		"other name":   ca.Server("b.test"),
		"self-signed":  testcert.SelfSigned(t, testcert.Options{Names: []string{"a.test"}}),
		"other CA":     other.Server("a.test"),
		"chain":        between.Server("a.test"),
		"broken chain": between.Server("a.test").Alone(),
		"common name":  ca.Issue(testcert.Options{Name: "a.test"}),
		"for clients":  ca.Issue(testcert.Options{Names: []string{"a.test"}, Client: true}),
		"address":      ca.Server("127.0.0.1"),
	}
	full := cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca)}
	alt := cirque.PeerTLS{ServerName: "a.test", AltName: "b.test", CAs: cas(ca)}
	cn := cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca), AllowCommonName: true}
	chain := cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca), Verify: cirque.InsecureVerifyChain}
	none := cirque.PeerTLS{Verify: cirque.InsecureVerifyNone}
	address := cirque.PeerTLS{ServerName: "127.0.0.1", CAs: cas(ca)}
	system := cirque.PeerTLS{ServerName: "a.test"}
	for _, c := range []struct {
		how  string
		tls  cirque.PeerTLS
		good string // the certificates that are believed
	}{
		{"full", full, "good wild chain"},
		{"alt name", alt, "good wild chain|other name"},
		{"common name", cn, "good wild chain|common name"},
		{"chain", chain, "good wild chain|other name|common name|address"},
		{"none", none, "*"},
		{"address", address, "address"},
		{"system", system, ""},
	} {
		for name, cert := range certs {
			want := c.good == "*" || name == "wild" && strings.Contains(c.good, "wild")
			for _, g := range strings.Split(strings.Replace(c.good, "good wild chain", "good|wild|chain", 1), "|") {
				want = want || g == name
			}
			o := newTLSOrigin(t, tcp(t), serving(cert), http.HandlerFunc(hello))
			b := newBed(t, nil)
			how := c.tls
			b.use(&cirque.Peer{Addr: o.addr, TLS: &how})
			status, body := b.do(b.client(), "GET", "/", "")
			e := b.done()
			if want && (status != 200 || e != nil) {
				t.Errorf("%s, %s: %d, %v; want it believed", c.how, name, status, e)
			}
			if !want && (status != 502 || e == nil || e.Reason != reason.UpstreamTLSCertificate || !strings.Contains(body, "upstream_tls_certificate")) {
				t.Errorf("%s, %s: %d, %v; want it refused", c.how, name, status, e)
			}
		}
	}
}

// TestPeersNeverShare: rows U9 and U10: peers that differ in one thing that makes
// up their identity share neither connections nor sessions; equal ones share
// connections.
func TestPeersNeverShare(t *testing.T) {
	ca, other := testcert.NewCA(t, "CA"), testcert.NewCA(t, "other")
	o := newTLSOrigin(t, tcp(t), &tls.Config{
		Certificates: []tls.Certificate{*ca.Server("a.test", "b.test").TLS()},
		ClientAuth:   tls.RequestClientCert,
	}, http.HandlerFunc(hello))
	client := testcert.NewCA(t, "clients").Issue(testcert.Options{Name: "us", Client: true})
	base := func() *cirque.PeerTLS { return &cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca)} }
	variants := map[string]func(p *cirque.Peer){
		"same":        func(*cirque.Peer) {},
		"CA":          func(p *cirque.Peer) { p.TLS.CAs = cas(ca, other) },
		"name":        func(p *cirque.Peer) { p.TLS.ServerName = "b.test" },
		"alt name":    func(p *cirque.Peer) { p.TLS.AltName = "b.test" },
		"verify":      func(p *cirque.Peer) { p.TLS.Verify = cirque.InsecureVerifyChain },
		"common name": func(p *cirque.Peer) { p.TLS.AllowCommonName = true },
		"certificate": func(p *cirque.Peer) { p.TLS.Certificates = []tls.Certificate{*client.TLS()} },
		"version":     func(p *cirque.Peer) { p.TLS.MinVersion = tls.VersionTLS13 },
		"ALPN":        func(p *cirque.Peer) { p.TLS.ALPN = []string{"http/1.1", "x"} },
		"protocol":    func(p *cirque.Peer) { p.Protocol = cirque.ProtocolHTTP1 },
		"unique":      func(p *cirque.Peer) { p.Unique = "x" },
	}
	for name, change := range variants {
		b := newBed(t, nil)
		c := b.client()
		first := &cirque.Peer{Addr: o.addr, TLS: base()}
		second := &cirque.Peer{Addr: o.addr, TLS: base()}
		change(second)
		before := o.conns.Load()
		for range 2 {
			for _, p := range []*cirque.Peer{first, second} {
				b.use(p)
				if status, _ := b.do(c, "GET", "/", ""); status != 200 {
					t.Fatalf("%s: %d, %v", name, status, b.done())
				}
				if e := b.done(); e != nil {
					t.Fatal(e)
				}
			}
		}
		want := int64(2)
		if name == "same" {
			want = 1
		}
		if n := o.conns.Load() - before; n != want {
			t.Errorf("%s: %d connections for two peers, want %d", name, n, want)
		}
	}
}

// TestPeerResumes: a second connection to the same identity resumes; one to
// another never does.
func TestPeerResumes(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		resumedc := make(chan bool, 10)
		o := newTLSOrigin(t, tcp(t), serving(ca.Server("a.test")), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resumedc <- r.TLS.DidResume
		}))
		b := newBed(t, nil, cirque.Filter{Name: "tls", Connected: func(s *cirque.Session) error {
			if d := s.UpstreamTLS(); d == nil || d.ServerName != "a.test" || d.Version != tls.VersionName(version) || d.Certificate.Subject != "CN=a.test" {
				t.Errorf("the hook sees %+v", d)
			}
			return nil
		}})
		mk := func(ca ...*testcert.Cert) *cirque.Peer {
			return &cirque.Peer{Addr: o.addr, Timeouts: cirque.Timeouts{Idle: -1}, TLS: &cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca...), MaxVersion: version}}
		}
		one, two := mk(ca), mk(ca, testcert.NewCA(t, "more"))
		var resumed []bool
		for _, p := range []*cirque.Peer{one, one, two, two, one} {
			b.use(p)
			if status, _ := b.do(b.client(), "GET", "/", ""); status != 200 {
				t.Fatal(status, b.done())
			}
			if e := b.done(); e != nil {
				t.Error(e)
			}
			resumed = append(resumed, <-resumedc)
		}
		if want := []bool{false, true, false, true, true}; !slices.Equal(resumed, want) {
			t.Errorf("%s: resumed %v, want %v", tls.VersionName(version), resumed, want)
		}
	}
}

// TestPeerIdentifiesItself: row U8: an origin that requires a certificate, with
// an intermediate. RFC 8446, section 6.2: it says so by an alert.
func TestPeerIdentifiesItself(t *testing.T) {
	ca, clients := testcert.NewCA(t, "CA"), testcert.NewCA(t, "clients")
	us := clients.Issue(testcert.Options{Name: "between", CA: true}).Issue(testcert.Options{Name: "us", Client: true})
	cfg := serving(ca.Server("a.test"))
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool()
	o := newTLSOrigin(t, tcp(t), cfg, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	b := newBed(t, nil)
	b.use(&cirque.Peer{Addr: o.addr, TLS: &cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca), Certificates: []tls.Certificate{*us.TLS()}}})
	b.want(b.client(), "GET", "/", "", 200, "us")
	b.done()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b.use(&cirque.Peer{Addr: o.addr, TLS: &cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca), MaxVersion: version}})
		b.want(b.client(), "GET", "/", "", 502, "upstream_tls_alert")
		if e := b.done(); e == nil || e.Reason != reason.UpstreamTLSAlert {
			t.Errorf("%s without a certificate: %v", tls.VersionName(version), e)
		}
	}
}

// TestPeerTLSTimeouts: row U2: whichever is shorter wins, and the error says
// which.
func TestPeerTLSTimeouts(t *testing.T) {
	l := tcp(t) // accepts in the kernel and never answers
	defer l.Close()
	hang := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for want, p := range map[cirque.Reason]*cirque.Peer{
		reason.UpstreamTLSTimeout: {Timeouts: cirque.Timeouts{TLSHandshake: 20 * time.Millisecond, ConnectTotal: time.Minute}},
		reason.ConnectTotal:       {Timeouts: cirque.Timeouts{ConnectTotal: 20 * time.Millisecond}},
		reason.ConnectTimeout:     {Timeouts: cirque.Timeouts{Connect: 20 * time.Millisecond, ConnectTotal: time.Minute}, Dial: hang},
	} {
		b := newBed(t, nil)
		b.proxy.Retry.Attempts = 1
		p.Addr, p.TLS = l.Addr().String(), &cirque.PeerTLS{ServerName: "a.test"}
		b.use(p)
		began := time.Now()
		b.want(b.client(), "GET", "/", "", 504, want.String())
		if e := b.done(); e == nil || e.Reason != want {
			t.Errorf("%v, want %s", e, want)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s took %v", want, d)
		}
	}
	b := newBed(t, nil)
	b.proxy.Retry.Attempts = 1
	b.use(&cirque.Peer{Addr: l.Addr().String(), TLS: &cirque.PeerTLS{ServerName: "a.test"},
		Timeouts: cirque.Timeouts{Connect: 20 * time.Millisecond, ConnectTotal: 20 * time.Second}, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, errors.New("broken") }})
	b.want(b.client(), "GET", "/", "", 502, "connect_failed")
	b.done()
}

// TestPeerNotTLS: an origin that speaks plain HTTP on the port.
func TestPeerNotTLS(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	b.proxy.Retry.Attempts = 1
	b.use(&cirque.Peer{Addr: b.peer.Addr, TLS: &cirque.PeerTLS{ServerName: "a.test"}})
	b.want(b.client(), "GET", "/", "", 502, "upstream_tls\n")
	b.done()
}

// TestPeerTLSOverUnix: row U13.
func TestPeerTLSOverUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ca := testcert.NewCA(t, "CA")
	newTLSOrigin(t, l, serving(ca.Server("a.test")), http.HandlerFunc(hello))
	b := newBed(t, nil)
	b.use(&cirque.Peer{Addr: "unix:" + path, TLS: &cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca)}})
	b.want(b.client(), "GET", "/", "", 200, "hello")
	b.done()
}

// TestPeerTLSValidate: what cannot be meant is said before the first connection,
// and makes none.
func TestPeerTLSValidate(t *testing.T) {
	for text, p := range map[string]*cirque.Peer{
		"needs a server name":      {Addr: "127.0.0.1:443", TLS: &cirque.PeerTLS{}},
		"needs a server name ":     {Addr: "[::1]:443", TLS: &cirque.PeerTLS{AltName: "a.test"}},
		"needs a server name  ":    {Addr: "unix:/s", TLS: &cirque.PeerTLS{}},
		"older than the oldest":    {Addr: "a:443", TLS: &cirque.PeerTLS{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}},
		"no chain or no key":       {Addr: "a:443", TLS: &cirque.PeerTLS{Certificates: []tls.Certificate{{}}}},
		"h2c is HTTP/2 without":    {Addr: "a:443", TLS: &cirque.PeerTLS{}, Protocol: cirque.ProtocolH2C},
		"is called h2c":            {Addr: "a:443", Protocol: cirque.ProtocolHTTP2},
		"there is no such way":     {Addr: "a:443", TLS: &cirque.PeerTLS{Verify: 9}},
		"there is no such protoco": {Addr: "a:443", Protocol: 9},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("%+v: %v, want %q", p.TLS, err, text)
		}
	}
	for _, p := range []*cirque.Peer{
		{Addr: "127.0.0.1:443", TLS: &cirque.PeerTLS{ServerName: "a.test"}},
		{Addr: "127.0.0.1:443", TLS: &cirque.PeerTLS{Verify: cirque.InsecureVerifyNone}},
		{Addr: "a.test:443", TLS: &cirque.PeerTLS{}},
		{Addr: "a.test:80", Protocol: cirque.ProtocolH2C},
	} {
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
	}
	o := newTLSOrigin(t, tcp(t), serving(testcert.NewCA(t, "CA")), http.HandlerFunc(hello))
	b := newBed(t, nil)
	b.use(&cirque.Peer{Addr: o.addr, TLS: &cirque.PeerTLS{}})
	b.want(b.client(), "GET", "/", "", 502, "connect_failed")
	b.done()
	if o.conns.Load() != 0 {
		t.Error("a connection was made")
	}
}

// TestKeyLog: row T10: only by explicit option.
func TestKeyLog(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	o := newTLSOrigin(t, tcp(t), serving(ca.Server("a.test")), http.HandlerFunc(hello))
	b := newBed(t, nil)
	var log bytes.Buffer
	b.proxy.Transport.KeyLog = &log
	b.use(&cirque.Peer{Addr: o.addr, TLS: &cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca)}})
	b.want(b.client(), "GET", "/", "", 200, "hello")
	b.done()
	if !strings.Contains(log.String(), "CLIENT_TRAFFIC_SECRET_0 ") {
		t.Errorf("logged %q", log.String())
	}
}

// TestCloseDelimitedOverTLS: a body that ends with its connection is complete
// only if that was closed with an alert. RFC 9112, section 8.
func TestCloseDelimitedOverTLS(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	l := tls.NewListener(tcp(t), serving(ca.Server("a.test")))
	defer l.Close()
	saidc := make(chan bool, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall")
			if <-saidc {
				c.Close()
			} else {
				c.(*tls.Conn).NetConn().Close()
			}
		}
	})
	for _, said := range []bool{true, false} {
		b := newBed(t, nil)
		b.use(&cirque.Peer{Addr: l.Addr().String(), TLS: &cirque.PeerTLS{ServerName: "a.test", CAs: cas(ca)}})
		saidc <- said
		c, r := b.raw()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if string(body) != "all" || (err == nil) != said {
			t.Errorf("said %v: the client gets %q, %v", said, body, err)
		}
		if e := b.done(); (e == nil) != said || e != nil && e.Reason != reason.UpstreamTruncated {
			t.Errorf("said %v: %v", said, e)
		}
	}
}
