package cirque_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/listen"
)

// protocols of a side in the matrix. RFC 9113, section 3.2: over TLS the handshake
// settles it; section 3.3: without, one knows beforehand.
var matrixProtocols = []string{"h1", "h1+TLS", "h2", "h2c"}

// TestMatrix: rows D1, D4, D5, D6, D9, D13, D14: one set of bodies for every pair of
// protocols.
func TestMatrix(t *testing.T) {
	for _, up := range matrixProtocols {
		t.Run("to "+up, func(t *testing.T) {
			o := &matrixOrigin{leftc: make(chan string, 10), beganc: make(chan struct{}, 10), gatec: make(chan struct{})}
			plain, secure, pool := startMatrixServer(t, matrixPeer(t, up, o))
			for _, down := range matrixProtocols {
				t.Run("from "+down, func(t *testing.T) {
					p := &matrixPair{down: down, up: up, base: plain, c: matrixClient(t, down, pool), origin: o}
					if down == "h2" || down == "h1+TLS" {
						p.base = secure
					}
					for _, body := range []struct {
						name string
						test func(*matrixPair, *testing.T)
					}{
						{"methods", (*matrixPair).testMethods},
						{"sizes", (*matrixPair).testSizes},
						{"heads", (*matrixPair).testHeads},
						{"interim", (*matrixPair).testInterim},
						{"trailers", (*matrixPair).testTrailers},
						{"duplex", (*matrixPair).testDuplex},
						{"expect", (*matrixPair).testExpect},
						{"early answer", (*matrixPair).testEarly},
						{"slow origin", (*matrixPair).testSlowOrigin},
						{"client aborts", (*matrixPair).testClientAborts},
						{"origin aborts", (*matrixPair).testOriginAborts},
						{"many", (*matrixPair).testMany},
					} {
						t.Run(body.name, func(t *testing.T) { body.test(p, t) })
					}
				})
			}
		})
	}
}

// matrixPair is a client and an origin, and what they speak with Cirque.
type matrixPair struct {
	down, up, base string
	c              *http.Client
	origin         *matrixOrigin
}

// matrixClient returns a client that speaks the protocol.
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
	tr := &http.Transport{
		Protocols: p, TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true, ExpectContinueTimeout: 20 * time.Second,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// matrixPeer starts an origin that speaks one protocol, and returns the peer for it.
func matrixPeer(t *testing.T, protocol string, h http.Handler) *cirque.Peer {
	t.Helper()
	o := httptest.NewUnstartedServer(h)
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

// matrixOrigin answers what the bodies of the matrix ask.
type matrixOrigin struct {
	leftc  chan string   // the paths of requests whose client left
	beganc chan struct{} // an endless exchange has begun
	gatec  chan struct{} // lets /gated read on
}

func (o *matrixOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, rc := w.Header(), http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	h.Set("X-Proto", fmt.Sprint("h", r.ProtoMajor))
	switch r.URL.Path {
	case "/echo":
		h.Set("Content-Type", "text/plain")
		h.Set("X-Method", r.Method)
		h.Set("X-Cookie", r.Header.Get("Cookie"))
		_, _ = io.Copy(w, r.Body)
	case "/sized":
		h.Set("Content-Length", "5")
		_, _ = io.WriteString(w, "sized")
	case "/304":
		h.Set("ETag", `"x"`)
		w.WriteHeader(http.StatusNotModified)
	case "/trailers":
		h.Set("Trailer", "X-Sum, X-Got")
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
		h.Set("X-Sum", fmt.Sprint(len(b)))
		h.Set("X-Got", r.Trailer.Get("X-Late"))
	case "/interim":
		for i := range 3 {
			h.Set("Link", fmt.Sprintf("</%d>", i))
			w.WriteHeader(http.StatusEarlyHints)
		}
		h.Del("Link")
		w.WriteHeader(http.StatusNoContent)
	case "/duplex":
		_ = rc.Flush()
		b := make([]byte, 1000)
		for n, err := 0, error(nil); err == nil; _ = rc.Flush() {
			n, err = r.Body.Read(b)
			_, _ = w.Write(bytes.ToUpper(b[:n]))
		}
	case "/expect":
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, len(b))
	case "/refuse":
		w.WriteHeader(http.StatusForbidden)
	case "/early":
		_, _ = io.WriteString(w, "I have seen enough")
	case "/gated":
		o.beganc <- struct{}{}
		<-o.gatec
		sum := sha256.New()
		_, _ = io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%x", sum.Sum(nil))
	case "/upload", "/endless", "/silent":
		o.untilLeft(w, r)
	case "/cut":
		h.Set("Content-Length", "100")
		fallthrough
	case "/cut-unsized":
		_, _ = io.WriteString(w, "part")
		_ = rc.Flush()
		panic(http.ErrAbortHandler)
	case "/abort":
		panic(http.ErrAbortHandler)
	case "/digest":
		sum := sha256.New()
		_, _ = io.WriteString(sum, r.URL.RawQuery)
		_, _ = io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%x", sum.Sum(nil))
	}
}

// untilLeft goes on until the other side is gone.
func (o *matrixOrigin) untilLeft(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/upload":
		b := make([]byte, 1000)
		_, err := io.ReadFull(r.Body, b)
		o.beganc <- struct{}{}
		for err == nil {
			_, err = r.Body.Read(b)
		}
		if err == io.EOF {
			return // whole: nobody left
		}
	case "/endless":
		o.beganc <- struct{}{}
		piece := make([]byte, 32<<10)
		for {
			if _, err := w.Write(piece); err != nil {
				break
			}
		}
	case "/silent":
		_ = http.NewResponseController(w).Flush()
		o.beganc <- struct{}{}
		<-r.Context().Done()
	}
	o.leftc <- r.URL.Path
}

func (p *matrixPair) request(method, path string, body io.Reader) *http.Request {
	req, err := http.NewRequest(method, p.base+path, body)
	if err != nil {
		panic(err)
	}
	return req
}

// do makes a request and checks in what it was asked and answered.
func (p *matrixPair) do(t *testing.T, req *http.Request) (*http.Response, string, error) {
	t.Helper()
	resp, err := p.c.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", req.URL.Path, err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("X-Proto"); got != "" && got != p.up[:2] {
		t.Errorf("the origin was asked in %s", got)
	}
	if got := fmt.Sprint("h", resp.ProtoMajor); got != p.down[:2] {
		t.Errorf("answered in %s", got)
	}
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func (p *matrixPair) testMethods(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "REPORT"} {
		var body io.Reader
		want := ""
		if method == "POST" || method == "PUT" {
			want = "x=" + method
			body = strings.NewReader(want)
		}
		req := p.request(method, "/echo?q=1", body)
		req.Header.Add("Cookie", "a=1; b=2")
		resp, got, err := p.do(t, req)
		if err != nil || resp.StatusCode != 200 || got != want || resp.Header.Get("X-Method") != method || resp.Header.Get("X-Cookie") != "a=1; b=2" {
			t.Errorf("%s: %d %q %v, %v", method, resp.StatusCode, got, resp.Header, err)
		}
	}
}

// smaller returns a size that a slow build can afford.
func smaller(n int) int {
	if raceEnabled {
		return n / 10
	}
	return n
}

func (p *matrixPair) testSizes(t *testing.T) {
	for _, size := range []int{1, 1000, 16<<10 + 1, smaller(3 << 20)} {
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for _, reader := range []io.Reader{bytes.NewReader(data), io.MultiReader(bytes.NewReader(data))} {
			if _, got, err := p.do(t, p.request("POST", "/echo", reader)); err != nil || got != string(data) {
				t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
			}
		}
	}
}

// testHeads has answers that have no content whatever their length says.
func (p *matrixPair) testHeads(t *testing.T) {
	for _, c := range []struct {
		method, path string
		status       int
		length       int64
	}{{"HEAD", "/sized", 200, 5}, {"GET", "/sized", 200, 5}, {"GET", "/304", 304, 0}, {"HEAD", "/304", 304, 0}} {
		resp, got, err := p.do(t, p.request(c.method, c.path, nil))
		want := ""
		if c.method == "GET" && c.length > 0 {
			want = "sized"
		}
		if err != nil || resp.StatusCode != c.status || got != want || max(resp.ContentLength, 0) != c.length {
			t.Errorf("%s %s: %d, length %d, %q, %v", c.method, c.path, resp.StatusCode, resp.ContentLength, got, err)
		}
	}
}

func (p *matrixPair) testInterim(t *testing.T) {
	var links []string
	req := p.request("GET", "/interim", nil)
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			links = append(links, h.Get("Link"))
			return nil
		},
	}))
	resp, _, err := p.do(t, req)
	if err != nil || resp.StatusCode != 204 || fmt.Sprint(links) != "[</0> </1> </2>]" || resp.Header.Get("Link") != "" {
		t.Errorf("%d after %q, %v", resp.StatusCode, links, err)
	}
}

// testTrailers has fields behind both bodies.
func (p *matrixPair) testTrailers(t *testing.T) {
	req := p.request("POST", "/trailers", io.MultiReader(strings.NewReader("a body")))
	req.Trailer = http.Header{"X-Late": {"late"}}
	resp, got, err := p.do(t, req)
	if err != nil || got != "a body" || resp.Trailer.Get("X-Sum") != "6" || resp.Trailer.Get("X-Got") != "late" {
		t.Errorf("%q %v, %v", got, resp.Trailer, err)
	}
	if !strings.HasPrefix(p.down, "h2") {
		return
	}
	// HTTP/2 has trailers behind a body whose length was told, HTTP/1 has not.
	for _, body := range []io.Reader{strings.NewReader("a body"), iotest.OneByteReader(strings.NewReader("a body"))} {
		req := p.request("POST", "/trailers", body)
		req.ContentLength = 6
		req.Trailer = http.Header{"X-Late": {"late"}}
		if resp, got, err := p.do(t, req); err != nil || got != "a body" || resp.Trailer.Get("X-Got") != "late" {
			t.Errorf("with a length: %q %v, %v", got, resp.Trailer, err)
		}
	}
}

// testDuplex sends a piece when the one before has come back.
func (p *matrixPair) testDuplex(t *testing.T) {
	pr, pw := io.Pipe()
	defer pw.Close()
	resp, err := p.c.Do(p.request("POST", "/duplex", pr))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 20 {
		piece := strings.Repeat("abcdefghij", 1+50*i)
		if _, err := io.WriteString(pw, piece); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(piece))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != strings.ToUpper(piece) {
			t.Fatalf("piece %d: %q, %v", i, got, err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q behind the end, %v", rest, err)
	}
}

// testExpect: RFC 9110, section 10.1.1: the client waits for the origin's 100, and sends
// nothing if there is another answer. Without it the client would wait for 20 s.
func (p *matrixPair) testExpect(t *testing.T) {
	for path, want := range map[string]int{"/expect": 200, "/refuse": 403} {
		var sent counter
		req := p.request("PUT", path, io.TeeReader(strings.NewReader(strings.Repeat("x", 100000)), &sent))
		req.ContentLength = 100000
		req.Header.Set("Expect", "100-continue")
		resp, got, err := p.do(t, req)
		if err != nil || resp.StatusCode != want || (want == 200) != (got == "100000") || want == 403 && sent.n.Load() > 0 {
			t.Errorf("%s: %d %q after %d bytes, %v", path, resp.StatusCode, got, sent.n.Load(), err)
		}
	}
}

// counter counts what is written to it.
type counter struct{ n atomic.Int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// testEarly: RFC 9113, section 8.1: a whole answer may come before the request's end.
func (p *matrixPair) testEarly(t *testing.T) {
	pr, pw := io.Pipe()
	defer pw.Close()
	go func() { _, _ = pw.Write([]byte("the beginning of something long")) }()
	resp, got, err := p.do(t, p.request("POST", "/early", pr))
	if err != nil || resp.StatusCode != 200 || got != "I have seen enough" {
		t.Errorf("%d %q, %v", resp.StatusCode, got, err)
	}
}

// testSlowOrigin: row D14, for uploads: while the origin does not read, the client
// cannot send on without end; when it does, all arrives.
func (p *matrixPair) testSlowOrigin(t *testing.T) {
	size := smaller(40 << 20)
	sum, sent := sha256.New(), &counter{}
	body := io.TeeReader(io.LimitReader(&noise{}, int64(size)), io.MultiWriter(sum, sent))
	type result struct {
		text string
		err  error
	}
	donec := make(chan result, 1)
	go func() {
		resp, err := p.c.Post(p.base+"/gated", "text/plain", body)
		var b []byte
		if err == nil {
			b, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		donec <- result{string(b), err}
	}()
	<-p.origin.beganc
	// What fits into windows and kernel buffers goes on its way; the rest waits.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for before := int64(-1); sent.n.Load() != before; <-again.C {
		before = sent.n.Load()
	}
	if n := sent.n.Load(); !raceEnabled && n > int64(size)*3/4 {
		t.Errorf("the client sent %d of %d bytes to an origin that does not read", n, size)
	}
	p.origin.gatec <- struct{}{}
	if r := <-donec; r.err != nil || r.text != fmt.Sprintf("%x", sum.Sum(nil)) {
		t.Errorf("%q, %v", r.text, r.err)
	}
}

// noise is bytes without end that do not repeat soon.
type noise struct{ at uint32 }

func (p *noise) Read(b []byte) (int, error) {
	for i := range b {
		p.at = p.at*1664525 + 1013904223
		b[i] = byte(p.at >> 24)
	}
	return len(b), nil
}

// testClientAborts: row D5: an origin learns that the client left.
func (p *matrixPair) testClientAborts(t *testing.T) {
	for _, path := range []string{"/silent", "/endless", "/upload"} {
		ctx, cancel := context.WithCancel(t.Context())
		pr, pw := io.Pipe()
		method, body := "GET", io.Reader(nil)
		if path == "/upload" {
			method, body = "POST", pr
			go func() { _, _ = pw.Write(make([]byte, 2000)) }()
		}
		req := p.request(method, path, body).WithContext(ctx)
		gotc := make(chan *http.Response, 1)
		go func() {
			resp, _ := p.c.Do(req)
			gotc <- resp
		}()
		<-p.origin.beganc
		if path != "/upload" {
			resp := <-gotc
			if resp == nil {
				t.Errorf("%s: no answer", path)
			}
			gotc <- resp
		}
		cancel()
		pw.CloseWithError(context.Canceled)
		if left := <-p.origin.leftc; left != path {
			t.Errorf("%s was left, want %s", left, path)
		}
		if resp := <-gotc; resp != nil {
			resp.Body.Close()
		}
	}
}

// testOriginAborts: row D6: an answer that ends before its time does so visibly.
func (p *matrixPair) testOriginAborts(t *testing.T) {
	for _, path := range []string{"/cut", "/cut-unsized"} {
		if resp, got, err := p.do(t, p.request("GET", path, nil)); err == nil || resp.StatusCode != 200 || !strings.HasPrefix("part", got) {
			t.Errorf("%s: %d, %q ended with %v", path, resp.StatusCode, got, err)
		}
	}
	for _, method := range []string{"GET", "POST"} {
		if resp, _, err := p.do(t, p.request(method, "/abort", nil)); err != nil || resp.StatusCode != 502 {
			t.Errorf("%s /abort: %d, %v", method, resp.StatusCode, err)
		}
	}
}

// testMany has many requests at a time, on one connection where that is possible. Each
// answer follows from its request.
func (p *matrixPair) testMany(t *testing.T) {
	const n = 100
	errs := make(chan error)
	for i := range n {
		go func() {
			method, query, text := "GET", fmt.Sprint("id=", i), ""
			var body io.Reader
			if i%2 == 1 {
				method, text = "POST", strings.Repeat(fmt.Sprint(i, " "), i*i)
				body = io.MultiReader(strings.NewReader(text)) // of unknown length
			}
			if i%4 == 1 {
				body = strings.NewReader(text)
			}
			resp, err := p.c.Do(p.request(method, "/digest?"+query, body))
			if err == nil {
				var b []byte
				b, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := fmt.Sprintf("%x", sha256.Sum256([]byte(query+text))); err == nil && string(b) != want {
					err = fmt.Errorf("%s %s: %d %q", method, query, resp.StatusCode, b)
				}
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
