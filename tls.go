package cirque

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// TLSDigest holds the facts of a TLS connection, made once per connection. It
// is immutable and may be kept.
type TLSDigest struct {
	Version    string // "TLS 1.3"
	Cipher     string // "TLS_AES_128_GCM_SHA256"
	Group      string // of the key exchange: "X25519MLKEM768"
	ServerName string // that the client asked for, in lower case; "" for none
	Protocol   string // chosen by ALPN; "" for none
	Resumed    bool   // without a full handshake
	// Certificate is that of the other end: a client's, where one is asked for, or
	// an origin's. It is nil if there was none.
	Certificate *CertificateDigest
}

// CertificateDigest holds the facts of a certificate.
type CertificateDigest struct {
	Subject      string // as RFC 2253 writes it
	Organization string // the first, or ""
	Serial       string // hexadecimal
	SHA256       string // of the whole certificate, hexadecimal
	// Chain is the certificate itself and what the other end sent with it. It must
	// not be changed.
	Chain []*x509.Certificate

	once                sync.Once
	leafText, aboveText []byte // set by once
}

func newTLSDigest(cs *tls.ConnectionState) *TLSDigest {
	d := &TLSDigest{
		Version: tls.VersionName(cs.Version), Cipher: tls.CipherSuiteName(cs.CipherSuite),
		ServerName: strings.ToLower(cs.ServerName), Protocol: cs.NegotiatedProtocol, Resumed: cs.DidResume,
	}
	if cs.CurveID != 0 {
		d.Group = cs.CurveID.String()
	}
	if len(cs.PeerCertificates) > 0 {
		leaf := cs.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		d.Certificate = &CertificateDigest{
			Subject: leaf.Subject.String(), Serial: leaf.SerialNumber.Text(16),
			SHA256: hex.EncodeToString(sum[:]), Chain: cs.PeerCertificates,
		}
		if o := leaf.Subject.Organization; len(o) > 0 {
			d.Certificate.Organization = o[0]
		}
	}
	return d
}

// Handshake is a TLS handshake with a client that has just been completed. It is
// valid during the call that gets it.
type Handshake struct{ c *conn }

// TLS returns its outcome.
func (h *Handshake) TLS() *TLSDigest { return h.c.tls }

// ClientAddr returns what Session.ClientAddr will.
func (h *Handshake) ClientAddr() netip.AddrPort { return h.c.clientAddr }

// Listener returns what Session.Listener will.
func (h *Handshake) Listener() string { return h.c.listener }

// SetHandshake stores a value for the sessions of the connection, before the
// first of them.
func (k *ConnKey[T]) SetHandshake(h *Handshake, v T) { setSlot(&h.c.slots, k.index, v) }

// TLS returns the facts of the client's TLS connection, or nil.
func (s *Session) TLS() *TLSDigest { return s.conn.tls }

// setTLS notes the outcome of a completed handshake.
func (c *conn) setTLS(t *tls.Conn) {
	cs := t.ConnectionState()
	c.tls, c.scheme = newTLSDigest(&cs), schemeHTTPS
	c.tlsState = func() *tls.ConnectionState {
		cs := t.ConnectionState()
		return &cs
	}
}

// state returns the connection's TLS state as net/http has it, or nil.
func (c *conn) state() *tls.ConnectionState {
	if c.tlsState == nil {
		return nil
	}
	return c.tlsState()
}

// handshake does the TLS handshake of a connection, on its goroutine. It
// returns nil when that failed and everything is over.
func (srv *Server) handshake(nc net.Conn, l *listener, c *conn) *tls.Conn {
	if !srv.beginHandshake(nc) {
		nc.Close()
		return nil
	}
	defer srv.endHandshake(nc)
	// A client that sends nothing, or a byte now and then, must not hold a
	// connection for ever.
	if d := l.tls.Timeout(); d > 0 {
		_ = nc.SetDeadline(time.Now().Add(d))
	}
	sock := wire.NewSock(nc)
	tc := tls.Server(sock, l.tls.Config())
	err := sock.Handshake(context.Background(), tc)
	if err == nil {
		_ = nc.SetDeadline(time.Time{})
		c.setTLS(tc)
		c.terms = l.tls
		err = srv.handshaken(c)
	}
	if err == nil {
		return tc
	}
	srv.handshakeFailed(nc, c, err)
	return nil
}

// handshaken runs the program's hook.
func (srv *Server) handshaken(c *conn) (err error) {
	if srv.Handshaken == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			srv.panics.Add(1)
			srv.logger().Error("Handshaken panicked", "panic", v)
			err = &reason.Error{Reason: reason.HookPanic}
		}
	}()
	if err := srv.Handshaken(&Handshake{c}); err != nil {
		return &reason.Error{Reason: reason.FilterRefused, Err: err}
	}
	return nil
}

// beginHandshake lets Shutdown and Close find the connection.
func (srv *Server) beginHandshake(nc net.Conn) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if !srv.closing {
		srv.handshakes[nc] = struct{}{}
	}
	return !srv.closing
}

func (srv *Server) endHandshake(nc net.Conn) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.handshakes, nc)
	srv.emptiedLocked()
}

// handshakeFailed ends, counts and logs a connection without a session.
func (srv *Server) handshakeFailed(nc net.Conn, c *conn, err error) {
	r := downstream.HandshakeReason(err)
	if errors.Is(err, net.ErrClosed) && srv.isClosing() {
		r = reason.ServerClosed
	}
	srv.ends[r].Add(1)
	var rh tls.RecordHeaderError
	if errors.As(err, &rh) && rh.Conn != nil && downstream.LooksLikeHTTP(rh.RecordHeader) {
		_, _ = io.WriteString(nc, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port speaks HTTPS, not HTTP.\n")
	}
	nc.Close()
	level := slog.LevelDebug // most are scanners, health checks and users who went on
	if r == reason.TLSClientCertificate {
		level = slog.LevelInfo
	}
	srv.logger().LogAttrs(context.Background(), level, "TLS handshake failed",
		slog.String("reason", r.String()), slog.String("client", nc.RemoteAddr().String()),
		slog.String("listener", c.listener), slog.Any("cause", err))
}

// misdirected reports whether the request is for a host with another TLS policy
// than its connection has: a client that identified itself for one name, or did
// not, must not reach another by it.
//
// RFC 9110, section 15.5.20: 421 tells the client to use another connection.
func (s *Session) misdirected() bool {
	c := s.conn
	return c.terms != nil && c.terms.Misdirected(c.tls.ServerName, s.req.HostView())
}
