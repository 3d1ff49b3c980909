// Package testcert makes certificates for tests, in no time and without files:
// authorities, and what they issue. It is nothing for the world outside: its
// keys live as long as the test.
package testcert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Cert is a certificate with its key and those above it.
type Cert struct {
	X509  *x509.Certificate
	Key   crypto.Signer
	above []*Cert // intermediates, the nearest first
	t     testing.TB
	from  *Cert
}

// Options say what is in a certificate. Zero fields have usual values.
type Options struct {
	Name      string   // common name; if empty, the first of Names
	Names     []string // DNS names and IP addresses
	Org       string
	NotBefore time.Time // if zero, an hour ago
	NotAfter  time.Time // if zero, in a day
	RSA       bool      // an RSA key; otherwise ECDSA P-256
	CA        bool      // it may issue others
	Client    bool      // for clients; otherwise for servers
}

var serial atomic.Int64

// NewCA returns an authority that signed itself.
func NewCA(t testing.TB, name string) *Cert {
	return issue(t, nil, Options{Name: name, CA: true})
}

// SelfSigned returns a certificate that signed itself.
func SelfSigned(t testing.TB, o Options) *Cert { return issue(t, nil, o) }

// Issue returns a certificate that c signed.
func (c *Cert) Issue(o Options) *Cert { return issue(c.t, c, o) }

// Server returns a certificate of a server with the names.
func (c *Cert) Server(names ...string) *Cert { return c.Issue(Options{Names: names}) }

func issue(t testing.TB, by *Cert, o Options) *Cert {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(0xabcd00 + serial.Add(1)), Subject: pkix.Name{CommonName: o.Name},
		NotBefore: o.NotBefore, NotAfter: o.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore = time.Now().Add(-time.Hour)
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if o.Org != "" {
		tmpl.Subject.Organization = []string{o.Org}
	}
	for _, n := range o.Names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
		if o.Name == "" {
			tmpl.Subject.CommonName, o.Name = n, n
		}
	}
	if o.Client {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	if o.CA {
		tmpl.IsCA, tmpl.KeyUsage, tmpl.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
	}
	c := &Cert{Key: newKey(t, o.RSA), t: t, from: by}
	parent, signer := tmpl, c.Key
	if by != nil {
		parent, signer = by.X509, by.Key
		if by.from != nil {
			c.above = append([]*Cert{by}, by.above...)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, c.Key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if c.X509, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t testing.TB, isRSA bool) crypto.Signer {
	var key crypto.Signer
	var err error
	if isRSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TLS returns the certificate with its intermediates, for a handshake.
func (c *Cert) TLS() *tls.Certificate {
	out := &tls.Certificate{Certificate: [][]byte{c.X509.Raw}, PrivateKey: c.Key, Leaf: c.X509}
	for _, a := range c.above {
		out.Certificate = append(out.Certificate, a.X509.Raw)
	}
	return out
}

// Alone returns the certificate without its intermediates.
func (c *Cert) Alone() *Cert { return &Cert{X509: c.X509, Key: c.Key, t: c.t, from: c.from} }

// Pool returns the certificate as the only authority.
func (c *Cert) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.X509)
	return p
}

// CertPEM returns the certificate and its intermediates.
func (c *Cert) CertPEM() []byte {
	var out []byte
	for _, der := range c.TLS().Certificate {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// KeyPEM returns the key.
func (c *Cert) KeyPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(c.Key)
	if err != nil {
		c.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Write writes NAME.pem and NAME.key into a directory and returns their paths.
func (c *Cert) Write(dir, name string) (cert, key string) {
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, b := range map[string][]byte{cert: c.CertPEM(), key: c.KeyPEM()} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	return cert, key
}
