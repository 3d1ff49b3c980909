package cirque_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/testcert"
	"github.com/cirqueproxy/cirque/reason"
)

// frameOrigin is an origin of HTTP/2 whose frames the test writes.
type frameOrigin struct {
	t     *testing.T
	l     net.Listener
	conns atomic.Int64
	open  sync.Map
	wg    sync.WaitGroup
}

// frameConn is one connection to it.
type frameConn struct {
	*http2.Framer
	n  int64 // 1 for the first
	nc net.Conn
	// resets gets the codes of the streams that the other end resets, if it is not nil.
	resets chan<- http2.ErrCode
	enc    *hpack.Encoder
	buf    bytes.Buffer
}

// startFrameOrigin serves each connection by serve, after the prefaces.
func startFrameOrigin(t *testing.T, l net.Listener, settings []http2.Setting, serve func(c *frameConn)) *frameOrigin {
	o := &frameOrigin{t: t, l: l}
	o.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			o.open.Store(nc, true)
			o.wg.Go(func() {
				defer nc.Close()
				preface := make([]byte, len(http2.ClientPreface))
				if _, err := io.ReadFull(nc, preface); err != nil || string(preface) != http2.ClientPreface {
					return
				}
				c := &frameConn{Framer: http2.NewFramer(nc, nc), n: o.conns.Add(1), nc: nc}
				c.enc = hpack.NewEncoder(&c.buf)
				c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				_ = c.WriteSettings(settings...)
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		o.open.Range(func(nc, _ any) bool { nc.(net.Conn).Close(); return true })
		o.wg.Wait()
	})
	return o
}

func (o *frameOrigin) peer() *cirque.Peer {
	return &cirque.Peer{Addr: o.l.Addr().String(), Protocol: cirque.ProtocolH2C}
}

// request returns the next request; it answers what the protocol asks on the way.
func (c *frameConn) request() *http2.MetaHeadersFrame {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return nil
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
		case *http2.RSTStreamFrame:
			if c.resets != nil {
				c.resets <- f.ErrCode
			}
		}
	}
}

// answer sends a response without a body.
func (c *frameConn) answer(id uint32, status string) { c.head(id, true, ":status", status) }

// head sends a head of names and values.
func (c *frameConn) head(id uint32, end bool, fields ...string) {
	c.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: c.buf.Bytes()})
}

// respond sends a head and a body, and leaves the stream open.
func (c *frameConn) respond(id uint32, body string, fields ...string) {
	c.head(id, false, fields...)
	if body != "" {
		_ = c.WriteData(id, false, []byte(body))
	}
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// failures are the reasons of failed attempts.
type failures struct {
	mu   sync.Mutex
	list []reason.Reason // Guarded by mu.
}

func (f *failures) want(t *testing.T, want ...reason.Reason) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.list, want) {
		t.Errorf("attempts failed with %v, want %v", f.list, want)
	}
}

// frontOf starts a server before a peer and returns its URL.
func frontOf(t *testing.T, peer *cirque.Peer, failed *failures) string {
	t.Helper()
	transport := &cirque.Transport{}
	srv := &cirque.Server{H2C: true, Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Transport: transport, Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
		Filters: []cirque.Filter{{Name: "note", Failed: func(_ *cirque.Session, e *cirque.Error) error {
			if failed != nil {
				failed.mu.Lock()
				defer failed.mu.Unlock()
				failed.list = append(failed.list, e.Reason)
			}
			return nil
		}}},
	}}
	l := listenLoopback(t)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		_ = srv.Close()
		wg.Wait()
		transport.Close()
	})
	return "http://" + l.Addr().String()
}

func post(t *testing.T, url string) int {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Post(url, "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Error(err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestUpstreamRefusals: RFC 9113, section 8.7: what the origin did not look at is sent
// again, also a POST, and the client sees none of it.
func TestUpstreamRefusals(t *testing.T) {
	for name, refuse := range map[string]func(c *frameConn, id uint32){
		"refused stream": func(c *frameConn, id uint32) { _ = c.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		"goaway":         func(c *frameConn, id uint32) { _ = c.WriteGoAway(0, http2.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var seen atomic.Int64
			o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
				for r := c.request(); r != nil; r = c.request() {
					if seen.Add(1) == 1 {
						refuse(c, r.StreamID)
						continue
					}
					c.answer(r.StreamID, "204")
				}
			})
			var failed failures
			if status := post(t, frontOf(t, o.peer(), &failed)); status != 204 {
				t.Errorf("status %d", status)
			}
			failed.want(t, reason.UpstreamRefused)
		})
	}
}

// TestUpstreamReset: a stream that the origin looked at is not sent again when it is a
// POST, and is a 502.
func TestUpstreamReset(t *testing.T) {
	o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
		for r := c.request(); r != nil; r = c.request() {
			_ = c.WriteRSTStream(r.StreamID, http2.ErrCodeInternal)
		}
	})
	var failed failures
	if status := post(t, frontOf(t, o.peer(), &failed)); status != 502 {
		t.Errorf("status %d", status)
	}
	failed.want(t, reason.UpstreamReset)
}

// TestUpstreamResetCode: RFC 9113, section 7: of a reset in the middle of a response
// the client gets the code that says something of its request, and INTERNAL_ERROR for
// all others: that an origin would not have looked at the request is no longer true of
// one that has an answer.
func TestUpstreamResetCode(t *testing.T) {
	codes := make(chan http2.ErrCode, 1)
	o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
		for r := c.request(); r != nil; r = c.request() {
			c.respond(r.StreamID, "some", ":status", "200")
			_ = c.WriteRSTStream(r.StreamID, <-codes)
		}
	})
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p}
	defer tr.CloseIdleConnections()
	base := frontOf(t, o.peer(), nil)
	for sent, want := range map[http2.ErrCode]http2.ErrCode{
		http2.ErrCodeCancel:             http2.ErrCodeCancel,
		http2.ErrCodeEnhanceYourCalm:    http2.ErrCodeEnhanceYourCalm,
		http2.ErrCodeInadequateSecurity: http2.ErrCodeInadequateSecurity,
		http2.ErrCodeRefusedStream:      http2.ErrCodeInternal,
		http2.ErrCodeNo:                 http2.ErrCodeInternal,
		http2.ErrCodeHTTP11Required:     http2.ErrCodeInternal,
		http2.ErrCodeFlowControl:        http2.ErrCodeInternal,
	} {
		codes <- sent
		req, _ := http.NewRequestWithContext(t.Context(), "GET", base, nil)
		resp, err := tr.RoundTrip(req)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		var se http2.StreamError
		if !errors.As(err, &se) || se.Code != want {
			t.Errorf("%v: the client got %v", sent, err)
		}
	}
}

// TestUpstreamStreamLimit: streams are spread over as many connections as the
// origin's limit asks for, and no request waits for another.
func TestUpstreamStreamLimit(t *testing.T) {
	const limit, requests = 3, 10
	var mu sync.Mutex
	held := map[*frameConn][]uint32{}
	all := make(chan struct{})
	o := startFrameOrigin(t, listenLoopback(t), []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: limit}}, func(c *frameConn) {
		for r := c.request(); r != nil; r = c.request() {
			mu.Lock()
			if held[c] = append(held[c], r.StreamID); len(held[c]) > limit {
				t.Errorf("%d streams at a time", len(held[c]))
			}
			n := 0
			for _, ids := range held {
				n += len(ids)
			}
			if n == requests {
				close(all)
			}
			mu.Unlock()
		}
	})
	base := frontOf(t, o.peer(), nil)
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			if status := post(t, base); status != 204 {
				t.Errorf("status %d", status)
			}
		})
	}
	<-all // while none was answered
	mu.Lock()
	if len(held) < (requests+limit-1)/limit {
		t.Errorf("%d connections", len(held))
	}
	for c, ids := range held {
		for _, id := range ids {
			c.answer(id, "204")
		}
	}
	mu.Unlock()
	wg.Wait()
}

// TestUpstreamHTTP11Required: RFC 9113, section 7: an origin that wants HTTP/1.1 gets
// it, and is not asked for HTTP/2 again.
func TestUpstreamHTTP11Required(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	var offered []string
	var mu sync.Mutex
	cfg := &tls.Config{Certificates: []tls.Certificate{*ca.Server("a.test").TLS()}, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			mu.Lock()
			defer mu.Unlock()
			offered = append(offered, strings.Join(h.SupportedProtos, "+"))
			return nil, nil
		}}
	l := tls.NewListener(listenLoopback(t), cfg)
	h1 := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202) })}
	handoff := make(chan net.Conn)
	chosen := &protocolListener{Listener: l, h1: handoff}
	var wg sync.WaitGroup
	wg.Go(func() { _ = h1.Serve(chanListener{handoff, l.Addr()}) })
	startFrameOrigin(t, chosen, nil, func(c *frameConn) {
		for r := c.request(); r != nil; r = c.request() {
			_ = c.WriteRSTStream(r.StreamID, http2.ErrCodeHTTP11Required)
		}
	})
	t.Cleanup(func() {
		close(handoff)
		h1.Close()
		wg.Wait()
	})
	peer := &cirque.Peer{Addr: l.Addr().String(), TLS: &cirque.PeerTLS{CAs: []*x509.Certificate{ca.X509}, ServerName: "a.test"}}
	base := frontOf(t, peer, nil)
	for range 3 {
		if status := post(t, base); status != 202 {
			t.Errorf("status %d", status)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(offered) < 2 || offered[0] != "h2+http/1.1" {
		t.Fatalf("offered %q", offered)
	}
	for _, o := range offered[1:] {
		if o != "http/1.1" {
			t.Errorf("offered %q", offered)
		}
	}
}

// protocolListener keeps connections that chose HTTP/2, and passes others on.
type protocolListener struct {
	net.Listener
	h1 chan net.Conn
}

func (l *protocolListener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tc := nc.(*tls.Conn)
		if tc.Handshake() == nil && tc.ConnectionState().NegotiatedProtocol == "h2" {
			return nc, nil
		}
		l.h1 <- nc
	}
}

type chanListener struct {
	c    chan net.Conn
	addr net.Addr
}

func (l chanListener) Accept() (net.Conn, error) {
	if nc, ok := <-l.c; ok {
		return nc, nil
	}
	return nil, errors.New("closed")
}
func (l chanListener) Close() error   { return nil }
func (l chanListener) Addr() net.Addr { return l.addr }

// TestUpstreamPing: an origin that answers nothing any more, not even a ping, fails
// its streams in PingTimeout, long before their timeouts.
func TestUpstreamPing(t *testing.T) {
	o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
		for {
			if _, err := c.ReadFrame(); err != nil {
				return
			}
		}
	})
	peer := o.peer()
	peer.HTTP2 = cirque.HTTP2{PingEvery: 300 * time.Millisecond, PingTimeout: 300 * time.Millisecond}
	var failed failures
	if status := post(t, frontOf(t, peer, &failed)); status != 504 {
		t.Errorf("status %d", status)
	}
	failed.want(t, reason.UpstreamPingTimeout)
}

// TestUpstreamHTTP2Idle: connections of HTTP/2 end when nothing was asked of them for
// the peer's idle timeout, when they are old, and with their Transport.
func TestUpstreamHTTP2Idle(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*cirque.Peer)
		end    func(*cirque.Transport)
		conns  int64 // for two requests
	}{
		"idle":     {change: func(p *cirque.Peer) { p.Timeouts.Idle = time.Millisecond }, conns: 1},
		"requests": {change: func(p *cirque.Peer) { p.MaxRequests = 1 }, end: (*cirque.Transport).CloseIdleConnections, conns: 2},
		"no reuse": {change: func(p *cirque.Peer) { p.Timeouts.Idle = -1 }, end: (*cirque.Transport).CloseIdleConnections, conns: 2},
		"closed":   {change: func(p *cirque.Peer) {}, end: (*cirque.Transport).Close, conns: 1},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{}, 2)
			o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
				for r := c.request(); r != nil; r = c.request() {
					c.answer(r.StreamID, "204")
				}
				ended <- struct{}{}
			})
			peer := o.peer()
			tc.change(peer)
			transport := &cirque.Transport{}
			defer transport.Close()
			proxy := &cirque.Proxy{Transport: transport, Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil }}
			for range 2 {
				w := httptest.NewRecorder()
				proxy.ServeHTTP(w, httptest.NewRequest("GET", "http://a.test/", nil))
				if w.Code != 204 {
					t.Fatalf("status %d", w.Code)
				}
			}
			if tc.end != nil {
				tc.end(transport)
			}
			for range tc.conns {
				<-ended
			}
			if n := o.conns.Load(); n != tc.conns {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestUpstreamLateEnd: an origin that has sent all of a body whose length it told, and
// not the end of the stream, does not keep a client of HTTP/1 waiting: neither for the
// body nor, for long, with its next request. The stream is reset, its connection stays.
func TestUpstreamLateEnd(t *testing.T) {
	resets := make(chan http2.ErrCode, 10)
	o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
		c.resets = resets
		for r := c.request(); r != nil; r = c.request() {
			body := "whole"
			if r.PseudoValue("method") == "HEAD" {
				body = ""
			}
			c.respond(r.StreamID, body, ":status", "200", "content-length", "5")
		}
	})
	base := frontOf(t, o.peer(), nil)
	nc, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second)) // the default for a pause in a body is 60
	_, _ = io.WriteString(nc, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(nc)
	if err != nil || strings.Count(string(got), "HTTP/1.1 200") != 3 || strings.Count(string(got), "\r\n\r\nwhole") != 2 {
		t.Errorf("%v\n%s", err, got)
	}
	for range 3 {
		if code := <-resets; code != http2.ErrCodeCancel {
			t.Errorf("reset with %v", code)
		}
	}
	if n := o.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestUpstreamReadStall: an origin that stops in the middle of a body gets
// RST_STREAM(CANCEL), and its connection no other request.
func TestUpstreamReadStall(t *testing.T) {
	resets := make(chan http2.ErrCode, 1)
	o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
		c.resets = resets
		for r := c.request(); r != nil; r = c.request() {
			if c.n == 1 {
				c.respond(r.StreamID, "a part", ":status", "200", "content-length", "100")
			} else {
				c.answer(r.StreamID, "204")
			}
		}
	})
	peer := o.peer()
	peer.Timeouts.Read = 50 * time.Millisecond
	base := frontOf(t, peer, nil)
	resp, err := http.Get(base)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err == nil || string(body) != "a part" {
		t.Errorf("%q, %v", body, err)
	}
	if code := <-resets; code != http2.ErrCodeCancel {
		t.Errorf("reset with %v", code)
	}
	if status := post(t, base); status != 204 || o.conns.Load() != 2 {
		t.Errorf("status %d, %d connections", status, o.conns.Load())
	}
}

// TestHTTP2Authority: Host and :authority are one thing on either side, and what a hook
// makes of it.
//
// RFC 9113, section 8.3.1.
func TestHTTP2Authority(t *testing.T) {
	h1 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Saw", r.Host) }))
	defer h1.Close()
	h2 := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
		for r := c.request(); r != nil; r = c.request() {
			saw := r.PseudoValue("authority")
			for _, f := range r.RegularFields() {
				if f.Name == "host" {
					saw += " and Host " + f.Value
				}
			}
			c.head(r.StreamID, true, ":status", "200", "content-length", "0", "saw", saw)
		}
	})
	transport := &cirque.Transport{}
	defer transport.Close()
	srv := &cirque.Server{H2C: true, Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Transport: transport,
		Peer: func(s *cirque.Session) (*cirque.Peer, error) {
			if s.Request().HasPathPrefix("/h2") {
				return h2.peer(), nil
			}
			return cirque.NewPeer(h1.Listener.Addr().String()), nil
		},
		Filters: []cirque.Filter{{Name: "host", UpstreamRequest: func(s *cirque.Session) error {
			if host := s.Request().Header.Get("Want"); host != "" {
				s.UpstreamRequest().SetAuthority(host)
			}
			return nil
		}}},
	}}
	l := listenLoopback(t)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	defer wg.Wait()
	defer srv.Close()
	for _, proto := range []string{"HTTP/1", "HTTP/2"} {
		p := new(http.Protocols)
		p.SetHTTP1(proto == "HTTP/1")
		p.SetUnencryptedHTTP2(proto == "HTTP/2")
		tr := &http.Transport{Protocols: p}
		for _, origin := range []string{"/h1", "/h2"} {
			for _, want := range []string{"", "other.example:8080"} {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.Addr().String()+origin, nil)
				req.Host = "a.example:81"
				saw := req.Host
				if want != "" {
					req.Header.Set("Want", want)
					saw = want
				}
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if got := resp.Header.Get("Saw"); got != saw || resp.StatusCode != 200 {
					t.Errorf("%s to %s, want %q: %d, the origin saw %q", proto, origin, want, resp.StatusCode, got)
				}
			}
		}
		tr.CloseIdleConnections()
	}
}
