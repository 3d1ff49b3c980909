//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// front is a proxy in the test with net/http on both sides: what the bench's
// own client and origin speak is judged by others.
type front struct {
	tls, h2, h2Origin bool
}

// start starts f before an origin, and returns its address and what a client
// must speak.
func (f front) start(t *testing.T, origin string) (string, *tlsSpec) {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols), MaxIdleConnsPerHost: 1024}
	transport.Protocols.SetHTTP1(!f.h2Origin)
	transport.Protocols.SetUnencryptedHTTP2(f.h2Origin)
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: origin})
	proxy.Transport = transport
	proxy.FlushInterval = -1
	return f.serve(t, proxy)
}

func (f front) serve(t *testing.T, handler http.Handler) (string, *tlsSpec) {
	t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(!f.h2)
	srv.Config.Protocols.SetHTTP2(f.h2 && f.tls)
	srv.Config.Protocols.SetUnencryptedHTTP2(f.h2 && !f.tls)
	t.Cleanup(srv.Close)
	if !f.tls {
		srv.Start()
		return srv.Listener.Addr().String(), nil
	}
	cert, err := makeCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert.cert, cert.key)
	if err != nil {
		t.Fatal(err)
	}
	spec := &tlsSpec{cert: cert.der, group: tls.X25519, protocol: protoHTTP1}
	if f.h2 {
		spec.protocol = protoHTTP2
	}
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{spec.protocol}}
	srv.StartTLS()
	return srv.Listener.Addr().String(), spec
}

// proveLoad runs spec, longer if a busy machine answers nothing in so short a
// time, and returns what round.prove has to say.
func proveLoad(t *testing.T, origin *running, s *scenario, spec loadSpec) (round, *loadResult) {
	t.Helper()
	for spec.measure = 100 * time.Millisecond; ; spec.measure *= 5 {
		before, err := origin.ask()
		if err != nil {
			t.Fatal(err)
		}
		res, err := runShakesOrLoad(s, spec, func(bool) {})
		if err != nil {
			t.Fatal(err)
		}
		after, err := origin.ask()
		if err != nil {
			t.Fatal(err)
		}
		var r round
		r.OriginSaw = after.Requests - before.Requests
		if spec.messages > 0 {
			r.OriginSaw = after.Messages - before.Messages
		}
		r.prove(res, after.Bad-before.Bad, after.FirstBad)
		r.proveOrigin(s, after)
		r.proveShakes(s, res)
		if res.completed > 0 || spec.measure > 10*time.Second {
			return r, res
		}
	}
}

// A proxy that does its work passes, in every kind of load with TLS or HTTP/2.
func TestLoadWithTLSAndHTTP2(t *testing.T) {
	tests := []struct {
		name   string
		front  front
		shakes shake
		spec   loadSpec
	}{
		{"TLS", front{tls: true}, 0, loadSpec{conns: 4, target: target{size: kib}}},
		{"TLS, download", front{tls: true}, 0, loadSpec{conns: 4, target: target{size: mib}}},
		{"TLS, upload", front{tls: true}, 0, loadSpec{conns: 4, target: target{size: kib, upload: mib}}},
		{"full handshakes", front{tls: true}, fullShakes, loadSpec{conns: 4, perConn: true, target: target{size: kib}}},
		{"resumed handshakes", front{tls: true}, resumedShakes, loadSpec{conns: 4, perConn: true, warm: 500 * time.Millisecond, target: target{size: kib}}},
		{"h2", front{tls: true, h2: true}, 0, loadSpec{conns: 2, streams: 8, target: target{size: kib}}},
		{"h2, upload", front{tls: true, h2: true}, 0, loadSpec{conns: 2, streams: 4, target: target{size: kib, upload: mib}}},
		{"h2c", front{h2: true}, 0, loadSpec{conns: 2, streams: 8, target: target{size: kib}}},
		{"h2c, download", front{h2: true}, 0, loadSpec{conns: 2, streams: 4, target: target{size: mib}}},
		{"h2c to h2c", front{h2: true, h2Origin: true}, 0, loadSpec{conns: 2, streams: 8, target: target{size: kib}}},
		{"h2c to h2c, upload and download", front{h2: true, h2Origin: true}, 0, loadSpec{conns: 2, streams: 4, target: target{size: 3 * mib, upload: 2 * mib}}},
		{"HTTP/1 to h2c", front{h2Origin: true}, 0, loadSpec{conns: 4, target: target{size: kib}}},
		{"gRPC, unary", front{h2: true, h2Origin: true}, 0, loadSpec{conns: 2, streams: 8, messages: 1, target: target{size: grpcSize}}},
		{"gRPC, streams", front{h2: true, h2Origin: true}, 0, loadSpec{conns: 2, streams: 8, messages: 5, target: target{size: grpcStreamSize}}},
		{"gRPC, long messages", front{tls: true, h2: true, h2Origin: true}, 0, loadSpec{conns: 1, streams: 2, messages: 2, target: target{size: 300 * kib}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			origin, addr := testOrigin(t)
			spec := test.spec
			spec.addr, spec.tls = test.front.start(t, addr)
			r, res := proveLoad(t, origin, &scenario{h2Origin: test.front.h2Origin, shakes: test.shakes}, spec)
			if r.Problem != "" {
				t.Error(r.Problem)
			}
			if res.latency.total != res.completed {
				t.Errorf("%d latencies of %d requests", res.latency.total, res.completed)
			}
		})
	}
}

// What does not do its work, or not the work that is measured, is found out.
func TestLoadFindsWrongTLSAndHTTP2(t *testing.T) {
	right := func(path string) []byte {
		want, _ := parsePath([]byte(path))
		return append(appendID(nil, want.id), bodyBytes(want.id, idLen, want.size)...)
	}
	call := func(status string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("Trailer", "Grpc-Status")
			w.Header().Set("Content-Type", "application/grpc")
			if status == "another" {
				b = appendBody(b[:messageHead], 4711, 0, len(b)-messageHead)
			}
			_, _ = w.Write(b)
			if status != "" {
				w.Header().Set("Grpc-Status", strings.Replace(status, "another", "0", 1))
			}
		}
	}
	overH2 := loadSpec{conns: 1, streams: 2, target: target{size: kib}}
	unary := loadSpec{conns: 1, streams: 2, messages: 1, target: target{size: grpcSize}}
	tests := []struct {
		name    string
		front   front
		spec    loadSpec
		handler http.HandlerFunc
		problem string
	}{
		{"another status", front{h2: true}, overH2, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusAccepted) }, `status "202"`},
		{"another length", front{h2: true}, overH2, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(right(r.URL.Path)[:100]) }, "wrong length"},
		{"another request's answer", front{tls: true, h2: true}, overH2, func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(right("/1k/0/00000000000000aa/0"))
		}, "another request's body"},
		{"cut off", front{h2: true}, overH2, func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(right(r.URL.Path)[:1000])
			_ = http.NewResponseController(w).Flush()
		}, "cut off"},
		{"reset", front{h2: true}, overH2, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "reset with code"},
		{"right, but not from the origin", front{tls: true, h2: true}, overH2, func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(right(r.URL.Path))
		}, "the origin counted 0 requests"},
		{"TLS, one byte is wrong", front{tls: true}, loadSpec{conns: 2, target: target{size: kib}}, func(w http.ResponseWriter, r *http.Request) {
			b := right(r.URL.Path)
			b[len(b)-1] ^= 1
			_, _ = w.Write(b)
		}, "another request's body"},
		{"gRPC, failed", front{h2: true}, unary, call("13"), `grpc-status "13"`},
		{"gRPC, no status", front{h2: true}, unary, call(""), "no grpc-status"},
		{"gRPC, another message", front{h2: true}, unary, call("another"), "another call's message"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			origin, _ := testOrigin(t)
			spec := test.spec
			spec.addr, spec.tls = test.front.serve(t, test.handler)
			before, err := origin.ask()
			if err != nil {
				t.Fatal(err)
			}
			spec.measure = 50 * time.Millisecond
			res, err := runLoad(spec, func(bool) {})
			if err != nil {
				t.Fatal(err)
			}
			after, err := origin.ask()
			if err != nil {
				t.Fatal(err)
			}
			r := round{OriginSaw: after.Requests - before.Requests}
			r.prove(res, 0, "")
			if !strings.Contains(r.Problem, test.problem) {
				t.Errorf("problem %q, want one with %q", r.Problem, test.problem)
			}
		})
	}
}

// A handshake that agrees to anything else than what is measured is an error,
// and so is another certificate.
func TestHandshakeIsWhatIsMeasured(t *testing.T) {
	addr, spec := front{tls: true}.serve(t, http.NotFoundHandler())
	other, err := makeCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		spec    tlsSpec
		problem string
	}{
		{"as measured", *spec, ""},
		{"another certificate", tlsSpec{cert: other.der, group: tls.X25519, protocol: protoHTTP1}, "another certificate"},
		{"no HTTP/2", tlsSpec{cert: spec.cert, group: tls.X25519, protocol: protoHTTP2}, "no application protocol"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l, err := newLoader(loadSpec{addr: addr, conns: 1, tls: &test.spec})
			if err == nil {
				l.close()
			}
			if got := errorText(err); test.problem == "" && got != "" || !strings.Contains(got, test.problem) {
				t.Errorf("error %q, want one with %q", got, test.problem)
			}
		})
	}
	good := tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: cipher, CurveID: tls.X25519, NegotiatedProtocol: protoHTTP1}
	for name, change := range map[string]func(*tls.ConnectionState){
		"":             func(*tls.ConnectionState) {},
		"TLS version":  func(s *tls.ConnectionState) { s.Version = tls.VersionTLS12 },
		"cipher":       func(s *tls.ConnectionState) { s.CipherSuite = tls.TLS_AES_256_GCM_SHA384 },
		"group":        func(s *tls.ConnectionState) { s.CurveID = tls.CurveP256 },
		`ALPN "other"`: func(s *tls.ConnectionState) { s.NegotiatedProtocol = "other" },
	} {
		state := good
		change(&state)
		if got := errorText(spec.agreed(&state)); name == "" && got != "" || !strings.HasPrefix(got, name) {
			t.Errorf("error %q, want one that begins with %q", got, name)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestProveShakes(t *testing.T) {
	tests := []struct {
		shakes             shake
		completed, resumed int64
		bad                bool
	}{
		{noShakes, 10, 3, false},
		{fullShakes, 10, 0, false},
		{fullShakes, 10, 1, true},
		{resumedShakes, 10, 10, false},
		{resumedShakes, 10, 9, true},
	}
	for _, test := range tests {
		var r round
		r.proveShakes(&scenario{shakes: test.shakes}, &loadResult{completed: test.completed, resumed: test.resumed})
		if (r.Problem != "") != test.bad {
			t.Errorf("%+v: problem %q", test, r.Problem)
		}
	}
}

func TestProveOrigin(t *testing.T) {
	tests := []struct {
		h2Origin bool
		h1, h2   int64
		bad      bool
	}{
		{false, 4, 0, false},
		{false, 4, 1, true},
		{true, 0, 4, false},
		{true, 1, 4, true},
	}
	for _, test := range tests {
		var r round
		r.proveOrigin(&scenario{h2Origin: test.h2Origin}, originStats{H1Connections: test.h1, H2Connections: test.h2})
		if (r.Problem != "") != test.bad {
			t.Errorf("%+v: problem %q", test, r.Problem)
		}
	}
}

// The relay changes nothing, and makes a round trip as long as it should.
func TestRelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	b := &bench{opts: &options{}}
	const delay = 40 * time.Millisecond
	r := &running{listen: l.Addr().String()}
	defer r.stop()
	if err := b.startRelay(r, &scenario{delay: delay}, t.TempDir()+"/relay"); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", r.front)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := appendBody(nil, 1, 0, mib)
	from := time.Now()
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(from); took < delay {
		t.Errorf("the first byte took %v, want at least %v", took, delay)
	}
	rest, err := io.ReadAll(c)
	if err != nil || !slices.Equal(append(first, rest...), sent) {
		t.Errorf("%d bytes of %d came back, or others (%v)", 1+len(rest), len(sent), err)
	}
}

// What the bench's encoder writes, the library's decoder reads.
func TestEncoder(t *testing.T) {
	var got []hpack.HeaderField
	dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, hpack.HeaderField{Name: f.Name, Value: f.Value}) })
	long := strings.Repeat("x", 300)
	want := []hpack.HeaderField{{Name: ":authority", Value: serverName}, {Name: "te", Value: "trailers"}, {Name: "accept", Value: "*/*"},
		{Name: ":path", Value: "/" + long}, {Name: "content-length", Value: "1024"}}
	var e h2Encoder
	write := func() []byte {
		b := e.start(nil)
		b = e.fixed(b, 1, ":authority", serverName)
		b = e.fixed(b, 0, "te", "trailers")
		b = e.fixed(b, 19, "accept", "*/*")
		b = e.once(b, 4, ":path", "/"+long)
		return e.once(b, 28, "content-length", "1024")
	}
	var sizes []int
	for turn := range 4 {
		if turn == 2 { // the other end shrinks its table
			e.off, e.shrink = true, true
			dec.SetAllowedMaxDynamicTableSize(0)
		}
		got = nil
		b := write()
		if _, err := dec.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := dec.Close(); err != nil || !slices.Equal(got, want) {
			t.Errorf("turn %d: %v, %v", turn, got, err)
		}
		sizes = append(sizes, len(b))
	}
	if sizes[1] >= sizes[0] || sizes[2] != sizes[3]+1 {
		t.Errorf("heads of %v bytes: the table is not used, or not given up", sizes)
	}
}

func TestMessages(t *testing.T) {
	var wire []byte
	for id := range uint64(3) {
		wire = appendBody(appendMessageHead(wire, 100), id, 0, 100)
	}
	for cut := range len(wire) {
		var m messages
		var ids []uint64
		each := func(piece []byte, off, size int) error {
			if off+len(piece) == size {
				ids = append(ids, uint64(len(ids)))
			}
			if !checkBody(uint64(len(ids)-b2i(off+len(piece) == size)), off, piece) {
				t.Errorf("cut at %d: a piece at %d is not known", cut, off)
			}
			return nil
		}
		for _, part := range [][]byte{wire[:cut], wire[cut:]} {
			if err := m.read(part, each); err != nil {
				t.Fatal(err)
			}
		}
		if len(ids) != 3 || !m.whole() {
			t.Errorf("cut at %d: %d messages", cut, len(ids))
		}
	}
	var m messages
	if err := m.read([]byte{1, 0, 0, 0, 100}, nil); err == nil {
		t.Error("a compressed message passes")
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Bodies longer than the pattern are known piece by piece too.
func TestLongBody(t *testing.T) {
	const id, size = 99, 2*patternLen + 12345
	var b []byte
	for len(b) < size {
		b = appendBody(b, id, len(b), min(100_000, size-len(b)))
	}
	for off := 0; off < size; off += 77_777 {
		end := min(size, off+2_000_000)
		if !checkBody(id, off, b[off:end]) {
			t.Errorf("bytes %d to %d are not known", off, end)
		}
		if checkBody(id+1, off, b[off:end]) {
			t.Errorf("bytes %d to %d pass for another's", off, end)
		}
	}
}

// The sample that is taken before a scenario knows a right answer from a wrong
// one.
func TestSample(t *testing.T) {
	_, addr := testOrigin(t)
	for _, f := range []front{{}, {tls: true}, {h2: true}, {tls: true, h2: true}, {h2: true, h2Origin: true}} {
		for _, grpc := range []bool{false, true} {
			if grpc && !f.h2Origin {
				continue
			}
			s := &setup{TLS: f.tls, H2: f.h2, GRPC: grpc}
			s.Listen, s.tls = f.start(t, addr)
			client := &http.Client{Transport: clientTransport(s)}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if err := sample(ctx, client, s); err != nil {
				t.Errorf("%+v, gRPC %v: %v", f, grpc, err)
			}
			s.Listen, s.tls = f.serve(t, http.NotFoundHandler())
			client = &http.Client{Transport: clientTransport(s)}
			if err := sample(ctx, client, s); err == nil {
				t.Errorf("%+v, gRPC %v: a 404 passes", f, grpc)
			}
			cancel()
		}
	}
}
