package cirque_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/cirquetest"
	"github.com/cirqueproxy/cirque/internal/memnet"
)

// grpcCall opens a call.
func (h *h2Client) grpcCall(path string, more ...string) uint32 {
	h.t.Helper()
	return h.open(false, append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "a.example",
		"content-type", "application/grpc+proto", "te", "trailers"}, more...)...)
}

// TestGRPCErrors: a failure of ours is a response of trailers alone to a client of
// gRPC, never a page, and pages stay what they are for others.
func TestGRPCErrors(t *testing.T) {
	reject := func(status int) func(*tunnelBed) {
		return func(b *tunnelBed) {
			b.proxy.Filters = append([]cirque.Filter{{Name: "reject", Request: func(*cirque.Session) error {
				return cirque.Reject(status, errors.New("secret"))
			}}}, b.proxy.Filters...)
		}
	}
	respond := func(status int, kind, body string) func(*tunnelBed) {
		return func(b *tunnelBed) {
			b.proxy.Filters = append(b.proxy.Filters, cirque.Filter{Name: "respond", Request: func(s *cirque.Session) error {
				if kind != "" {
					s.Response().Header.Set("Content-Type", kind)
				}
				return s.Respond(status, body)
			}})
		}
	}
	for name, c := range map[string]struct {
		change  func(*tunnelBed)
		status  string
		message string // begins with it
	}{
		"refused":     {func(b *tunnelBed) { b.origin.Close() }, "14", "Bad Gateway: connect_refused (request id "},
		"no peer":     {func(b *tunnelBed) { b.proxy.Peer = func(*cirque.Session) (*cirque.Peer, error) { return nil, nil } }, "14", "Service Unavailable: no_peer"},
		"timeout":     {func(b *tunnelBed) { b.proxy.Timeouts.FirstByte = 50 * time.Millisecond }, "4", "Gateway Timeout: upstream_timeout"},
		"no route":    {func(b *tunnelBed) { b.proxy.Peer = nil }, "12", "Not Found: no_route"},
		"401":         {reject(401), "16", "Unauthorized: refused"},
		"403":         {reject(403), "7", "Forbidden: refused"},
		"413":         {reject(413), "8", "Content Too Large: refused"},
		"429":         {reject(429), "14", "Too Many Requests: refused"},
		"500":         {reject(500), "13", "Internal Server Error: refused"},
		"too large":   {func(b *tunnelBed) { b.proxy.MaxRequestBody = 3 }, "8", "Content Too Large: body_too_large"},
		"hook's text": {respond(403, "", "not you, 100 %, ü\n"), "7", "not you, 100 %25, %C3%BC"},
		"hook's page": {respond(401, "text/html", "<h1>no</h1>"), "16", "Unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTunnelBed(t, func(b *tunnelBed) {
				b.proxy.ErrorPage = func(s *cirque.Session, _ *cirque.Error) error { return s.Respond(500, "<html>") }
				c.change(b)
			})
			h := newH2Client(t, b.addr)
			id := h.grpcCall("/a.B/C")
			h.ok(h.fr.WriteData(id, true, []byte("\x00\x00\x00\x00\x00")))
			fields := h.wantHead(id, "200", true)
			if fields["content-type"] != "application/grpc" || fields["grpc-status"] != c.status ||
				!strings.HasPrefix(fields["grpc-message"], c.message) || strings.Contains(fields["grpc-message"], "secret") {
				t.Errorf("the client got %v", fields)
			}
		})
	}
	// Not gRPC.
	for _, kind := range []string{"application/grpc-web", "application/json", "application/grpcx"} {
		b := newTunnelBed(t, reject(403))
		h := newH2Client(t, b.addr)
		id := h.open(true, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a.example", "content-type", kind)
		if fields := h.wantHead(id, "403", false); fields["grpc-status"] != "" {
			t.Errorf("%s got %v", kind, fields)
		}
	}
}

// TestGRPCStream: both directions flow at once, message by message, with what gRPC
// says in fields on the way. RFC 9113, section 8.2.2: te: trailers passes.
func TestGRPCStream(t *testing.T) {
	o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
		for {
			r := c.request()
			if r == nil {
				return
			}
			got := metaFields(r)
			if got[":path"] == "/fail" {
				c.head(r.StreamID, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5", "grpc-message", "no%20such")
				continue
			}
			c.head(r.StreamID, false, ":status", "200", "content-type", "application/grpc", "x-te", got["te"], "x-timeout", got["grpc-timeout"])
			for {
				f, err := c.data(r.StreamID)
				d, ok := f.(*http2.DataFrame)
				if err != nil || !ok {
					return
				}
				if len(d.Data()) > 0 {
					_ = c.WriteData(r.StreamID, false, bytes.ToUpper(d.Data()))
				}
				if d.StreamEnded() {
					break
				}
			}
			c.head(r.StreamID, true, "grpc-status", "0", "x-sum", "7")
		}
	})
	b := newTunnelBed(t, func(b *tunnelBed) { b.peer = o.peer() })
	h := newH2Client(t, b.addr)
	id := h.grpcCall("/a.B/C", "grpc-timeout", "5S")
	// The answer begins before a byte of the request came.
	if fields := h.wantHead(id, "200", false); fields["x-te"] != "trailers" || fields["x-timeout"] != "5S" {
		t.Errorf("the origin saw %v", fields)
	}
	for _, m := range []string{"one", "two", strings.Repeat("three", 2000)} {
		h.ok(h.fr.WriteData(id, false, []byte(m)))
		h.wantData(id, strings.ToUpper(m), false)
	}
	h.ok(h.fr.WriteData(id, true, nil))
	f, ok := h.frame().(*http2.MetaHeadersFrame)
	if !ok || !f.StreamEnded() {
		t.Fatalf("got %v, want trailers", f)
	}
	got := map[string]string{}
	for _, f := range f.Fields {
		got[f.Name] = f.Value
	}
	if got["grpc-status"] != "0" || got["x-sum"] != "7" {
		t.Errorf("the trailers are %v", got)
	}
	// A response of trailers alone stays one.
	id = h.grpcCall("/fail")
	h.ok(h.fr.WriteData(id, true, []byte("x")))
	if fields := h.wantHead(id, "200", true); fields["grpc-status"] != "5" || fields["grpc-message"] != "no%20such" {
		t.Errorf("the client got %v", fields)
	}
	b.wantDone("200 none")
	b.wantDone("200 none")
}

// TestGRPCCancel: who abandons a call is heard on the other side.
func TestGRPCCancel(t *testing.T) {
	seen := make(chan http2.ErrCode, 1)
	o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
		for r := c.request(); r != nil; r = c.request() {
			c.head(r.StreamID, false, ":status", "200", "content-type", "application/grpc")
			if metaFields(r)[":path"] == "/reset" {
				_ = c.WriteData(r.StreamID, false, []byte("part"))
				_ = c.WriteRSTStream(r.StreamID, http2.ErrCodeInternal)
				continue
			}
			for {
				f, err := c.data(r.StreamID)
				if err != nil {
					return
				}
				if rst, ok := f.(*http2.RSTStreamFrame); ok {
					seen <- rst.ErrCode
					break
				}
			}
		}
	})
	b := newTunnelBed(t, func(b *tunnelBed) { b.peer = o.peer() })
	h := newH2Client(t, b.addr)
	id := h.grpcCall("/a.B/C")
	h.wantHead(id, "200", false)
	h.ok(h.fr.WriteRSTStream(id, http2.ErrCodeCancel))
	select {
	case code := <-seen:
		if code != http2.ErrCodeCancel {
			t.Errorf("the origin saw %s", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the origin hears nothing")
	}
	b.wantDone("200 client_gone")
	id = h.grpcCall("/reset")
	h.wantHead(id, "200", false)
	h.wantData(id, "part", false)
	h.wantReset(id, http2.ErrCodeInternal)
	b.wantDone("200 upstream_reset")
}

// TestGRPCSilence: a conversation may be silent for as long as a tunnel may; an
// ordinary upload may not, nor an origin that has the whole request.
func TestGRPCSilence(t *testing.T) {
	run := func(t *testing.T, f func(t *testing.T, h *h2Client, o *frameConn, id uint32), fields ...string) {
		synctest.Test(t, func(t *testing.T) {
			l := memnet.Listen()
			conns := make(chan *frameConn)
			done := make(chan struct{})
			startFrameOrigin(t, l, nil, func(c *frameConn) {
				conns <- c
				<-done
			})
			peer := &cirque.Peer{Addr: "origin:1", Protocol: cirque.ProtocolH2C, HTTP2: cirque.HTTP2{PingEvery: -1},
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) { return l.Dial(ctx, network, addr) }}
			transport := &cirque.Transport{}
			t.Cleanup(transport.Close)
			bed := cirquetest.NewServer(t, &cirque.Server{H2C: true, HTTP2: cirque.HTTP2{PingEvery: -1}, Proxy: &cirque.Proxy{
				LogError: func(*cirque.Session, *cirque.Error) {}, Transport: transport,
				Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
			}})
			nc := bed.Dial()
			defer nc.Close()
			defer close(done)
			h := newH2ClientOn(t, nc)
			id := h.open(false, append([]string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a.example"}, fields...)...)
			o := <-conns
			r := o.request()
			o.head(r.StreamID, false, ":status", "200")
			h.wantHead(id, "200", false)
			f(t, h, o, id)
		})
	}
	t.Run("conversation", func(t *testing.T) {
		run(t, func(t *testing.T, h *h2Client, o *frameConn, id uint32) {
			for range 3 {
				time.Sleep(40 * time.Minute)
				h.ok(h.fr.WriteData(id, false, []byte("ping")))
				f, err := o.data(1)
				if d, ok := f.(*http2.DataFrame); !ok || string(d.Data()) != "ping" {
					t.Fatal(f, err)
				}
				time.Sleep(5 * time.Minute)
				_ = o.WriteData(1, false, []byte("pong"))
				h.wantData(id, "pong", false)
			}
			began := time.Now()
			h.wantReset(id, http2.ErrCodeInternal)
			took(t, "the end of a silent conversation", began, 55*time.Minute-200*time.Millisecond) // the clock is coarse
		}, "content-type", "application/grpc")
	})
	t.Run("upload", func(t *testing.T) {
		run(t, func(t *testing.T, h *h2Client, o *frameConn, id uint32) {
			began := time.Now()
			h.wantReset(id, http2.ErrCodeInternal)
			took(t, "the end of a silent upload", began, 10*time.Second)
		})
	})
	t.Run("whole request", func(t *testing.T) {
		run(t, func(t *testing.T, h *h2Client, o *frameConn, id uint32) {
			h.ok(h.fr.WriteData(id, true, nil))
			began := time.Now()
			h.wantReset(id, http2.ErrCodeInternal)
			// The wait that began before the request's end is not the origin's alone.
			took(t, "the end of a silent origin", began, 2*60*time.Second)
		}, "content-type", "application/grpc")
	})
}

// TestOwnLimitsH2: Session.SetClientLimits bounds a request of HTTP/2.
func TestOwnLimitsH2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		defer wg.Wait()
		bed := cirquetest.NewServer(t, &cirque.Server{H2C: true, HTTP2: cirque.HTTP2{PingEvery: -1}, Proxy: &cirque.Proxy{
			LogError: func(*cirque.Session, *cirque.Error) {},
			Filters: []cirque.Filter{{Name: "own", Request: func(s *cirque.Session) error {
				return s.SetClientLimits(cirque.ClientLimits{Body: 3 * time.Second, MinRate: -1})
			}}},
		}})
		bed.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
		nc := bed.Dial()
		defer nc.Close()
		h := newH2ClientOn(t, nc)
		began := time.Now()
		id := h.open(false, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a.example")
		h.wantHead(id, "408", false)
		took(t, "a stalled body", began, 3*time.Second)
	})
}
