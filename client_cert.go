package cirque

import (
	"encoding/base64"

	"github.com/cirqueproxy/cirque/message"
)

// fields returns the certificate, and those that came with it, as RFC 9440 has
// them, made at the first call.
//
// RFC 9440, section 2: a byte sequence of structured fields, which is Base64
// between colons, and a list of such.
func (d *CertificateDigest) fields() (leaf, above []byte) {
	d.once.Do(func() {
		for i, c := range d.Chain {
			text := append(base64.StdEncoding.AppendEncode([]byte(":"), c.Raw), ':')
			switch i {
			case 0:
				d.leafText = text
			case 1:
				d.aboveText = text
			default:
				d.aboveText = append(append(d.aboveText, ", "...), text...)
			}
		}
	})
	return d.leafText, d.aboveText
}

// clientCert tells the origin about the client's certificate.
//
// RFC 9440, section 2.4: what a client sent in these fields is removed, whether
// or not they are set.
func (s *Session) clientCert(h *message.Header) {
	f := &s.proxy.Forwarding
	known := s.conn.tls != nil && s.conn.tls.Certificate != nil
	if h.HasID(message.IDClientCert) || h.HasID(message.IDClientCertChain) {
		if known || !f.trusts(s) {
			h.DelID(message.IDClientCert)
			h.DelID(message.IDClientCertChain)
		}
	}
	if !known || !f.ClientCert && !f.ClientCertChain {
		return
	}
	leaf, above := s.conn.tls.Certificate.fields()
	if f.ClientCert {
		h.SetID(message.IDClientCert, leaf)
	}
	if f.ClientCertChain && len(above) > 0 {
		h.SetID(message.IDClientCertChain, above)
	}
}
