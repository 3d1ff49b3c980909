package cirque_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/listen"
)

// protocols of a side in the matrix. RFC 9113, section 3.2: over TLS the handshake
// settles it; section 3.3: without, one knows beforehand.
var matrixProtocols = []string{"h1", "h1+TLS", "h2", "h2c"}

// matrixClient returns a client that speaks the protocol, and its URL's beginning.
func matrixClient(t *testing.T, protocol string, pool *x509.CertPool) *http.Client {
	p := new(http.Protocols)
	switch protocol {
	case "h2c":
		p.SetUnencryptedHTTP2(true)
	case "h2":
		p.SetHTTP2(true)
	default:
		p.SetHTTP1(true)
	}
	tr := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// matrixOrigin answers what the bodies of the matrix ask.
func matrixOrigin(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/echo":
		w.Header().Set("Content-Type", "text/plain")
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Cookie", r.Header.Get("Cookie"))
		_, _ = io.Copy(w, r.Body)
	case "/trailer":
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "7")
	case "/early":
		w.Header().Set("Link", "</x>")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	case "/cut":
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func startMatrixServer(t *testing.T, origin string) (plain, secure string, pool *x509.CertPool) {
	t.Helper()
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS() // for its certificate
	pool = x509.NewCertPool()
	pool.AddCert(certs.Certificate())
	cert := certs.TLS.Certificates[0]
	certs.Close()
	peer := cirque.NewPeer(origin)
	transport := &cirque.Transport{}
	srv := &cirque.Server{H2C: true, Proxy: &cirque.Proxy{
		Transport: transport, Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	donec := make(chan struct{}, 2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l); donec <- struct{}{} }()
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	policy := &listen.TLS{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }}
	go func() { _ = srv.ServeTLS(s, policy); donec <- struct{}{} }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-donec
		<-donec
		transport.Close()
	})
	return "http://" + l.Addr().String(), "https://" + s.Addr().String(), pool
}

func TestMatrix(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(matrixOrigin))
	t.Cleanup(origin.Close)
	plain, secure, pool := startMatrixServer(t, strings.TrimPrefix(origin.URL, "http://"))
	for _, down := range matrixProtocols {
		t.Run(down, func(t *testing.T) {
			base := plain
			if down == "h2" || down == "h1+TLS" {
				base = secure
			}
			matrixBodies(t, matrixClient(t, down, pool), base, down)
		})
	}
}

// matrixBodies is what every pair of protocols has to carry.
func matrixBodies(t *testing.T, c *http.Client, base, down string) {
	do := func(method, path string, body io.Reader) (*http.Response, string, error) {
		t.Helper()
		req, _ := http.NewRequestWithContext(context.Background(), method, base+path, body)
		req.Header.Add("Cookie", "a=1; b=2")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if want := map[bool]int{true: 2, false: 1}[strings.HasPrefix(down, "h2")]; resp.ProtoMajor != want {
			t.Errorf("answered in HTTP/%d", resp.ProtoMajor)
		}
		b, err := io.ReadAll(resp.Body)
		return resp, string(b), err
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "REPORT"} {
		var body io.Reader
		want := ""
		if method == "POST" || method == "PUT" {
			want = "x=" + method
			body = strings.NewReader(want)
		}
		resp, got, err := do(method, "/echo?q=1", body)
		if err != nil || resp.StatusCode != 200 || got != want || resp.Header.Get("X-Method") != method || resp.Header.Get("X-Cookie") != "a=1; b=2" {
			t.Errorf("%s: %d %q %v, %v", method, resp.StatusCode, got, resp.Header, err)
		}
	}
	for _, size := range []int{1, 1000, 16<<10 + 1, 3 << 20} {
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for _, reader := range []io.Reader{bytes.NewReader(data), io.MultiReader(bytes.NewReader(data))} {
			if _, got, err := do("POST", "/echo", reader); err != nil || got != string(data) {
				t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
			}
		}
	}
	if resp, got, err := do("GET", "/trailer", nil); err != nil || got != "body" || resp.Trailer.Get("X-Sum") != "7" {
		t.Errorf("trailer: %q %v, %v", got, resp.Trailer, err)
	}
	if resp, _, err := do("GET", "/early", nil); err != nil || resp.StatusCode != 204 {
		t.Errorf("after an interim response: %d, %v", resp.StatusCode, err)
	}
	if _, got, err := do("GET", "/cut", nil); err == nil {
		t.Errorf("a cut response ended well: %q", got)
	}
	// Many at a time on one connection.
	errs := make(chan error)
	for i := range 50 {
		go func() {
			want := strings.Repeat(fmt.Sprint(i, " "), 3000)
			resp, err := c.Post(base+"/echo", "text/plain", strings.NewReader(want))
			if err == nil {
				var b []byte
				b, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				if err == nil && string(b) != want {
					err = fmt.Errorf("body %d is another one's", i)
				}
			}
			errs <- err
		}()
	}
	for range 50 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
