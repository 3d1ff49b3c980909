//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tlsSpec says how the load generator speaks TLS 1.3.
type tlsSpec struct {
	cert     []byte      // the certificate that it must meet, DER
	group    tls.CurveID // the one key exchange that it offers
	protocol string      // of ALPN
}

const serverName = "bench.example"

// cipher is what all proxies must agree to: what is measured is not who has
// which taste.
const cipher = tls.TLS_AES_128_GCM_SHA256

func (s *tlsSpec) config() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{s.group},
		NextProtos:       []string{s.protocol},
		ServerName:       serverName,
		// Our certificate, byte for byte, is all that passes: cheaper than a
		// chain, and the signature of the handshake is checked all the same.
		InsecureSkipVerify: true,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) == 0 || !bytes.Equal(raw[0], s.cert) {
				return errors.New("another certificate")
			}
			return nil
		},
		DynamicRecordSizingDisabled: true,
	}
}

// agreed is an error if the handshake ended with anything else than what is
// measured.
func (s *tlsSpec) agreed(state *tls.ConnectionState) error {
	switch {
	case state.Version != tls.VersionTLS13:
		return fmt.Errorf("TLS version %x", state.Version)
	case state.CipherSuite != cipher:
		return fmt.Errorf("cipher %s", tls.CipherSuiteName(state.CipherSuite))
	case state.CurveID != s.group:
		return fmt.Errorf("group %v", state.CurveID)
	case state.NegotiatedProtocol != s.protocol && (s.protocol != protoHTTP1 || state.NegotiatedProtocol != ""):
		return fmt.Errorf("ALPN %q", state.NegotiatedProtocol)
	}
	return nil
}

const (
	protoHTTP1 = "http/1.1"
	protoHTTP2 = "h2"
)

// tlsPipe is crypto/tls between bytes and bytes, so that the load generator's
// one thread keeps the sockets. During the handshake alone it reads and writes
// its socket itself, and blocks.
type tlsPipe struct {
	fd    int
	conn  *tls.Conn
	shook bool
	src   []byte // what was read from the socket and not yet decrypted
	out   []byte // what is to be written to it
}

// handshakeWait is how long a handshake may take.
const handshakeWait = 20 * time.Second

// handshake makes a pipe on a connected socket.
func handshake(fd int, spec *tlsSpec, config *tls.Config) (*tlsPipe, error) {
	p := &tlsPipe{fd: fd}
	p.conn = tls.Client(p, config)
	if err := p.conn.Handshake(); err != nil {
		return nil, err
	}
	state := p.conn.ConnectionState()
	if err := spec.agreed(&state); err != nil {
		return nil, err
	}
	p.shook = true
	return p, nil
}

// errNoBytes is what a read has when the socket is empty. crypto/tls takes an
// error that says it is temporary for no end of the connection.
type errNoBytes struct{}

func (errNoBytes) Error() string   { return "no bytes yet" }
func (errNoBytes) Timeout() bool   { return true }
func (errNoBytes) Temporary() bool { return true }

// Read is for crypto/tls.
func (p *tlsPipe) Read(b []byte) (int, error) {
	if p.shook {
		if len(p.src) == 0 {
			return 0, errNoBytes{}
		}
		n := copy(b, p.src)
		p.src = p.src[n:]
		return n, nil
	}
	for {
		n, errno := rawRead(p.fd, b)
		switch {
		case errno == syscall.EAGAIN:
			if err := await(p.fd, unix.POLLIN); err != nil {
				return 0, err
			}
		case errno == syscall.EINTR:
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.ErrUnexpectedEOF
		default:
			return n, nil
		}
	}
}

// Write is for crypto/tls.
func (p *tlsPipe) Write(b []byte) (int, error) {
	if p.shook {
		p.out = append(p.out, b...)
		return len(b), nil
	}
	for rest := b; len(rest) > 0; {
		n, errno := rawWrite(p.fd, rest)
		switch {
		case errno == syscall.EAGAIN:
			if err := await(p.fd, unix.POLLOUT); err != nil {
				return 0, err
			}
		case errno == syscall.EINTR:
		case errno != 0:
			return 0, errno
		default:
			rest = rest[n:]
		}
	}
	return len(b), nil
}

// await blocks until the socket can be read or written.
func await(fd int, event int16) error {
	for end := time.Now().Add(handshakeWait); time.Now().Before(end); {
		set := []unix.PollFd{{Fd: int32(fd), Events: event}}
		if n, err := unix.Poll(set, 1000); n > 0 || err != nil && err != unix.EINTR {
			return err
		}
	}
	return errors.New("the handshake takes too long")
}

// decrypt appends what is in b, which came from the socket. At the end of the
// other side's bytes the error is io.EOF.
func (p *tlsPipe) decrypt(dst, b []byte) ([]byte, error) {
	p.src = b
	for {
		dst = slices.Grow(dst, 16<<10)
		n, err := p.conn.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if _, empty := err.(errNoBytes); empty {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// encrypt adds b to what is to be written.
func (p *tlsPipe) encrypt(b []byte) error {
	_, err := p.conn.Write(b)
	return err
}

// The rest of a net.Conn, which crypto/tls does not use here.

func (p *tlsPipe) Close() error                     { return nil }
func (p *tlsPipe) LocalAddr() net.Addr              { return nil }
func (p *tlsPipe) RemoteAddr() net.Addr             { return nil }
func (p *tlsPipe) SetDeadline(time.Time) error      { return nil }
func (p *tlsPipe) SetReadDeadline(time.Time) error  { return nil }
func (p *tlsPipe) SetWriteDeadline(time.Time) error { return nil }
