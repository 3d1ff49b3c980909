package cirque_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/listen"
	"github.com/cirqueproxy/cirque/reason"
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
		w.Header().Set("X-Proto", fmt.Sprint("h", r.ProtoMajor))
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

// matrixPeer starts an origin that speaks one protocol, and returns the peer for it.
func matrixPeer(t *testing.T, protocol string) *cirque.Peer {
	t.Helper()
	o := httptest.NewUnstartedServer(http.HandlerFunc(matrixOrigin))
	o.Config.ErrorLog = log.New(io.Discard, "", 0)
	o.Config.Protocols = new(http.Protocols)
	p := &cirque.Peer{}
	switch protocol {
	case "h1", "h1+TLS":
		o.Config.Protocols.SetHTTP1(true)
	case "h2c":
		o.Config.Protocols.SetUnencryptedHTTP2(true)
		p.Protocol = cirque.ProtocolH2C
	case "h2":
		o.Config.Protocols.SetHTTP2(true)
		o.EnableHTTP2 = true
	}
	if protocol == "h1" || protocol == "h2c" {
		o.Start()
	} else {
		o.StartTLS()
		p.TLS = &cirque.PeerTLS{CAs: []*x509.Certificate{o.Certificate()}, ServerName: "example.com"}
	}
	t.Cleanup(o.Close)
	p.Addr = o.Listener.Addr().String()
	return p
}

func startMatrixServer(t *testing.T, peer *cirque.Peer) (plain, secure string, pool *x509.CertPool) {
	t.Helper()
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS() // for its certificate
	pool = x509.NewCertPool()
	pool.AddCert(certs.Certificate())
	cert := certs.TLS.Certificates[0]
	certs.Close()
	transport := &cirque.Transport{}
	srv := &cirque.Server{H2C: true, Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Transport: transport, Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	var wg sync.WaitGroup
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = srv.Serve(l) })
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	policy := &listen.TLS{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }}
	wg.Go(func() { _ = srv.ServeTLS(s, policy) })
	t.Cleanup(func() {
		_ = srv.Close()
		wg.Wait()
		transport.Close()
	})
	return "http://" + l.Addr().String(), "https://" + s.Addr().String(), pool
}

func TestMatrix(t *testing.T) {
	for _, up := range matrixProtocols {
		t.Run("to "+up, func(t *testing.T) {
			plain, secure, pool := startMatrixServer(t, matrixPeer(t, up))
			for _, down := range matrixProtocols {
				t.Run("from "+down, func(t *testing.T) {
					base := plain
					if down == "h2" || down == "h1+TLS" {
						base = secure
					}
					matrixBodies(t, matrixClient(t, down, pool), base, down, up)
				})
			}
		})
	}
}

// matrixBodies is what every pair of protocols has to carry.
func matrixBodies(t *testing.T, c *http.Client, base, down, up string) {
	do := func(method, path string, body io.Reader) (*http.Response, string, error) {
		t.Helper()
		req, _ := http.NewRequestWithContext(context.Background(), method, base+path, body)
		req.Header.Add("Cookie", "a=1; b=2")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if want := up[:2]; resp.Header.Get("X-Proto") != "" && !strings.HasPrefix(resp.Header.Get("X-Proto"), want) {
			t.Errorf("the origin was asked in %s", resp.Header.Get("X-Proto"))
		}
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
	large := 3 << 20
	if raceEnabled {
		large = 300 << 10
	}
	for _, size := range []int{1, 1000, 16<<10 + 1, large} {
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

// TestHTTP2ClientLeaves: a client that closes its connection, or resets its stream,
// while the origin is silent ends the session for that reason, not for the origin's.
func TestHTTP2ClientLeaves(t *testing.T) {
	for _, how := range []string{"close", "cancel", "close before the head", "cancel before the head"} {
		silent := make(chan struct{}, 1)
		b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(how, "head") {
				_ = http.NewResponseController(w).Flush()
			}
			silent <- struct{}{}
			<-r.Context().Done()
		}))
		b.srv.H2C = true
		b.start()
		var conn net.Conn
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: p, DialContext: func(ctx context.Context, network, addr string) (nc net.Conn, err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return conn, err
		}}
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+b.addr+"/", nil)
		gotc := make(chan *http.Response, 1)
		go func() {
			resp, _ := tr.RoundTrip(req)
			gotc <- resp
		}()
		<-silent
		if !strings.HasSuffix(how, "head") {
			resp := <-gotc
			defer resp.Body.Close()
		}
		if strings.HasPrefix(how, "close") {
			conn.Close()
		} else {
			cancel()
		}
		var e *cirque.Error
		if err := <-b.donec; !errors.As(err, &e) || e.Reason != reason.ClientGone {
			t.Errorf("%s: %v", how, err)
		}
		if st := b.proxy.Transport.Stats(); st.Connects != 1 {
			t.Errorf("%s: %d attempts", how, st.Connects)
		}
		cancel()
		tr.CloseIdleConnections()
	}
}
