package listen

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// TLS says how the TLS handshakes of a listener are done. With Certificates
// alone it is what Mozilla calls its intermediate configuration: TLS 1.2 with
// forward secrecy and authenticated encryption, and TLS 1.3, with hybrid
// post-quantum key exchange for the clients that have it. Set the fields before
// the first use and leave them.
type TLS struct {
	// Certificates finds the certificate for a client.
	Certificates *Certificates
	// GetCertificate, if not nil, is asked before Certificates. It may return nil
	// for both, which leaves the choice to these.
	GetCertificate func(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// RefuseUnknownNames ends the handshakes of clients that ask for a name, or
	// for none, which no certificate is for. Otherwise they get the default.
	RefuseUnknownNames bool

	// Policy holds for all names but those in Names.
	Policy
	// Names are the policies of names that have one of their own. A request for
	// one of them on a connection of another policy gets 421.
	Names []NamePolicy

	// Protocols are offered by ALPN, the preferred first. If nil, all that a
	// Server speaks: "h2", "http/1.1" and "http/1.0". A client that asks for others only is
	// refused, and one that asks for none if HTTP/2 alone is offered.
	Protocols []string
	// HandshakeTimeout bounds a handshake, from the accept to its end. If zero,
	// 10 s. If negative, there is no limit.
	HandshakeTimeout time.Duration
	// Tickets are the keys with which clients resume sessions. If nil, the
	// listener has its own, which end with the process.
	Tickets *Tickets
	// NoTickets turns resumption off.
	NoTickets bool
}

// Policy is what may differ between the names of one listener.
type Policy struct {
	// MinVersion and MaxVersion are versions such as tls.VersionTLS13. If zero,
	// they are TLS 1.2 and the newest.
	MinVersion, MaxVersion uint16
	// ClientAuth says whether clients shall identify themselves.
	ClientAuth ClientAuth
	// ClientCAs issue the certificates that clients identify themselves with.
	ClientCAs *CAs
}

// NamePolicy is a policy for some names: whole ones, or *.example.com for all
// names with one more label than example.com.
type NamePolicy struct {
	Names []string
	Policy
}

// ClientAuth says whether clients shall identify themselves by a certificate.
type ClientAuth uint8

const (
	// ClientAuthOff does not ask.
	ClientAuthOff ClientAuth = iota
	// ClientAuthRequest asks. A client may have no certificate; one that
	// ClientCAs did not issue ends the handshake.
	ClientAuthRequest
	// ClientAuthRequire ends the handshakes of clients without.
	ClientAuthRequire
)

// String returns "off", "request" or "require".
func (a ClientAuth) String() string {
	switch a {
	case ClientAuthRequest:
		return "request"
	case ClientAuthRequire:
		return "require"
	default:
		return "off"
	}
}

// protocols are those that a Server speaks, for ALPN. A client of HTTP/1.0 may say
// that it is one: curl --http1.0 does.
func protocols() []string { return []string{"h2", "http/1.1", "http/1.0"} }

// suites are Mozilla's intermediate ones for TLS 1.2, of those that crypto/tls
// has: forward secrecy and authenticated encryption. Those of TLS 1.3 cannot be
// chosen and are all good.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// groups are Mozilla's, with the hybrid that protects what is recorded today
// from the computers of tomorrow.
var groups = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384}

// Acceptor does the handshakes of one listener. Its methods may be called from
// any goroutine.
type Acceptor struct {
	t       *TLS
	timeout time.Duration
	def     *terms
	exact   map[string]*terms
	wild    map[string]*terms // without "*."
	base    *tls.Config
}

// Acceptor checks the fields and returns what does the handshakes of the
// listener with the given name. Session tickets of one name are worth nothing at
// another.
func (t *TLS) Acceptor(listener string) (*Acceptor, error) {
	a := &Acceptor{t: t, timeout: t.HandshakeTimeout}
	switch {
	case a.timeout == 0:
		a.timeout = 10 * time.Second
	case a.timeout < 0:
		a.timeout = 0
	}
	if t.GetCertificate == nil && (t.Certificates == nil || len(t.Certificates.All()) == 0) {
		return nil, errors.New("TLS without a certificate")
	}
	tickets := t.Tickets
	if tickets == nil && !t.NoTickets {
		tickets = NewTickets(0)
	}
	var err error
	if a.def, err = t.newTerms(listener, "", &t.Policy, tickets); err != nil {
		return nil, err
	}
	for i := range t.Names {
		n := &t.Names[i]
		if len(n.Names) == 0 {
			return nil, errors.New("a policy without names")
		}
		tm, err := t.newTerms(listener, strings.ToLower(n.Names[0]), &n.Policy, tickets)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Names[0], err)
		}
		for _, name := range n.Names {
			if err := a.add(name, tm); err != nil {
				return nil, err
			}
		}
	}
	a.base = &tls.Config{GetConfigForClient: a.configFor}
	return a, nil
}

func (a *Acceptor) add(name string, tm *terms) error {
	name = strings.ToLower(name)
	m := &a.exact
	base, ok := strings.CutPrefix(name, "*.")
	if ok {
		m = &a.wild
	}
	if (*m)[base] != nil {
		return fmt.Errorf("the name %s has two policies", name)
	}
	if *m == nil {
		*m = map[string]*terms{}
	}
	(*m)[base] = tm
	return nil
}

// Timeout returns how long a handshake may take; zero is no limit.
func (a *Acceptor) Timeout() time.Duration { return a.timeout }

// Config returns what a connection of the listener is made with. It must not be
// changed.
func (a *Acceptor) Config() *tls.Config { return a.base }

// Misdirected reports whether a request for host must not be served on a
// connection whose client asked for the server name sni: the two have different
// policies. Both are in lower case and without a port.
func (a *Acceptor) Misdirected(sni string, host []byte) bool {
	if a.exact == nil && a.wild == nil {
		return false
	}
	return a.find([]byte(sni)) != a.find(host)
}

// find returns the terms of a name. It does not allocate.
func (a *Acceptor) find(name []byte) *terms {
	if t := a.exact[string(name)]; t != nil {
		return t
	}
	for i, c := range name {
		if c == '.' {
			if t := a.wild[string(name[i+1:])]; t != nil {
				return t
			}
			break
		}
	}
	return a.def
}

// configFor returns the configuration of one handshake.
func (a *Acceptor) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c, err := a.find([]byte(strings.ToLower(hello.ServerName))).config(time.Now())
	switch {
	case err != nil:
		return nil, err
	case len(hello.SupportedProtos) == 0 && onlyHTTP2(c.NextProtos):
		return nil, errNoALPN
	case refusesALPN(c.NextProtos, hello.SupportedProtos):
		return noProtocol, nil
	}
	return c, nil
}

// errNoALPN ends the handshake of a client that does not say what it speaks, which
// is HTTP/1, where that is not spoken.
//
// RFC 9113, section 3.2: HTTP/2 over TLS is agreed on by ALPN and by nothing else.
var errNoALPN = &reason.Error{Reason: reason.TLSProtocol, Err: errors.New("the client does not ask for HTTP/2, and nothing else is spoken here")}

// onlyHTTP2 reports whether of what a Server speaks HTTP/2 alone is offered.
func onlyHTTP2(protocols []string) bool {
	return slices.Contains(protocols, "h2") && !slices.Contains(protocols, "http/1.1")
}

// refusesALPN reports whether a client wants only protocols that are not
// offered, where crypto/tls would let it go on without any: it takes a server
// of HTTP/2 alone for one of HTTP/1.1 too.
//
// RFC 7301, section 3.2: a server that shares no protocol with its client ends
// the handshake.
func refusesALPN(ours, theirs []string) bool {
	if len(theirs) == 0 {
		return false
	}
	for _, p := range ours {
		for _, q := range theirs {
			if p == q {
				return false
			}
		}
	}
	return true
}

// noProtocol has the handshake end with the alert no_application_protocol: it
// offers what no client asks for.
var noProtocol = &tls.Config{NextProtos: []string{"\x00"}, MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}

// ask calls the program's function, which may take its time.
func (t *TLS) ask(hello *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
	if s, ok := hello.Conn.(*wire.Sock); ok {
		s.Aside(func() { cert, err = t.GetCertificate(hello) })
		return cert, err
	}
	return t.GetCertificate(hello)
}

// certificate finds the certificate for a client. With neither a certificate
// nor an error the handshake ends with the alert unrecognized_name.
func (t *TLS) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if t.GetCertificate != nil {
		if cert, err := t.ask(hello); cert != nil || err != nil || t.Certificates == nil {
			return cert, err
		}
	}
	certs, known := t.Certificates.index.Load().lookup(hello.ServerName)
	if !known && t.RefuseUnknownNames {
		return nil, nil
	}
	return choose(hello, certs), nil
}
