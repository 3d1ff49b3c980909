package listen

import (
	"crypto/tls"
	"crypto/x509"

	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/internal/testcert"
)

// shop is a client that keeps what a server gave it to resume with.
type shop struct {
	t     *testing.T
	cache tls.ClientSessionCache
	cert  *testcert.Cert // of the client; nil: none
	max   uint16
	name  string
}

// visit does a handshake with a and reports whether it resumed a session.
func (s *shop) visit(a *Acceptor) (resumed bool, err error) {
	s.t.Helper()
	ours, theirs := memnet.Pipe()
	defer ours.Close()
	defer theirs.Close()
	srv := tls.Server(ours, a.Config())
	errc := make(chan error, 1)
	go func() {
		err := srv.Handshake()
		if err == nil {
			_, err = srv.Write([]byte("x")) // behind the tickets
		}
		if err != nil {
			ours.Close()
		}
		errc <- err
	}()
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: s.name, ClientSessionCache: s.cache, MaxVersion: s.max}
	if s.cert != nil {
		cfg.Certificates = []tls.Certificate{*s.cert.TLS()}
	}
	c := tls.Client(theirs, cfg)
	_, rerr := c.Read(make([]byte, 1))
	if err := <-errc; err != nil {
		return false, err
	}
	return srv.ConnectionState().DidResume, rerr
}

func (s *shop) want(what string, a *Acceptor, resumed bool) {
	s.t.Helper()
	if got, err := s.visit(a); err != nil || got != resumed {
		s.t.Errorf("%s, %s: resumed %v, %v, want %v", what, tls.VersionName(s.max), got, err, resumed)
	}
}

func mustAccept(t *testing.T, tl *TLS, name string) *Acceptor {
	t.Helper()
	a, err := tl.Acceptor(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// TestTicketsStayHome: a ticket is worth nothing at another listener, under
// another policy, or after a change of the CAs, though all have the same keys.
func TestTicketsStayHome(t *testing.T) {
	ca, clients, others := testcert.NewCA(t, "CA"), testcert.NewCA(t, "clients"), testcert.NewCA(t, "others")
	alice := clients.Issue(testcert.Options{Name: "alice", Client: true})
	certs := mustCerts(t, ca.Server("a.test", "b.test", "c.test"))
	tickets := NewTickets(0)
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	write := func(list ...*testcert.Cert) {
		var text []byte
		for _, c := range list {
			text = append(text, c.CertPEM()...)
		}
		os.WriteFile(file, text, 0o600)
	}
	write(clients)
	cas, err := LoadCAs(file)
	if err != nil {
		t.Fatal(err)
	}
	mk := func(p Policy) *TLS { return &TLS{Certificates: certs, Tickets: tickets, Policy: p} }
	require := Policy{ClientAuth: ClientAuthRequire, ClientCAs: cas}
	web := mustAccept(t, mk(Policy{}), "web")
	other := mustAccept(t, mk(Policy{}), "other")
	same := mustAccept(t, mk(Policy{}), "web") // as in another process
	request := mustAccept(t, mk(Policy{ClientAuth: ClientAuthRequest, ClientCAs: cas}), "web")
	mtls := mustAccept(t, mk(require), "web")
	names := mk(Policy{})
	names.Names = []NamePolicy{{[]string{"b.test"}, require}, {[]string{"c.test"}, require}}
	byName := mustAccept(t, names, "names")
	for _, v := range versions {
		s := &shop{t: t, cache: tls.NewLRUClientSessionCache(1), max: v, name: "a.test"}
		s.want("first", web, false)
		s.want("again", web, true)
		s.want("the same elsewhere", same, true)
		s.want("another listener", other, false)
		s.want("back", web, false)
		s.want("another policy", request, false)

		s = &shop{t: t, cache: tls.NewLRUClientSessionCache(1), max: v, name: "a.test", cert: alice}
		s.want("request", request, false)
		s.want("request again", request, true)
		s.want("require", mtls, false)
		s.want("require again", mtls, true)
		s.want("off", web, false)

		// The client believes that a ticket of one name is good for another.
		cache := tls.NewLRUClientSessionCache(1)
		one := func(name string) *shop {
			return &shop{t: t, cache: oneSession{cache}, max: v, name: name, cert: alice}
		}
		one("a.test").want("a", byName, false)
		one("b.test").want("from a to b", byName, false)
		one("b.test").want("b again", byName, true)
		one("c.test").want("from b to c", byName, false)
		one("a.test").want("from c to a", byName, false)

		// A change of the CAs is one of the policy, also when they still issue the
		// client's certificate.
		s = &shop{t: t, cache: tls.NewLRUClientSessionCache(1), max: v, name: "a.test", cert: alice}
		s.want("before the change", mtls, false)
		s.want("before the change", mtls, true)
		write(clients, others)
		if changed, err := cas.Reload(); !changed || err != nil {
			t.Fatal(changed, err)
		}
		s.want("after the change", mtls, false)
		s.want("after the change", mtls, true)
		write(others)
		if changed, err := cas.Reload(); !changed || err != nil {
			t.Fatal(changed, err)
		}
		if _, err := s.visit(mtls); err == nil {
			t.Error("a session outlives its CA")
		}
		write(clients)
		cas.Reload()
	}
}

// oneSession is a cache that gives the session of one server to all.
type oneSession struct{ tls.ClientSessionCache }

func (c oneSession) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }
func (c oneSession) Put(_ string, s *tls.ClientSessionState)    { c.ClientSessionCache.Put("", s) }

// TestResumedClientIsVerified: the second lock: what a ticket says of a client is
// verified by the CAs as they are.
func TestResumedClientIsVerified(t *testing.T) {
	clients, others := testcert.NewCA(t, "clients"), testcert.NewCA(t, "others")
	alice := clients.Issue(testcert.Options{Name: "between", CA: true}).Issue(testcert.Options{Name: "alice", Client: true})
	state := &tls.ConnectionState{DidResume: true}
	for _, c := range alice.TLS().Certificate {
		cert, err := x509.ParseCertificate(c)
		if err != nil {
			t.Fatal(err)
		}
		state.PeerCertificates = append(state.PeerCertificates, cert)
	}
	require, request := &Policy{ClientAuth: ClientAuthRequire}, &Policy{ClientAuth: ClientAuthRequest}
	good, bad := NewCAs(clients.X509).made.Load(), NewCAs(others.X509).made.Load()
	for _, c := range []struct {
		p   *Policy
		cas *casMade
		cs  *tls.ConnectionState
		ok  bool
	}{
		{require, good, state, true},
		{require, bad, state, false},
		{request, bad, state, false},
		{require, good, &tls.ConnectionState{DidResume: true}, false},
		{request, good, &tls.ConnectionState{DidResume: true}, true},
		{require, bad, &tls.ConnectionState{}, true}, // verified by the handshake itself
	} {
		if err := c.p.verifyResumed(c.cas, c.cs); (err == nil) != c.ok {
			t.Errorf("%s: %v, want %v", c.p.ClientAuth, err, c.ok)
		}
	}
}

// TestTicketKeysRotate: tickets are taken for two slots after theirs; with a
// secret two processes agree, also around a change of slot or of the secret.
func TestTicketKeysRotate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	os.WriteFile(file, []byte(strings.Repeat("a", 32)+"\n"), 0o600)
	certs := mustCerts(t, testcert.SelfSigned(t, testcert.Options{Names: []string{"a.test"}, NotAfter: time.Now().AddDate(100, 0, 0), NotBefore: time.Unix(0, 0)}))
	shared := func() *Tickets {
		tk, err := LoadTickets(file, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return tk
	}
	synctest.Test(t, func(t *testing.T) {
		for kind, tk := range map[string][2]*Tickets{"random": {NewTickets(time.Hour), nil}, "secret": {shared(), shared()}} {
			one := mustAccept(t, &TLS{Certificates: certs, Tickets: tk[0]}, "web")
			two := one
			if tk[1] != nil {
				two = mustAccept(t, &TLS{Certificates: certs, Tickets: tk[1]}, "web")
			}
			for _, v := range versions {
				s := &shop{t: t, cache: &keptSession{}, max: v, name: "a.test"}
				s.want(kind+": first", one, false)
				s.want(kind+": the other process", two, true)
				s.cache.(*keptSession).keep = true
				time.Sleep(time.Hour + time.Minute)
				s.want(kind+": an hour later", two, true)
				time.Sleep(time.Hour)
				s.want(kind+": two hours later", two, true)
				time.Sleep(time.Hour)
				s.want(kind+": three hours later", two, false)
			}
			if tk[1] == nil {
				continue
			}
			s := &shop{t: t, cache: &keptSession{}, max: tls.VersionTLS13, name: "a.test"}
			s.want("before the new secret", one, false)
			s.cache.(*keptSession).keep = true
			os.WriteFile(file, []byte(strings.Repeat("b", 32)), 0o600)
			if changed, err := tk[0].Reload(); !changed || err != nil {
				t.Fatal(changed, err)
			}
			s.want("the secret before is believed", one, true)
			os.WriteFile(file, []byte("short"), 0o600)
			if changed, err := tk[0].Reload(); changed || err == nil {
				t.Fatal(changed, err)
			}
			s.want("a bad file changes nothing", one, true)
			os.WriteFile(file, []byte(strings.Repeat("c", 32)), 0o600)
			tk[0].Reload()
			s.want("two secrets later", one, false)
		}
	})
	if _, err := SharedTickets(make([]byte, 31), 0); err == nil {
		t.Error("a short secret")
	}
}

// keptSession keeps the first session that it gets, if told to.
type keptSession struct {
	s    *tls.ClientSessionState
	keep bool
}

func (c *keptSession) Get(string) (*tls.ClientSessionState, bool) { return c.s, c.s != nil }
func (c *keptSession) Put(_ string, s *tls.ClientSessionState) {
	if !c.keep && s != nil {
		c.s = s
	}
}

// TestNoTickets: resumption can be turned off.
func TestNoTickets(t *testing.T) {
	a := mustAccept(t, &TLS{Certificates: mustCerts(t, testcert.NewCA(t, "CA").Server("a.test")), NoTickets: true}, "web")
	for _, v := range versions {
		s := &shop{t: t, cache: tls.NewLRUClientSessionCache(1), max: v, name: "a.test"}
		s.want("first", a, false)
		s.want("again", a, false)
	}
}

// TestDefaults: what a client can agree on with a listener that says nothing
// else: Mozilla's intermediate configuration.
func TestHandshakeDefaults(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	a := mustAccept(t, &TLS{Certificates: mustCerts(t, ca.Server("a.test"), ca.Issue(testcert.Options{Names: []string{"a.test"}, RSA: true}))}, "web")
	try := func(cfg *tls.Config) (tls.ConnectionState, error) {
		ours, theirs := memnet.Pipe()
		defer ours.Close()
		defer theirs.Close()
		go func() {
			if tls.Server(ours, a.Config()).Handshake() != nil {
				ours.Close()
			}
		}()
		cfg.InsecureSkipVerify, cfg.ServerName = true, "a.test"
		c := tls.Client(theirs, cfg)
		err := c.Handshake()
		return c.ConnectionState(), err
	}
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if _, err := try(&tls.Config{MinVersion: v, MaxVersion: v}); err == nil {
			t.Errorf("%s is spoken", tls.VersionName(v))
		}
	}
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if len(s.SupportedVersions) == 1 && s.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		good := strings.Contains(s.Name, "ECDHE") && (strings.Contains(s.Name, "GCM") || strings.Contains(s.Name, "CHACHA20"))
		if _, err := try(&tls.Config{CipherSuites: []uint16{s.ID}, MaxVersion: tls.VersionTLS12}); (err == nil) != good {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	for g, good := range map[tls.CurveID]bool{tls.X25519MLKEM768: true, tls.X25519: true, tls.CurveP256: true, tls.CurveP384: true, tls.CurveP521: false} {
		if _, err := try(&tls.Config{CurvePreferences: []tls.CurveID{g}}); (err == nil) != good {
			t.Errorf("%s: %v", g, err)
		}
	}
	cs, err := try(&tls.Config{NextProtos: []string{"http/1.1"}})
	if err != nil || cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 || cs.NegotiatedProtocol != "http/1.1" {
		t.Errorf("%v %+v", err, cs)
	}
}
