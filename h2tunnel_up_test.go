package cirque_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/testcert"
)

var offersConnect = []http2.Setting{{ID: http2.SettingEnableConnectProtocol, Val: 1}}

// data returns the next frame of a stream, having given its credit back.
func (c *frameConn) data(id uint32) (http2.Frame, error) {
	for {
		f, err := c.ReadFrame()
		if err != nil || f.Header().StreamID != id {
			if err != nil {
				return nil, err
			}
			if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
				_ = c.WriteSettingsAck()
			}
			continue
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			if n := uint32(len(f.Data())); n > 0 {
				_ = c.WriteWindowUpdate(0, n)
				_ = c.WriteWindowUpdate(id, n)
			}
			return f, nil
		case *http2.WindowUpdateFrame:
		default:
			return f, nil
		}
	}
}

// echoTunnel sends back what comes, and at its end "last", with the end.
func (c *frameConn) echoTunnel(id uint32) {
	for {
		f, err := c.data(id)
		d, ok := f.(*http2.DataFrame)
		if err != nil || !ok {
			return
		}
		if len(d.Data()) > 0 {
			_ = c.WriteData(id, false, d.Data())
		}
		if d.StreamEnded() {
			_ = c.WriteData(id, true, []byte("last"))
			return
		}
	}
}

func metaFields(m *http2.MetaHeadersFrame) map[string]string {
	fields := map[string]string{}
	for _, f := range m.Fields {
		fields[f.Name] = f.Value
	}
	return fields
}

// wsClient is either kind of client at the beginning of a WebSocket.
type wsClient struct {
	h1 *end
	h2 *h2Client
	id uint32
}

func (b *tunnelBed) websocket(protocol, early string) wsClient {
	b.t.Helper()
	if protocol == "h2" {
		h := newH2Client(b.t, b.addr)
		id := h.websocket("/chat?x=1", "sec-websocket-protocol", "talk")
		h.ok(h.fr.WriteData(id, false, []byte(early)))
		return wsClient{h2: h, id: id}
	}
	nc, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	c := newEnd(nc)
	// The key and the answer to it are the example of RFC 6455, section 4.2.2.
	c.send(b.t, "GET /chat?x=1 HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: talk\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"+early)
	return wsClient{h1: c}
}

// agreed reads the answer to the handshake, which must be the switch.
func (c wsClient) agreed(t *testing.T) {
	t.Helper()
	if c.h2 != nil {
		if got := c.h2.wantHead(c.id, "200", false)["sec-websocket-protocol"]; got != "talk" {
			t.Errorf("the subprotocol is %q", got)
		}
		return
	}
	head := c.h1.head(t)
	if head[0] != "HTTP/1.1 101 Switching Protocols" || field(head, "Upgrade") != "websocket" || field(head, "Connection") != "upgrade" ||
		field(head, "Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || field(head, "Sec-WebSocket-Protocol") != "talk" ||
		field(head, "Content-Length")+field(head, "Transfer-Encoding") != "" {
		t.Fatalf("the client got %q", head)
	}
}

func (c wsClient) write(t *testing.T, text string) {
	t.Helper()
	if c.h1 != nil {
		c.h1.send(t, text)
		return
	}
	for part := text; part != ""; part = part[min(len(part), 8000):] {
		c.h2.ok(c.h2.fr.WriteData(c.id, false, []byte(part[:min(len(part), 8000)])))
	}
}

func (c wsClient) want(t *testing.T, text string) {
	t.Helper()
	if c.h1 != nil {
		c.h1.want(t, text)
		return
	}
	c.h2.wantData(c.id, text, false)
}

// finish ends the client's direction and wants the rest of the other one.
func (c wsClient) finish(t *testing.T, rest string) {
	t.Helper()
	if c.h1 != nil {
		c.h1.fin(t)
		c.h1.want(t, rest)
		c.h1.wantEOF(t)
		return
	}
	c.h2.ok(c.h2.fr.WriteData(c.id, true, nil))
	c.h2.wantData(c.id, rest, true)
}

// RFC 8441, section 4 and section 5: an upgrade to an origin of HTTP/2 is an extended
// CONNECT. Nothing follows it before the origin agreed, and nothing is lost (V2, V9).
func TestWebSocketToH2(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			var problem string
			var mu sync.Mutex
			o := startFrameOrigin(t, listenLoopback(t), offersConnect, func(c *frameConn) {
				r := c.request()
				if r == nil {
					return
				}
				got := metaFields(r)
				_, hasKey := got["sec-websocket-key"]
				_, hasLength := got["content-length"]
				mu.Lock()
				if got[":method"] != "CONNECT" || got[":protocol"] != "websocket" || got[":path"] != "/chat?x=1" || got[":authority"] != "a.example" ||
					got["sec-websocket-version"] != "13" || got["sec-websocket-protocol"] != "talk" || hasKey || hasLength || r.StreamEnded() {
					problem = fmt.Sprint("the origin got ", got)
				}
				_ = c.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if f, err := c.data(r.StreamID); err == nil {
					problem = fmt.Sprint("before it agreed the origin got ", f)
				}
				mu.Unlock()
				_ = c.nc.SetReadDeadline(time.Time{})
				// RFC 9110, section 9.3.6: a length in the answer to CONNECT means nothing.
				c.head(r.StreamID, false, ":status", "200", "sec-websocket-protocol", "talk", "content-length", "0")
				c.echoTunnel(r.StreamID)
				_ = c.request()
			})
			b := newTunnelBed(t, func(b *tunnelBed) { b.peer = o.peer() })
			c := b.websocket(protocol, "early")
			c.agreed(t)
			c.want(t, "early")
			// More than any window holds, and no more at a time than the echo may hold.
			part := strings.Repeat("0123456789abcdef", 1000)
			for range 20 {
				c.write(t, part)
				c.want(t, part)
			}
			c.finish(t, "last")
			b.wantDone("101 none")
			mu.Lock()
			defer mu.Unlock()
			if problem != "" {
				t.Error(problem)
			}
		})
	}
}

// A refusal is an ordinary response.
func TestWebSocketToH2Refused(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		o := startFrameOrigin(t, listenLoopback(t), offersConnect, func(c *frameConn) {
			for r := c.request(); r != nil; r = c.request() {
				c.head(r.StreamID, false, ":status", "403", "x-why", "no", "content-length", "7")
				_ = c.WriteData(r.StreamID, true, []byte("not you"))
			}
		})
		b := newTunnelBed(t, func(b *tunnelBed) { b.peer = o.peer() })
		c := b.websocket(protocol, "")
		if c.h2 != nil {
			if c.h2.wantHead(c.id, "403", false)["x-why"] != "no" {
				t.Error("a field is missing")
			}
			c.h2.wantData(c.id, "not you", true)
		} else {
			if head := c.h1.head(t); head[0] != "HTTP/1.1 403 Forbidden" || field(head, "X-Why") != "no" {
				t.Errorf("the client got %q", head)
			}
			c.h1.want(t, "not you")
			c.h1.wantEOF(t)
		}
		b.wantDone("403 none")
	}
}

// RFC 8441, section 3: an origin that does not offer extended CONNECT is not asked. One
// that speaks HTTP/2 alone makes it a 502.
func TestWebSocketToH2Without(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		o := startFrameOrigin(t, listenLoopback(t), nil, func(c *frameConn) {
			if r := c.request(); r != nil {
				t.Errorf("the origin was asked %v", metaFields(r))
			}
		})
		b := newTunnelBed(t, func(b *tunnelBed) { b.peer = o.peer() })
		c := b.websocket(protocol, "")
		if c.h2 != nil {
			c.h2.wantHead(c.id, "502", false)
		} else if head := c.h1.head(t); head[0] != "HTTP/1.1 502 Bad Gateway" {
			t.Errorf("the client got %q", head)
		}
		b.wantDone("502 upstream_no_switch")
	}
}

// Where HTTP/1.1 may be spoken too, it is, on a connection of its own, while other
// requests go on over HTTP/2.
func TestWebSocketFallsBack(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	var protos []string
	var mu sync.Mutex
	conns := make(chan net.Conn, 10)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		protos = append(protos, r.Proto+" "+r.Method)
		mu.Unlock()
		if r.Header.Get("Upgrade") == "" {
			return
		}
		wsOrigin(conns).ServeHTTP(w, r)
	})}
	l := listenLoopback(t)
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*ca.Server("a.test").TLS()}}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.ServeTLS(l, "", "") })
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	b := newTunnelBed(t, func(b *tunnelBed) {
		b.peer = &cirque.Peer{Addr: l.Addr().String(), TLS: &cirque.PeerTLS{CAs: []*x509.Certificate{ca.X509}, ServerName: "a.test"}}
	})
	for _, protocol := range []string{"h1", "h2"} {
		if status := post(t, "http://"+b.addr); status != 200 {
			t.Fatalf("status %d", status)
		}
		b.wantDone("200 none")
		c := b.websocket(protocol, "early")
		if c.h2 != nil {
			c.h2.wantHead(c.id, "200", false)
		} else if head := c.h1.head(t); head[0] != "HTTP/1.1 101 Switching Protocols" {
			t.Fatalf("the client got %q", head)
		}
		o := <-conns
		got := make([]byte, 5)
		if _, err := io.ReadFull(o, got); err != nil || string(got) != "early" {
			t.Errorf("the origin got %q, %v", got, err)
		}
		_, _ = io.WriteString(o, "hello")
		c.want(t, "hello")
		_ = o.(*tls.Conn).CloseWrite()
		c.finish(t, "")
		b.wantDone("101 none")
		o.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if got, want := strings.Join(protos, ", "), "HTTP/2.0 POST, HTTP/1.1 GET, HTTP/2.0 POST, HTTP/1.1 GET"; got != want {
		t.Errorf("the origin was asked by %s, want %s", got, want)
	}
}

// Ends that are none reach the other side as such.
func TestWebSocketToH2Ends(t *testing.T) {
	t.Run("origin resets", func(t *testing.T) {
		o := startFrameOrigin(t, listenLoopback(t), offersConnect, func(c *frameConn) {
			if r := c.request(); r != nil {
				c.head(r.StreamID, false, ":status", "200", "sec-websocket-protocol", "talk")
				_ = c.WriteData(r.StreamID, false, []byte("some"))
				_ = c.WriteRSTStream(r.StreamID, http2.ErrCodeInternal)
				_ = c.request()
			}
		})
		for _, protocol := range []string{"h1", "h2"} {
			b := newTunnelBed(t, func(b *tunnelBed) { b.peer = o.peer() })
			c := b.websocket(protocol, "")
			c.agreed(t)
			c.want(t, "some")
			if c.h2 != nil {
				c.h2.wantReset(c.id, http2.ErrCodeCancel)
			} else if _, err := c.h1.r.ReadByte(); err == nil {
				t.Error("the client got more")
			}
			b.wantDone("101 tunnel_ended")
		}
	})
	t.Run("client goes", func(t *testing.T) {
		for _, protocol := range []string{"h1", "h2"} {
			seen := make(chan string, 1)
			o := startFrameOrigin(t, listenLoopback(t), offersConnect, func(c *frameConn) {
				r := c.request()
				if r == nil {
					return
				}
				c.head(r.StreamID, false, ":status", "200", "sec-websocket-protocol", "talk")
				var all bytes.Buffer
				for {
					f, err := c.data(r.StreamID)
					if d, ok := f.(*http2.DataFrame); ok && !d.StreamEnded() {
						all.Write(d.Data())
						continue
					}
					if rst, ok := f.(*http2.RSTStreamFrame); ok {
						fmt.Fprint(&all, " ", rst.ErrCode)
					} else {
						fmt.Fprint(&all, " ", f, err)
					}
					seen <- all.String()
					return
				}
			})
			b := newTunnelBed(t, func(b *tunnelBed) { b.peer = o.peer() })
			c := b.websocket(protocol, "")
			c.agreed(t)
			c.write(t, "last words")
			if c.h2 != nil {
				c.h2.ok(c.h2.fr.WriteRSTStream(c.id, http2.ErrCodeCancel))
			} else {
				_ = c.h1.Conn.(*net.TCPConn).SetLinger(0)
				c.h1.Close()
			}
			got := <-seen
			if protocol == "h2" && got != "last words CANCEL" || !strings.HasSuffix(got, " CANCEL") {
				t.Errorf("%s: the origin saw %q", protocol, got)
			}
			b.wantDone("101 tunnel_ended")
		}
	})
}

// CONNECT without :protocol is the bare connection to the peer, never a stream.
func TestConnectToH2Peer(t *testing.T) {
	b := newTunnelBed(t, func(b *tunnelBed) {
		b.proxy.AllowConnect = true
		b.peer.Protocol = cirque.ProtocolH2C
	})
	h := newH2Client(t, b.addr)
	id := h.open(false, ":method", "CONNECT", ":authority", "b.example:443")
	h.ok(h.fr.WriteData(id, false, []byte("bare")))
	o := b.accept()
	h.wantHead(id, "200", false)
	o.want(t, "bare")
}

// TestTunnelsLeakNothing: V9: however a tunnel ends, both of its connections are given
// back.
func TestTunnelsLeakNothing(t *testing.T) {
	h2Origin := startFrameOrigin(t, listenLoopback(t), offersConnect, func(c *frameConn) {
		for r := c.request(); r != nil; r = c.request() {
			c.head(r.StreamID, false, ":status", "200", "sec-websocket-protocol", "talk")
			_ = c.WriteRSTStream(r.StreamID, http2.ErrCodeCancel)
		}
	})
	ends := map[string]func(c wsClient, o *end){
		"client resets": func(c wsClient, _ *end) {
			if c.h2 != nil {
				c.h2.c.Close()
				return
			}
			_ = c.h1.Conn.(*net.TCPConn).SetLinger(0)
			c.h1.Close()
		},
		"client ends": func(c wsClient, o *end) { c.finishAndClose(); o.Close() },
		"origin resets": func(_ wsClient, o *end) {
			_ = o.Conn.(*net.TCPConn).SetLinger(0)
			o.Close()
		},
		"origin ends": func(c wsClient, o *end) { o.Close(); c.finishAndClose() },
	}
	for _, protocol := range []string{"h1", "h2"} {
		for name, how := range ends {
			t.Run(protocol+" "+name, func(t *testing.T) {
				b := newTunnelBed(t, nil)
				for range 5 {
					c := b.websocket(protocol, "early")
					o := b.accept()
					o.send(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
						acceptOf(field(o.head(t), "Sec-WebSocket-Key"))+"\r\nSec-WebSocket-Protocol: talk\r\n\r\n")
					if c.h2 != nil {
						c.agreed(t)
					} else {
						c.h1.head(t)
					}
					o.want(t, "early")
					how(c, o)
					<-b.donec
					c.close()
				}
				b.wantNoConns(0)
			})
		}
		t.Run(protocol+" to h2", func(t *testing.T) {
			b := newTunnelBed(t, func(b *tunnelBed) { b.peer = h2Origin.peer() })
			for range 5 {
				c := b.websocket(protocol, "")
				c.agreed(t)
				<-b.donec
				c.close()
			}
			b.wantNoConns(1) // the one that carries streams
		})
	}
}

func (c wsClient) close() {
	if c.h2 != nil {
		c.h2.c.Close()
		return
	}
	c.h1.Close()
}

// finishAndClose ends the client's direction, as a client that is through does.
func (c wsClient) finishAndClose() {
	if c.h2 != nil {
		_ = c.h2.fr.WriteData(c.id, true, nil)
		return
	}
	_ = c.h1.Conn.(*net.TCPConn).CloseWrite()
}

// wantNoConns waits till the server has no connection, and the Transport up of them.
func (b *tunnelBed) wantNoConns(up int64) {
	b.t.Helper()
	late, again := time.After(10*time.Second), time.NewTicker(5*time.Millisecond)
	defer again.Stop()
	for {
		s, n := b.srv.Stats(), b.proxy.Transport.Stats().Conns
		if s.ConnsNew+s.ConnsActive+s.ConnsIdle+s.ConnsParked == 0 && n == up {
			return
		}
		select {
		case <-again.C:
		case <-late:
			b.t.Fatalf("left are %+v and %d to origins", s, n)
		}
	}
}
