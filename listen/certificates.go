package listen

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// maxPEM bounds a PEM file. A path that names an endless device must not take
// all memory.
const maxPEM = 8 << 20

// KeyPair names the PEM files of a certificate: the chain, the server's own
// certificate first, and its private key.
type KeyPair struct{ Cert, Key string }

// PairError is what is wrong with one pair of files.
type PairError struct {
	Index int    // in the list of pairs
	Key   bool   // the key's file is the wrong one
	File  string // which that is
	Err   error
}

// Error returns "file: what is wrong".
func (e *PairError) Error() string { return e.File + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *PairError) Unwrap() error { return e.Err }

// PairErrors is all that is wrong with a list of pairs, in its order.
type PairErrors []*PairError

// Error returns one line per error.
func (es PairErrors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Certificates holds the certificates of a listener and finds the one for a
// client by the name that it asks for: the exact name, then a wildcard for its
// first label, then the default, which is the first certificate of all. Several
// certificates for one name, such as an ECDSA and an RSA one, are offered in the
// order in which they were given: a client gets the first that it understands.
//
// Its methods may be called from any goroutine. The cost of a lookup does not
// depend on how many certificates there are.
type Certificates struct {
	index atomic.Pointer[certIndex]

	mu    sync.Mutex
	pairs []*loadedPair // Guarded by mu: those that came from files.
}

// loadedPair is a pair of files and what was in them when they were last good.
type loadedPair struct {
	KeyPair
	sum  [sha256.Size]byte
	cert *tls.Certificate
}

// certIndex is immutable.
type certIndex struct {
	exact, wild map[string][]*tls.Certificate // wild without its "*."
	def         []*tls.Certificate
	all         []*tls.Certificate
}

// NewCertificates returns the certificates, of which the first is the default.
func NewCertificates(certs ...*tls.Certificate) (*Certificates, error) {
	c := &Certificates{}
	return c, c.Set(certs...)
}

// Set replaces all certificates. Connections that are open keep theirs.
func (c *Certificates) Set(certs ...*tls.Certificate) error {
	for i, cert := range certs {
		if err := parseLeaf(cert); err != nil {
			return fmt.Errorf("certificate %d: %w", i+1, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pairs = nil
	c.index.Store(newCertIndex(certs))
	return nil
}

// LoadCertificates reads certificates from PEM files. What is wrong with them
// is an error of type [PairErrors], with all that is wrong.
func LoadCertificates(pairs ...KeyPair) (*Certificates, error) {
	c := &Certificates{}
	var errs PairErrors
	for i, p := range pairs {
		loaded, err := loadPair(p, nil)
		if err != nil {
			err.Index = i
			errs = append(errs, err)
		}
		c.pairs = append(c.pairs, loaded)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	c.index.Store(newCertIndex(c.loadedLocked()))
	return c, nil
}

// Reload reads the files again and reports whether the certificates of any have
// changed. A pair that cannot be used, if only because one of its files is
// newer than the other, keeps what it had and is in the error, of type
// [PairErrors]. Connections that are open keep their certificates.
func (c *Certificates) Reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs PairErrors
	for i, old := range c.pairs {
		loaded, err := loadPair(old.KeyPair, old)
		switch {
		case err != nil:
			err.Index = i
			errs = append(errs, err)
		case loaded != old:
			c.pairs[i], changed = loaded, true
		}
	}
	if changed {
		c.index.Store(newCertIndex(c.loadedLocked()))
	}
	if len(errs) > 0 {
		return changed, errs
	}
	return changed, nil
}

// Files returns the files that Reload reads.
func (c *Certificates) Files() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := make([]string, 0, 2*len(c.pairs))
	for _, p := range c.pairs {
		files = append(files, p.Cert, p.Key)
	}
	return files
}

// All returns the certificates, in their order. They must not be changed.
func (c *Certificates) All() []*tls.Certificate { return c.index.Load().all }

func (c *Certificates) loadedLocked() []*tls.Certificate {
	certs := make([]*tls.Certificate, len(c.pairs))
	for i, p := range c.pairs {
		certs[i] = p.cert
	}
	return certs
}

// loadPair reads a pair; it returns old if that has the same content.
func loadPair(p KeyPair, old *loadedPair) (*loadedPair, *PairError) {
	fail := func(key bool, err error) (*loadedPair, *PairError) {
		e := &PairError{Key: key, File: p.Cert, Err: err}
		if key {
			e.File = p.Key
		}
		return nil, e
	}
	cert, err := readPEM(p.Cert)
	if err != nil {
		return fail(false, err)
	}
	key, err := readPEM(p.Key)
	if err != nil {
		return fail(true, err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d:", len(cert))
	h.Write(cert)
	h.Write(key)
	n := &loadedPair{KeyPair: p}
	h.Sum(n.sum[:0])
	if old != nil && n.sum == old.sum {
		return old, nil
	}
	if _, err := ParseCertificates(cert); err != nil {
		return fail(false, err)
	}
	parsed, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fail(true, errors.New(strings.TrimPrefix(err.Error(), "tls: ")))
	}
	n.cert = &parsed
	return n, nil
}

// readPEM reads a file that is expected to be small.
func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, plainPathError(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("it is no regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, plainPathError(err)
	}
	if len(b) > maxPEM {
		return nil, fmt.Errorf("the file has more than %d bytes", maxPEM)
	}
	return b, nil
}

// plainPathError drops the path, which the caller names.
func plainPathError(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// ParseCertificates returns the certificates of a PEM text: at least one.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %s", len(certs)+1, strings.TrimPrefix(err.Error(), "x509: "))
		}
		certs = append(certs, cert)
	}
	switch {
	case len(certs) > 0:
		return certs, nil
	case bytes.Contains(text, []byte("-----BEGIN CERTIFICATE-----")):
		return nil, errors.New("the PEM text is damaged")
	default:
		return nil, errors.New("there is no certificate in it: want PEM, -----BEGIN CERTIFICATE-----")
	}
}

// parseLeaf sees to it that a certificate's own fields are known.
func parseLeaf(cert *tls.Certificate) error {
	if cert == nil || len(cert.Certificate) == 0 {
		return errors.New("it is empty")
	}
	if cert.Leaf == nil {
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			return err
		}
		cert.Leaf = leaf
	}
	return nil
}

func newCertIndex(certs []*tls.Certificate) *certIndex {
	x := &certIndex{exact: map[string][]*tls.Certificate{}, wild: map[string][]*tls.Certificate{}, all: certs}
	for _, cert := range certs {
		for _, name := range certNames(cert.Leaf) {
			m, name := x.table(name)
			m[name] = append(m[name], cert)
		}
	}
	if len(certs) > 0 {
		x.def = certs[:1:1]
		if names := certNames(certs[0].Leaf); len(names) > 0 {
			m, name := x.table(names[0])
			x.def = m[name] // with those of other kinds of keys for the same name
		}
	}
	return x
}

// table returns where a name of a certificate is found, and as what.
func (x *certIndex) table(name string) (map[string][]*tls.Certificate, string) {
	if base, ok := strings.CutPrefix(name, "*."); ok {
		return x.wild, base
	}
	return x.exact, name
}

// certNames returns the names that a certificate is for, in lower case. One
// without any kept them, before there was a place for them, in its common name.
func certNames(leaf *x509.Certificate) []string {
	names := leaf.DNSNames
	if len(names) == 0 && len(leaf.IPAddresses) == 0 && leaf.Subject.CommonName != "" {
		names = []string{leaf.Subject.CommonName}
	}
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(strings.TrimSuffix(n, "."))
	}
	return out
}

// lookup returns the certificates for a name; known reports whether it is any's.
func (x *certIndex) lookup(name string) (certs []*tls.Certificate, known bool) {
	name = strings.ToLower(name)
	if certs = x.exact[name]; len(certs) > 0 {
		return certs, true
	}
	// RFC 9525, section 6.3: a wildcard stands for one whole label.
	if _, base, ok := strings.Cut(name, "."); ok {
		if certs = x.wild[base]; len(certs) > 0 {
			return certs, true
		}
	}
	return x.def, false
}

// choose returns the first certificate that the client understands, or the
// first.
func choose(hello *tls.ClientHelloInfo, certs []*tls.Certificate) *tls.Certificate {
	if len(certs) == 0 {
		return nil
	}
	if len(certs) > 1 {
		h := *hello
		h.ServerName = "" // whether the name is the certificate's was decided before
		for _, cert := range certs {
			if h.SupportsCertificate(cert) == nil {
				return cert
			}
		}
	}
	return certs[0]
}
