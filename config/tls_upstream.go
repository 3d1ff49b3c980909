package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/listen"
)

// UpstreamTLS says how connections to the peers of an upstream are secured.
type UpstreamTLS struct {
	ServerName        string
	AltName           string
	CA                string // a file; "" for the system's
	Verify            string
	AllowCommonName   bool
	ClientCertificate *KeyPair // nil: none
	MinVersion        string

	built *cirque.PeerTLS // nil before its files were read
}

var upstreamTLSKind = object(
	at("server_name", text("a host name or an IP address", nil), func(t *UpstreamTLS) *string { return &t.ServerName }, "",
		"What peers are asked for and must prove to be. Required where an address has no host name.").unset("the host in the peer's address"),
	at("alt_name", text("a host name or an IP address", nil), func(t *UpstreamTLS) *string { return &t.AltName }, "",
		"Another name that they may prove to be instead.").unset("none"),
	at("ca", filePath, func(t *UpstreamTLS) *string { return &t.CA }, "",
		"The PEM file of the CAs that issue their certificates.").unset("the system's"),
	at("verify", verifyKind, func(t *UpstreamTLS) *string { return &t.Verify }, "full",
		"full: a CA issued the certificate, for the name. chain: for whatever name; who has a certificate for any can stand in for the peer. off: nothing is verified; who is on the way can."),
	at("allow_common_name", boolean, func(t *UpstreamTLS) *bool { return &t.AllowCommonName }, "false",
		"Take the common name of a certificate that has no DNS names for one, as OpenSSL does."),
	at("client_certificate", optional(keyPairKind), func(t *UpstreamTLS) **KeyPair { return &t.ClientCertificate }, "",
		"The certificate, with its intermediates, for peers that ask who we are.").unset("none"),
	at("min_version", tlsVersion, func(t *UpstreamTLS) *string { return &t.MinVersion }, "1.2", "The oldest version of TLS."),
)

// verifyKind takes true and false too, since that is what the name suggests.
var verifyKind = scalarKind("one of full, chain, off", []string{"!!str", "!!bool"}, func(s string, dst *string) string {
	switch s {
	case "true":
		s = "full"
	case "false":
		s = "off"
	case "full", "chain", "off":
	default:
		return fmt.Sprintf("want one of full, chain, off, got %q%s", s, didYouMean(s, []string{"full", "chain", "off"}))
	}
	*dst = s
	return ""
}, dumpText, map[string]any{"enum": []any{"full", "chain", "off", true, false}})

// protocols are what an upstream can speak.
var protocols = map[string]cirque.Protocol{
	"auto": cirque.ProtocolAuto, "http1": cirque.ProtocolHTTP1, "http2": cirque.ProtocolHTTP2, "h2c": cirque.ProtocolH2C,
}

// load reads the files of t.
func (t *UpstreamTLS) load(dir string) (*cirque.PeerTLS, []fileError) {
	var errs []fileError
	out := &cirque.PeerTLS{ServerName: t.ServerName, AltName: t.AltName, AllowCommonName: t.AllowCommonName, MinVersion: tlsVersions[t.MinVersion]}
	switch t.Verify {
	case "chain":
		out.Verify = cirque.InsecureVerifyChain
	case "off":
		out.Verify = cirque.InsecureVerifyNone
	}
	if t.CA != "" {
		cas, err := listen.LoadCAs(inDir(dir, t.CA))
		if err != nil {
			errs = append(errs, fileError{&t.CA, err.Error()})
		} else {
			out.CAs = cas.Certificates()
		}
	}
	if c := t.ClientCertificate; c != nil {
		certs := loadPairs(dir, []*KeyPair{c}, &errs)
		if certs != nil && len(certs.All()) > 0 {
			out.Certificates = []tls.Certificate{*certs.All()[0]}
		}
	}
	return out, errs
}

// peerTLS returns t with its files read.
func (t *UpstreamTLS) peerTLS(dir string) (*cirque.PeerTLS, error) {
	if t == nil || t.built != nil {
		return t.already(), nil
	}
	out, errs := t.load(dir)
	return out, joinFileErrors(errs)
}

func (t *UpstreamTLS) already() *cirque.PeerTLS {
	if t == nil {
		return nil
	}
	return t.built
}

// loadUpstreamTLS is loadTLS for the upstreams.
func (r *reader) loadUpstreamTLS() {
	for _, u := range r.cfg.Upstreams {
		if u.TLS == nil {
			continue
		}
		t, errs := u.TLS.load(r.cfg.dir)
		if len(errs) == 0 {
			u.TLS.built = t
		}
		for _, e := range errs {
			r.failAt(e.at, u.TLS, "upstreams.%s.tls: %s", u.Name, e.text)
		}
	}
}

// checkGRPCWeb reports a route whose upstream cannot serve it.
func (r *reader) checkGRPCWeb(rt *Route, at string) {
	i := slices.IndexFunc(r.cfg.Upstreams, func(u *Upstream) bool { return u.Name == rt.Upstream })
	if !rt.Settings.GRPCWeb || i < 0 {
		return
	}
	if u := r.cfg.Upstreams[i]; u.Protocol == "http1" || u.Protocol == "auto" && u.TLS == nil {
		r.failAt(&rt.Settings.GRPCWeb, rt, "%s.grpc_web: upstream %q speaks HTTP/1, and gRPC is HTTP/2: give it the protocol h2c, or http2 with tls", at, u.Name)
	}
}

// checkUpstreamTLS reports peers whose TLS cannot be meant.
func (r *reader) checkUpstreamTLS(u *Upstream) {
	if u.Protocol == "h2c" && u.TLS != nil {
		r.failAt(&u.Protocol, u, "upstreams.%s.protocol: h2c is HTTP/2 without TLS, and there is tls; want http2", u.Name)
		return
	}
	if u.Protocol == "http2" && u.TLS == nil {
		r.failAt(&u.Protocol, u, "upstreams.%s.protocol: HTTP/2 without TLS is called h2c", u.Name)
		return
	}
	if u.TLS == nil || u.TLS.ServerName != "" || u.TLS.Verify != "full" {
		return
	}
	for i, p := range u.Peers {
		if p.Address == "" || r.broken[&p.Address] {
			continue
		}
		if err := (&cirque.Peer{Addr: p.Address, TLS: &cirque.PeerTLS{}}).Validate(); err != nil {
			r.failAt(&p.Address, p, "upstreams.%s.peers.%d: %s has no host name to verify: set tls.server_name", u.Name, i+1, p.Address)
		}
	}
}

func joinFileErrors(errs []fileError) error {
	if len(errs) == 0 {
		return nil
	}
	texts := make([]string, len(errs))
	for i, e := range errs {
		texts[i] = e.text
	}
	return errors.New(strings.Join(texts, "\n"))
}
