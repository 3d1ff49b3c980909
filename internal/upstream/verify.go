package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// Suites are those for TLS 1.2 that give forward secrecy and authenticated
// encryption.
var Suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Verifier verifies what crypto/tls alone does not know how to. Immutable once
// used.
type Verifier struct {
	Roots       *x509.CertPool // nil: the system's
	Chain, Name bool           // whether each is verified
	Names       []string       // one of them
	CommonName  bool           // stands in for DNS names, where there are none
}

// Verify is a tls.Config's VerifyConnection.
func (v *Verifier) Verify(cs tls.ConnectionState) error {
	if !v.Chain && !v.Name {
		return nil
	}
	if len(cs.PeerCertificates) == 0 {
		return &tls.CertificateVerificationError{Err: errors.New("there is none")}
	}
	err := v.chain(cs.PeerCertificates)
	if err == nil && v.Name {
		err = v.names(cs.PeerCertificates[0])
	}
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
	}
	return nil
}

func (v *Verifier) chain(chain []*x509.Certificate) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: v.Roots, Intermediates: between})
	return err
}

// names: RFC 9525, section 6: one of the names has to be in the certificate.
func (v *Verifier) names(leaf *x509.Certificate) error {
	if v.CommonName && len(leaf.DNSNames) == 0 {
		leaf = &x509.Certificate{DNSNames: []string{leaf.Subject.CommonName}, IPAddresses: leaf.IPAddresses}
	}
	var first error
	for _, name := range v.Names {
		err := leaf.VerifyHostname(name)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}
