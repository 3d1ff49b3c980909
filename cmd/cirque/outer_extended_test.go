//go:build outer

package main

//lint:file-ignore SA1019 net/http's Transport, which it names instead, takes no :protocol.

import (
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

	"golang.org/x/net/http2"
)

// way returns what carries the conversation's handshake, and what ends it.
func (t talk) way() (http.RoundTripper, func(), error) {
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil || !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("%s: %w", t.CA, err)
		}
	}
	if !t.HTTP2 {
		return &http.Transport{DisableKeepAlives: true, TLSClientConfig: cfg}, func() {}, nil
	}
	tr := &http2.Transport{TLSClientConfig: cfg}
	if t.CA == "" {
		tr.AllowHTTP = true
		tr.DialTLSContext = func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	}
	return extendedConnect{tr}, tr.CloseIdleConnections, nil
}

// extendedConnect makes the handshake of a WebSocket an extended CONNECT, so that a
// library which knows HTTP/1.1 alone talks over HTTP/2.
//
// RFC 8441, section 5.
type extendedConnect struct{ tr *http2.Transport }

func (e extendedConnect) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	req := r.Clone(r.Context())
	req.Method, req.Body, req.ContentLength = http.MethodConnect, pr, -1
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
