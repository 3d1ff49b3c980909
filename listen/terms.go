package listen

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// terms is a Policy at work: the configuration of its handshakes, made anew when
// the ticket keys or the CAs of clients change.
type terms struct {
	t       *TLS
	p       *Policy
	id      string // listener and name: tells tickets of different policies apart
	tickets *Tickets

	made atomic.Pointer[madeTerms]
	mu   sync.Mutex // held while they are made
}

// madeTerms is immutable.
type madeTerms struct {
	cfg  *tls.Config
	keys *ticketKeys
	cas  *casMade
}

func (t *TLS) newTerms(listener, name string, p *Policy, tickets *Tickets) (*terms, error) {
	if p.ClientAuth != ClientAuthOff && p.ClientCAs == nil {
		return nil, fmt.Errorf("client certificates are %sed without the CAs that issue them", p.ClientAuth)
	}
	if p.MaxVersion != 0 && p.MaxVersion < max(p.MinVersion, tls.VersionTLS12) {
		return nil, errors.New("the newest version of TLS is older than the oldest")
	}
	if t.NoTickets {
		tickets = nil
	}
	tm := &terms{t: t, p: p, tickets: tickets, id: fmt.Sprintf("%d:%s%d:%s%d,%d,%d", len(listener), listener, len(name), name, p.ClientAuth, p.MinVersion, p.MaxVersion)}
	_, err := tm.config(time.Now())
	return tm, err
}

// config returns the configuration of a handshake that begins now.
func (tm *terms) config(now time.Time) (*tls.Config, error) {
	var keys *ticketKeys
	if tm.tickets != nil {
		keys = tm.tickets.at(now)
	}
	var cas *casMade
	if tm.p.ClientAuth != ClientAuthOff {
		cas = tm.p.ClientCAs.made.Load()
	}
	if m := tm.made.Load(); m != nil && m.keys == keys && m.cas == cas {
		return m.cfg, nil
	}
	tm.mu.Lock()
	defer tm.mu.Unlock()
	if m := tm.made.Load(); m != nil && m.keys == keys && m.cas == cas {
		return m.cfg, nil
	}
	cfg, err := tm.build(keys, cas)
	if err != nil {
		return nil, err
	}
	tm.made.Store(&madeTerms{cfg, keys, cas})
	return cfg, nil
}

func (tm *terms) build(keys *ticketKeys, cas *casMade) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion: max(tm.p.MinVersion, tls.VersionTLS12), MaxVersion: tm.p.MaxVersion,
		CipherSuites: suites, CurvePreferences: groups,
		NextProtos:             tm.t.Protocols,
		GetCertificate:         tm.t.certificate,
		SessionTicketsDisabled: keys == nil,
		// A record for each write, up to the largest: a small response is one record
		// and one packet in any case.
		DynamicRecordSizingDisabled: true,
	}
	if cfg.NextProtos == nil {
		cfg.NextProtos = protocols()
	}
	id := tm.id
	if cas != nil {
		cfg.ClientCAs = cas.pool
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
		if tm.p.ClientAuth == ClientAuthRequire {
			cfg.ClientAuth = tls.RequireAndVerifyClientCert
		}
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return tm.p.verifyResumed(cas, &cs) }
		id += string(cas.sum[:])
	}
	if keys != nil {
		derived, err := keys.derive(id)
		if err != nil {
			return nil, err
		}
		cfg.SetSessionTicketKeys(derived)
	}
	return cfg, nil
}

// verifyResumed checks the client of a resumed session as if it had just shown
// its certificate. The keys of its ticket were those of this policy and of these
// CAs, so it is a second lock on the same door: who may come in is not left to
// one.
func (p *Policy) verifyResumed(cas *casMade, cs *tls.ConnectionState) error {
	if !cs.DidResume {
		return nil
	}
	if len(cs.PeerCertificates) == 0 {
		if p.ClientAuth == ClientAuthRequire {
			return errors.New("a resumed session without a client certificate")
		}
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: cas.pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// CAs are the authorities whose certificates are believed. They may come from a
// file and follow it. Its methods may be called from any goroutine.
type CAs struct {
	file string
	made atomic.Pointer[casMade]
	mu   sync.Mutex // held while they are read
}

// casMade is immutable.
type casMade struct {
	certs []*x509.Certificate
	pool  *x509.CertPool
	sum   [sha256.Size]byte // tells one generation from another
}

// NewCAs returns the authorities.
func NewCAs(certs ...*x509.Certificate) *CAs {
	c := &CAs{}
	c.made.Store(newCAsMade(certs))
	return c
}

// LoadCAs reads authorities from a PEM file.
func LoadCAs(file string) (*CAs, error) {
	c := &CAs{file: file}
	_, err := c.Reload()
	return c, err
}

// Reload reads the file again and reports whether the authorities changed. If
// it cannot be used they stay.
func (c *CAs) Reload() (changed bool, err error) {
	if c.file == "" {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	text, err := readPEM(c.file)
	if err != nil {
		return false, fmt.Errorf("%s: %w", c.file, err)
	}
	certs, err := ParseCertificates(text)
	if err != nil {
		return false, fmt.Errorf("%s: %w", c.file, err)
	}
	m := newCAsMade(certs)
	if old := c.made.Load(); old != nil && old.sum == m.sum {
		return false, nil
	}
	c.made.Store(m)
	return true, nil
}

// Certificates returns the authorities. They must not be changed.
func (c *CAs) Certificates() []*x509.Certificate { return c.made.Load().certs }

func newCAsMade(certs []*x509.Certificate) *casMade {
	m := &casMade{certs: certs, pool: x509.NewCertPool()}
	h := sha256.New()
	for _, c := range certs {
		m.pool.AddCert(c)
		sum := sha256.Sum256(c.Raw)
		h.Write(sum[:])
	}
	h.Sum(m.sum[:0])
	return m
}
