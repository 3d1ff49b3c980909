//go:build outer

package main

//lint:file-ignore SA1019 net/http's Transport, which it names instead, takes no :protocol.

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"

	"golang.org/x/net/http2"
)

// way is what carries a conversation.
type way struct {
	http.RoundTripper
	close func()
	half  func() error // ends the client's direction
}

// way returns what carries the conversation's handshake.
func (t talk) way() (*way, error) {
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil || !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %w", t.CA, err)
		}
	}
	w := &way{close: func() {}}
	if !t.HTTP2 {
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if t.CA != "" {
				cfg.ServerName, _, _ = net.SplitHostPort(addr)
				tc := tls.Client(nc, cfg)
				nc, w.half = tc, tc.CloseWrite
			} else {
				w.half = nc.(*net.TCPConn).CloseWrite
			}
			return &earlyConn{nc, t.earlyFrame()}, nil
		}
		w.RoundTripper = &http.Transport{DisableKeepAlives: true, DialContext: dial, DialTLSContext: dial}
		return w, nil
	}
	tr := &http2.Transport{TLSClientConfig: cfg}
	if t.CA == "" {
		tr.AllowHTTP = true
		tr.DialTLSContext = func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	}
	w.RoundTripper, w.close = extendedConnect{tr, w, t.earlyFrame()}, tr.CloseIdleConnections
	return w, nil
}

// earlyFrame is the frame that the conversation has behind its handshake.
//
// RFC 6455, section 5.2.
func (t talk) earlyFrame() []byte {
	if t.Early == "" {
		return nil
	}
	b := []byte{0x81, 0x80 | 126, byte(len(t.Early) >> 8), byte(len(t.Early))}
	if len(t.Early) < 126 {
		b = []byte{0x81, 0x80 | byte(len(t.Early))}
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i := range len(t.Early) {
		b = append(b, t.Early[i]^mask[i%4])
	}
	return b
}

// earlyConn sends the early frame together with the handshake, before there is an
// answer.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Write(p []byte) (int, error) {
	all := slices.Concat(p, c.early)
	c.early = nil
	n, err := c.Conn.Write(all)
	return min(n, len(p)), err
}

// extendedConnect makes the handshake of a WebSocket an extended CONNECT, so that a
// library which knows HTTP/1.1 alone talks over HTTP/2.
//
// RFC 8441, section 5.
type extendedConnect struct {
	tr    *http2.Transport
	way   *way
	early []byte
}

func (e extendedConnect) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	req := r.Clone(r.Context())
	body := struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(e.early), pr), pr}
	e.way.half = pw.Close
	req.Method, req.Body, req.ContentLength = http.MethodConnect, body, -1
	req.Header.Del("Connection")
	req.Header.Del("Upgrade")
	req.Header.Del("Sec-WebSocket-Key")
	req.Header[":protocol"] = []string{"websocket"}
	resp, err := e.tr.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	resp.StatusCode = http.StatusSwitchingProtocols
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	resp.Body = &extendedBody{resp.Body, pw}
	return resp, nil
}

// extendedBody is the stream as the connection that the library expects.
type extendedBody struct {
	io.ReadCloser
	w *io.PipeWriter
}

func (b *extendedBody) Write(p []byte) (int, error) { return b.w.Write(p) }

func (b *extendedBody) Close() error {
	_ = b.w.Close()
	return b.ReadCloser.Close()
}
