package cirque

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/cirqueproxy/cirque/internal/upstream"
)

// PeerTLS says how connections to a peer are secured. Its zero value verifies
// the peer by the authorities of the system and the name in its address.
// It is immutable after its first use; two Peers whose PeerTLS differ in
// anything never share a connection or a session to resume.
type PeerTLS struct {
	// ServerName is what the peer is asked for and must prove to be. If empty, it
	// is the host in the peer's address, which then must not be an IP address. An
	// IP address as ServerName is proved, but not asked for.
	ServerName string
	// AltName is another name that the peer may prove to be instead.
	AltName string
	// CAs are the authorities that are believed. If nil, those of the system.
	CAs []*x509.Certificate
	// Certificates are ours, with their intermediates, for peers that ask who we
	// are: they get the first that they accept.
	Certificates []tls.Certificate
	// MinVersion and MaxVersion are versions such as tls.VersionTLS13. If zero,
	// they are TLS 1.2 and the newest.
	MinVersion, MaxVersion uint16
	// Verify says what of the peer's certificate is verified: all of it, unless
	// it names a risk.
	Verify Verify
	// AllowCommonName takes the common name of a certificate that has no DNS
	// names for one, as OpenSSL does.
	AllowCommonName bool
	// ALPN are the names of protocols to offer in place of those that
	// Peer.Protocol implies.
	ALPN []string
}

// Verify says what of a peer's certificate is verified.
type Verify uint8

const (
	// VerifyFull verifies that an authority issued the certificate, for the name.
	VerifyFull Verify = iota
	// InsecureVerifyChain verifies that an authority issued the certificate, for
	// whatever name: whoever has one for any name can stand in for the peer.
	InsecureVerifyChain
	// InsecureVerifyNone verifies nothing: whoever is on the way can stand in for
	// the peer.
	InsecureVerifyNone
)

// Protocol says what is spoken to a peer.
type Protocol uint8

const (
	// ProtocolAuto lets ALPN decide on TLS, and is HTTP/1 on plain connections.
	ProtocolAuto Protocol = iota
	// ProtocolHTTP1 is HTTP/1 alone.
	ProtocolHTTP1
	// ProtocolHTTP2 is HTTP/2 on TLS alone.
	ProtocolHTTP2
	// ProtocolH2C is HTTP/2 on a plain connection, known beforehand.
	ProtocolH2C
)

// mode is the protocol as the pool knows it.
func (p *Peer) mode() upstream.HTTP2Mode {
	switch {
	case p.Protocol == ProtocolHTTP2, p.Protocol == ProtocolH2C:
		return upstream.HTTP2Always
	case p.Protocol == ProtocolAuto && p.TLS != nil && (p.TLS.ALPN == nil || slices.Contains(p.TLS.ALPN, "h2")):
		return upstream.HTTP2Auto
	}
	return upstream.HTTP2Never
}

// offers are the names that a protocol has in ALPN, the preferred first.
func (p Protocol) offers() []string {
	switch p {
	case ProtocolAuto:
		return []string{"h2", "http/1.1"}
	case ProtocolHTTP2:
		return []string{"h2"}
	}
	return []string{"http/1.1"}
}

// serverName returns what the peer must prove to be.
func (p *Peer) serverName() string {
	if p.TLS.ServerName != "" {
		return p.TLS.ServerName
	}
	host, _, err := net.SplitHostPort(p.Addr)
	if err != nil || strings.HasPrefix(p.Addr, "unix:") || net.ParseIP(host) != nil {
		return ""
	}
	return strings.TrimSuffix(host, ".")
}

// validate reports what is wrong with how p is secured.
func (t *PeerTLS) validate(p *Peer) error {
	switch {
	case p.Protocol == ProtocolH2C:
		return fmt.Errorf("peer %q: h2c is HTTP/2 without TLS", p.Addr)
	case t.Verify > InsecureVerifyNone:
		return fmt.Errorf("peer %q: there is no such way to verify", p.Addr)
	case t.Verify == VerifyFull && p.serverName() == "":
		return fmt.Errorf("peer %q: TLS to an address without a host name needs a server name", p.Addr)
	case t.MaxVersion != 0 && t.MaxVersion < max(t.MinVersion, tls.VersionTLS12):
		return fmt.Errorf("peer %q: the newest version of TLS is older than the oldest", p.Addr)
	}
	for i, c := range t.Certificates {
		if len(c.Certificate) == 0 || c.PrivateKey == nil {
			return fmt.Errorf("peer %q: our certificate %d has no chain or no key", p.Addr, i+1)
		}
	}
	return nil
}

// config returns what the handshakes are made with.
func (t *PeerTLS) config(p *Peer) *tls.Config {
	c := &tls.Config{
		ServerName: p.serverName(), MinVersion: t.MinVersion, MaxVersion: t.MaxVersion,
		Certificates: t.Certificates, NextProtos: t.ALPN,
		CipherSuites: upstream.Suites, DynamicRecordSizingDisabled: true,
	}
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	if c.NextProtos == nil {
		c.NextProtos = p.Protocol.offers()
	}
	if t.CAs != nil {
		c.RootCAs = x509.NewCertPool()
		for _, ca := range t.CAs {
			c.RootCAs.AddCert(ca)
		}
	}
	if t.Verify != VerifyFull || t.AltName != "" || t.AllowCommonName {
		v := &upstream.Verifier{
			Roots: c.RootCAs, Chain: t.Verify != InsecureVerifyNone, Name: t.Verify == VerifyFull,
			Names: []string{c.ServerName}, CommonName: t.AllowCommonName,
		}
		if t.AltName != "" {
			v.Names = append(v.Names, t.AltName)
		}
		c.InsecureSkipVerify, c.VerifyConnection = true, v.Verify // in its place, also when a session is resumed
	}
	return c
}

// identity joins all of t that makes two connections interchangeable.
func (t *PeerTLS) identity(p *Peer) []string {
	if t == nil {
		return nil
	}
	parts := []string{
		"tls", p.serverName(), t.AltName, fmt.Sprint(t.MinVersion, t.MaxVersion, t.Verify, t.AllowCommonName, t.CAs != nil),
		strings.Join(t.ALPN, "\x00"),
	}
	h := sha256.New()
	for _, ca := range t.CAs {
		sum := sha256.Sum256(ca.Raw)
		h.Write(sum[:])
	}
	parts = append(parts, string(h.Sum(nil)))
	for _, c := range t.Certificates {
		h.Reset()
		for _, der := range c.Certificate {
			sum := sha256.Sum256(der)
			h.Write(sum[:])
		}
		parts = append(parts, string(h.Sum(nil)))
	}
	return parts
}

// UpstreamTLS returns the facts of the present attempt's TLS connection, or nil.
func (s *Session) UpstreamTLS() *TLSDigest { return s.attempt.TLS }

// digestOf returns the facts of a connection's TLS, made at its first use.
func digestOf(u upstream.Up) *TLSDigest { return u.Facts(makeDigest).(*TLSDigest) }

func makeDigest(nc net.Conn) any {
	tc, ok := nc.(*tls.Conn)
	if !ok {
		return (*TLSDigest)(nil)
	}
	cs := tc.ConnectionState()
	return newTLSDigest(&cs)
}
