package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/cirqueproxy/cirque/listen"
)

// TLS says how a listener does its TLS handshakes.
type TLS struct {
	Certificates       []*KeyPair
	RefuseUnknownNames bool
	HandshakeTimeout   time.Duration
	Protocols          []*string // the preferred first; empty: all, HTTP/2 first
	TLSPolicy
	Names   []*TLSName
	Tickets Tickets

	built *listen.TLS // nil before its files were read
}

// KeyPair names the PEM files of a certificate and its key.
type KeyPair struct{ Cert, Key string }

// TLSPolicy is what may differ between the names of a listener.
type TLSPolicy struct {
	MinVersion string
	ClientAuth *ClientAuth // nil: off
}

// ClientAuth says whether clients identify themselves by certificates.
type ClientAuth struct {
	Mode string
	CA   string // a file
}

// TLSName is a policy for some names of a listener.
type TLSName struct {
	Names []*string
	TLSPolicy
}

// Tickets says how clients resume sessions.
type Tickets struct {
	Enabled bool
	Secret  string // a file; "" for none
	Rotate  time.Duration
}

// filePath is the path of a file, from the configuration's directory on if it
// is not absolute.
var filePath = text("the path of a file", checkPath)

func checkPath(s string) string {
	if strings.ContainsRune(s, 0) {
		return fmt.Sprintf("%q holds a NUL", s)
	}
	return ""
}

var keyPairKind = object(
	at("cert", filePath, func(p *KeyPair) *string { return &p.Cert }, "",
		"The PEM file of the certificate chain, the certificate itself first.").must(),
	at("key", filePath, func(p *KeyPair) *string { return &p.Key }, "", "The PEM file of its private key.").must(),
)

var tlsKind = object(append([]key[TLS]{
	at("certificates", list(keyPairKind, nil), func(t *TLS) *[]*KeyPair { return &t.Certificates }, "",
		"The certificates, found by the name that the client asks for: the exact name, then a wildcard for its first label, then the first of the list. Of several for one name, such as an ECDSA and an RSA one, a client gets the first that it understands. Files are read again when they change.").must(),
	at("refuse_unknown_names", boolean, func(t *TLS) *bool { return &t.RefuseUnknownNames }, "false",
		"End the handshakes of clients that ask for a name that no certificate is for. Otherwise they get the first."),
	at("protocols", list(oneOf("http2", "http1"), nil), func(t *TLS) *[]*string { return &t.Protocols }, "",
		"What is spoken, the preferred first: a list of http2 and http1. The handshake of a client that speaks nothing of it fails.").unset("[http2, http1]"),
	at("handshake_timeout", duration(orOff), func(t *TLS) *time.Duration { return &t.HandshakeTimeout }, "10s",
		"A handshake, from the accept to its end."),
	at("tickets", ticketsKind, func(t *TLS) *Tickets { return &t.Tickets }, "",
		"How clients resume sessions without a full handshake."),
	at("names", list(tlsNameKind, nil), func(t *TLS) *[]*TLSName { return &t.Names }, "",
		"Names with min_version and client_auth of their own, which take the place of those of the listener. A request for one of them on a connection that was made for a name with others gets 421.").unset("none"),
}, lift(func(t *TLS) *TLSPolicy { return &t.TLSPolicy }, policyKeys(true))...)...)

var tlsNameKind = object(append([]key[TLSName]{
	at("names", oneOrMore(text("a host name", checkServerName)), func(n *TLSName) *[]*string { return &n.Names }, "",
		"The names: a.example.com, or *.example.com for all with one more label than example.com.").must(),
}, lift(func(n *TLSName) *TLSPolicy { return &n.TLSPolicy }, policyKeys(false))...)...)

// policyKeys are those that a listener and its names have in common. A name's
// are the listener's where they are not set.
func policyKeys(defaults bool) []key[TLSPolicy] {
	version, auth, none := "1.2", "they are not asked", "1.2"
	if !defaults {
		version, auth, none = "", "the listener's", "the listener's"
	}
	return []key[TLSPolicy]{
		at("min_version", tlsVersion, func(p *TLSPolicy) *string { return &p.MinVersion }, version, "The oldest version of TLS.").unset(none),
		at("client_auth", optional(clientAuthKind), func(p *TLSPolicy) **ClientAuth { return &p.ClientAuth }, "",
			"Whether clients identify themselves by certificates.").unset(auth),
	}
}

var clientAuthKind = object(
	at("mode", oneOf("off", "request", "require"), func(c *ClientAuth) *string { return &c.Mode }, "require",
		"off: not asked. request: a client without a certificate is served. require: its handshake fails. One with a certificate that the CAs did not issue fails in either mode."),
	at("ca", filePath, func(c *ClientAuth) *string { return &c.CA }, "",
		"The PEM file of the CAs that issue client certificates. It is read again when it changes.").unset("required, but for off"),
)

var ticketsKind = object(
	at("enabled", boolean, func(t *Tickets) *bool { return &t.Enabled }, "true", "Let clients resume sessions."),
	at("secret_file", filePath, func(t *Tickets) *string { return &t.Secret }, "",
		"A file with at least 32 random bytes, from which all processes that have it derive the same ticket keys. Clients can then resume a session with another process. It is read again when it changes; tickets from the secret before are still taken.").
		unset("random keys of the process's own"),
	at("rotate", duration(noOff), func(t *Tickets) *time.Duration { return &t.Rotate }, "12h",
		"How long a key makes tickets. They are taken for two more such times."),
)

var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// tlsVersion is a version of TLS, quoted or not.
var tlsVersion = scalarKind("1.2 or 1.3", numberTags, func(s string, dst *string) string {
	if s != "1.2" && s != "1.3" {
		return fmt.Sprintf("want 1.2 or 1.3, got %q", s)
	}
	*dst = s
	return ""
}, dumpText, map[string]any{"enum": []any{"1.2", "1.3", 1.2, 1.3}})

// checkServerName accepts what a client can ask for in a handshake, and a
// wildcard for the first label.
func checkServerName(s string) string {
	name := strings.TrimPrefix(s, "*.")
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.IndexFunc(label, notInHost) >= 0 || label[0] == '-' {
			return fmt.Sprintf("%q is no host name", s)
		}
	}
	if strings.Trim(name, "0123456789.") == "" {
		return fmt.Sprintf("%q is an IP address: clients do not name one in a handshake", s)
	}
	return ""
}

// checkTLS reports names with two policies, and policies without CAs.
func (r *reader) checkTLS(l *Listener) {
	r.checkClientAuth(l, l.TLS.ClientAuth, "")
	seen := map[string]bool{}
	for i, n := range l.TLS.Names {
		r.checkClientAuth(l, n.ClientAuth, fmt.Sprintf("names.%d.", i+1))
		for _, name := range n.Names {
			if lower := strings.ToLower(*name); seen[lower] && *name != "" {
				r.failAt(name, n, "listeners.%s.tls.names.%d: the name %q is there already", l.Name, i+1, *name)
			} else {
				seen[lower] = true
			}
		}
	}
}

func (r *reader) checkClientAuth(l *Listener, c *ClientAuth, at string) {
	if c != nil && c.Mode != "off" && c.CA == "" && !r.broken[&c.CA] {
		r.failAt(c, l, "listeners.%s.tls.%sclient_auth: the key \"ca\" is missing", l.Name, at)
	}
}

// loadTLS reads the files that the listeners name and reports what is wrong
// with them.
func (r *reader) loadTLS() {
	for _, l := range r.cfg.Listeners {
		if l.TLS == nil {
			continue
		}
		t, errs := l.TLS.load(r.cfg.dir)
		if len(errs) == 0 {
			l.TLS.built = t
		}
		for _, e := range errs {
			r.failAt(e.at, l.TLS, "listeners.%s.tls: %s", l.Name, e.text)
		}
	}
}

// fileError is what is wrong with a file that the value behind at names.
type fileError struct {
	at   *string
	text string
}

// load reads the files of t; relative paths begin at dir.
func (t *TLS) load(dir string) (*listen.TLS, []fileError) {
	var errs []fileError
	out := &listen.TLS{
		RefuseUnknownNames: t.RefuseUnknownNames, HandshakeTimeout: t.HandshakeTimeout, NoTickets: !t.Tickets.Enabled,
	}
	out.Certificates = loadPairs(dir, t.Certificates, &errs)
	for _, p := range t.Protocols {
		out.Protocols = append(out.Protocols, alpn[*p]...)
	}
	var err error
	if t.Tickets.Enabled {
		out.Tickets = listen.NewTickets(t.Tickets.Rotate)
		if t.Tickets.Secret != "" {
			if out.Tickets, err = listen.LoadTickets(inDir(dir, t.Tickets.Secret), t.Tickets.Rotate); err != nil {
				errs = append(errs, fileError{&t.Tickets.Secret, err.Error()})
			}
		}
	}
	out.Policy = t.policy(dir, &errs)
	for _, n := range t.Names {
		p := n.policy(dir, &errs)
		if n.MinVersion == "" {
			p.MinVersion = out.MinVersion
		}
		if n.ClientAuth == nil {
			p.ClientAuth, p.ClientCAs = out.ClientAuth, out.ClientCAs
		}
		out.Names = append(out.Names, listen.NamePolicy{Names: texts(n.Names), Policy: p})
	}
	return out, errs
}

// loadPairs reads certificates and their keys.
func loadPairs(dir string, list []*KeyPair, errs *[]fileError) *listen.Certificates {
	var pairs []listen.KeyPair
	var from []*KeyPair
	for _, p := range list {
		if p.Cert != "" && p.Key != "" { // else that was said
			pairs, from = append(pairs, listen.KeyPair{Cert: inDir(dir, p.Cert), Key: inDir(dir, p.Key)}), append(from, p)
		}
	}
	certs, err := listen.LoadCertificates(pairs...)
	var wrong listen.PairErrors
	_ = errors.As(err, &wrong)
	for _, e := range wrong {
		at := &from[e.Index].Cert
		if e.Key {
			at = &from[e.Index].Key
		}
		*errs = append(*errs, fileError{at, e.Error()})
	}
	return certs
}

func (p *TLSPolicy) policy(dir string, errs *[]fileError) listen.Policy {
	out := listen.Policy{MinVersion: tlsVersions[p.MinVersion]}
	c := p.ClientAuth
	if c == nil || c.Mode == "off" || c.CA == "" {
		return out
	}
	out.ClientAuth = listen.ClientAuthRequire
	if c.Mode == "request" {
		out.ClientAuth = listen.ClientAuthRequest
	}
	var err error
	if out.ClientCAs, err = listen.LoadCAs(inDir(dir, c.CA)); err != nil {
		*errs = append(*errs, fileError{&c.CA, err.Error()})
	}
	return out
}

// alpn are the names that handshakes have for protocols.
var alpn = map[string][]string{"http1": {"http/1.1", "http/1.0"}, "http2": {"h2"}}

// inDir returns a path that begins at the configuration's directory.
func inDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// listen returns the policy with its files read.
func (t *TLS) listen(dir string) (*listen.TLS, error) {
	if t == nil {
		return nil, nil
	}
	if t.built != nil {
		return t.built, nil
	}
	out, errs := t.load(dir)
	return out, joinFileErrors(errs)
}
