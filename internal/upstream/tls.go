package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// secure does the handshake of a connection that was just made.
func (p *Pool) secure(ctx context.Context, e *Entry, t *Target, w Want, nc net.Conn) (net.Conn, error) {
	if t.TLS == nil {
		return nc, nil
	}
	if w.Handshake > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, w.Handshake, errHandshakeTimeout)
		defer stop()
	}
	sock := wire.NewSock(nc)
	tc := tls.Client(sock, e.tls(p, t, w.HTTP1))
	if err := sock.Handshake(ctx, tc); err != nil {
		nc.Close()
		return nil, handshakeError(ctx, err)
	}
	return tc, nil
}

var (
	errHandshakeTimeout = &reason.Error{Reason: reason.UpstreamTLSTimeout, Err: context.DeadlineExceeded}
	errConnectTotal     = &reason.Error{Reason: reason.ConnectTotal, Err: context.DeadlineExceeded}
)

// tls returns the configuration of the entry's handshakes. Each entry has a
// session to resume of its own: what it proves was proved to the identity in the
// entry's key, and to no other.
func (e *Entry) tls(p *Pool, t *Target, http1 bool) *tls.Config {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.config == nil {
		e.config = t.TLS.Clone()
		e.config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		e.config.KeyLogWriter = p.cfg.KeyLog
	}
	if http1 && t.HTTP2 == HTTP2Auto {
		// No HTTP/2 is offered to an origin that does not want it, nor for an
		// exchange that cannot be one.
		c := e.config.Clone()
		c.NextProtos = []string{"http/1.1"}
		return c
	}
	return e.config
}

// handshakeError gives a failed handshake its reason.
func handshakeError(ctx context.Context, err error) error {
	var known *reason.Error
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(context.Cause(ctx), &known), errors.As(err, &known):
		return known
	case errors.As(err, &cert):
		return &reason.Error{Reason: reason.UpstreamTLSCertificate, Err: err}
	case isAlert(err):
		return &reason.Error{Reason: reason.UpstreamTLSAlert, Err: err}
	}
	return &reason.Error{Reason: reason.UpstreamTLS, Err: err}
}

// isAlert reports whether the other end ended the connection by an alert of
// TLS. One that does not believe our certificate may say so after the handshake
// is complete for us.
//
// RFC 8446, section 6.2.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
