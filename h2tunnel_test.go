package cirque_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/cirquetest"
)

// h2Client is a client of HTTP/2 that sends and expects frames, with a framer that
// is not ours. It answers SETTINGS by itself.
type h2Client struct {
	t    *testing.T
	c    net.Conn
	fr   *http2.Framer
	buf  bytes.Buffer
	enc  *hpack.Encoder
	next uint32
	peer map[http2.SettingID]uint32
}

func newH2Client(t *testing.T, addr string) *h2Client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return newH2ClientOn(t, c)
}

func newH2ClientOn(t *testing.T, c net.Conn) *h2Client {
	t.Helper()
	h := &h2Client{t: t, c: c, fr: http2.NewFramer(c, c), next: 1, peer: map[http2.SettingID]uint32{}}
	h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.enc = hpack.NewEncoder(&h.buf)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	h.ok(h.fr.WriteSettings())
	return h
}

func (h *h2Client) ok(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// open sends a head of names and values and returns its stream.
func (h *h2Client) open(end bool, fields ...string) uint32 {
	h.t.Helper()
	h.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		h.ok(h.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	id := h.next
	h.next += 2
	h.ok(h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.buf.Bytes(), EndHeaders: true, EndStream: end}))
	return id
}

// websocket begins a WebSocket by extended CONNECT.
func (h *h2Client) websocket(path string, more ...string) uint32 {
	h.t.Helper()
	return h.open(false, append([]string{
		":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", path, ":authority", "a.example",
		"sec-websocket-version", "13",
	}, more...)...)
}

// frame returns the next frame that is not about the connection.
func (h *h2Client) frame() http2.Frame {
	h.t.Helper()
	for {
		f, err := h.fr.ReadFrame()
		h.ok(err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.ok(f.ForeachSetting(func(s http2.Setting) error { h.peer[s.ID] = s.Val; return nil }))
				h.ok(h.fr.WriteSettingsAck())
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				h.ok(h.fr.WritePing(true, f.Data))
			}
		case *http2.WindowUpdateFrame, *http2.GoAwayFrame:
		default:
			return f
		}
	}
}

// wantHead reads a head and returns its fields.
func (h *h2Client) wantHead(id uint32, status string, end bool) map[string]string {
	h.t.Helper()
	f := h.frame()
	m, ok := f.(*http2.MetaHeadersFrame)
	if !ok || m.StreamID != id || m.StreamEnded() != end {
		h.t.Fatalf("got %v, want HEADERS of stream %d, end %t", f, id, end)
	}
	fields := map[string]string{}
	for _, f := range m.Fields {
		fields[f.Name] = f.Value
	}
	if fields[":status"] != status {
		h.t.Fatalf("got status %s %v, want %s", fields[":status"], fields, status)
	}
	return fields
}

// wantData reads the text and, with end, the stream's end.
func (h *h2Client) wantData(id uint32, text string, end bool) {
	h.t.Helper()
	got := ""
	for {
		f := h.frame()
		d, ok := f.(*http2.DataFrame)
		if !ok || d.StreamID != id {
			h.t.Fatalf("got %v after %q, want DATA of stream %d", f, got, id)
		}
		got += string(d.Data())
		if n := uint32(len(d.Data())); n > 0 {
			h.ok(h.fr.WriteWindowUpdate(0, n))
			if !d.StreamEnded() {
				h.ok(h.fr.WriteWindowUpdate(id, n))
			}
		}
		if d.StreamEnded() || !end && len(got) >= len(text) {
			if got != text || d.StreamEnded() != end {
				h.t.Fatalf("got %.100q, end %t; want %.100q, end %t", got, d.StreamEnded(), text, end)
			}
			return
		}
	}
}

func (h *h2Client) wantReset(id uint32, code http2.ErrCode) {
	h.t.Helper()
	f := h.frame()
	if r, ok := f.(*http2.RSTStreamFrame); !ok || r.StreamID != id || r.ErrCode != code {
		h.t.Fatalf("got %v, want RST_STREAM of stream %d with %s", f, id, code)
	}
}

// tunnelBed is a proxy before an origin that the test plays.
type tunnelBed struct {
	t      *testing.T
	srv    *cirque.Server
	proxy  *cirque.Proxy
	peer   *cirque.Peer
	addr   string
	origin net.Listener
	donec  chan string
}

func newTunnelBed(t *testing.T, change func(*tunnelBed)) *tunnelBed {
	t.Helper()
	b := &tunnelBed{t: t, donec: make(chan string, 100)}
	var err error
	if b.origin, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = front.Addr().String()
	b.peer = cirque.NewPeer(b.origin.Addr().String())
	b.proxy = &cirque.Proxy{
		Transport: &cirque.Transport{}, LogError: func(*cirque.Session, *cirque.Error) {},
		Forwarding: cirque.Forwarding{NoXForwarded: true, Via: "-", RequestID: "-"},
		Peer:       func(*cirque.Session) (*cirque.Peer, error) { return b.peer, nil },
		Filters: []cirque.Filter{{Name: "recorder", Done: func(s *cirque.Session, err error) {
			why := "none"
			if e, ok := err.(*cirque.Error); ok {
				why = e.Reason.String()
			}
			b.donec <- fmt.Sprint(s.Response().Status, " ", why)
		}}},
	}
	b.srv = &cirque.Server{H2C: true, Proxy: b.proxy}
	if change != nil {
		change(b)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.srv.Serve(front) })
	t.Cleanup(func() {
		_ = b.srv.Close()
		b.proxy.Transport.Close()
		b.origin.Close()
		wg.Wait()
	})
	return b
}

// accept returns the origin's end of the next connection.
func (b *tunnelBed) accept() *end {
	b.t.Helper()
	c, err := b.origin.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return newEnd(c)
}

// head reads a head and returns its lines.
func (e *end) head(t *testing.T) []string {
	t.Helper()
	var lines []string
	for {
		line, err := e.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line = strings.TrimSuffix(line, "\r\n"); line == "" {
			return lines
		}
		lines = append(lines, line)
	}
}

func (e *end) want(t *testing.T, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(e.r, got); err != nil || string(got) != text {
		t.Fatalf("got %.100q, want %.100q: %v", got[:n], text, err)
	}
}

func (e *end) wantEOF(t *testing.T) {
	t.Helper()
	if b, err := io.ReadAll(e.r); err != nil || len(b) > 0 {
		t.Fatalf("got %.100q, %v, want the end", b, err)
	}
}

func (e *end) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(e, text); err != nil {
		t.Fatal(err)
	}
}

func (e *end) fin(t *testing.T) {
	t.Helper()
	if err := e.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func (b *tunnelBed) wantDone(want string) {
	b.t.Helper()
	select {
	case got := <-b.donec:
		if got != want {
			b.t.Errorf("the session ended as %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		b.t.Fatal("the session does not end")
	}
}

func field(lines []string, name string) string {
	for _, l := range lines {
		if n, v, _ := strings.Cut(l, ": "); strings.EqualFold(n, name) {
			return v
		}
	}
	return ""
}

// RFC 8441, section 4: an extended CONNECT for websocket is an upgrade to an origin of
// HTTP/1.1. RFC 8441, section 5: the key is ours, and the 200 has no accept. RFC
// 6455, section 4.1 and section 4.2.2: who sent the key checks the answer. What the
// client sends with its request waits for the origin's 101 (V2, V9).
func TestWebSocketH2ToH1(t *testing.T) {
	b := newTunnelBed(t, nil)
	c := newH2Client(t, b.addr)
	id := c.websocket("/chat?x=1", "sec-websocket-protocol", "talk", "origin", "http://a.example", "sec-websocket-key", "the client's own")
	c.ok(c.fr.WriteData(id, false, []byte("early")))
	o := b.accept()
	head := o.head(t)
	key := field(head, "Sec-WebSocket-Key")
	if head[0] != "GET /chat?x=1 HTTP/1.1" || field(head, "Upgrade") != "websocket" || field(head, "Connection") != "upgrade" ||
		field(head, "Host") != "a.example" || field(head, "Sec-WebSocket-Protocol") != "talk" || field(head, "Content-Length") != "" ||
		len(key) != 24 {
		t.Fatalf("the origin got %q", head)
	}
	_ = o.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if got, err := o.r.ReadByte(); err == nil {
		t.Fatalf("the origin got %q before it agreed", got)
	}
	_ = o.SetReadDeadline(time.Now().Add(10 * time.Second))
	o.send(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+acceptOf(key)+
		"\r\nSec-WebSocket-Protocol: talk\r\n\r\nfast")
	fields := c.wantHead(id, "200", false)
	if c.peer[http2.SettingEnableConnectProtocol] != 1 {
		t.Error("extended CONNECT is not offered")
	}
	for _, name := range []string{"upgrade", "connection", "sec-websocket-accept", "content-length", "transfer-encoding"} {
		if v, ok := fields[name]; ok {
			t.Errorf("the answer has %s: %s", name, v)
		}
	}
	if fields["sec-websocket-protocol"] != "talk" {
		t.Errorf("the answer is %v", fields)
	}
	c.wantData(id, "fast", false)
	o.want(t, "early")
	up, down := strings.Repeat("abc", 20000), strings.Repeat("xyz", 100000)
	for part := up; part != ""; part = part[min(len(part), 10000):] {
		c.ok(c.fr.WriteData(id, false, []byte(part[:min(len(part), 10000)])))
	}
	o.want(t, up)
	go func() { _, _ = io.WriteString(o, down) }()
	c.wantData(id, down, false)
	// Each direction ends by itself.
	c.ok(c.fr.WriteData(id, true, []byte("bye")))
	o.want(t, "bye")
	o.wantEOF(t)
	o.send(t, "last")
	o.fin(t)
	c.wantData(id, "last", true)
	b.wantDone("101 none")
}

// A tunnel whose origin ends first, and ends of either side that are none.
func TestWebSocketH2Ends(t *testing.T) {
	begin := func(t *testing.T) (*tunnelBed, *h2Client, uint32, *end) {
		b := newTunnelBed(t, nil)
		c := newH2Client(t, b.addr)
		id := c.websocket("/")
		o := b.accept()
		o.send(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
			acceptOf(field(o.head(t), "Sec-WebSocket-Key"))+"\r\n\r\n")
		c.wantHead(id, "200", false)
		return b, c, id, o
	}
	t.Run("origin first", func(t *testing.T) {
		b, c, id, o := begin(t)
		o.send(t, "done")
		o.fin(t)
		c.wantData(id, "done", true)
		c.ok(c.fr.WriteData(id, true, []byte("me too")))
		o.want(t, "me too")
		o.wantEOF(t)
		b.wantDone("101 none")
	})
	t.Run("client resets", func(t *testing.T) {
		b, c, id, o := begin(t)
		c.ok(c.fr.WriteData(id, false, []byte("last words")))
		c.ok(c.fr.WriteRSTStream(id, http2.ErrCodeCancel))
		o.want(t, "last words")
		o.wantEOF(t)
		b.wantDone("101 tunnel_ended")
	})
	t.Run("client resets after its end", func(t *testing.T) {
		b, c, id, o := begin(t)
		c.ok(c.fr.WriteData(id, true, []byte("x")))
		o.want(t, "x")
		o.wantEOF(t)
		c.ok(c.fr.WriteRSTStream(id, http2.ErrCodeCancel))
		b.wantDone("101 tunnel_ended")
	})
	t.Run("client goes", func(t *testing.T) {
		b, c, _, o := begin(t)
		c.c.Close()
		o.wantEOF(t)
		b.wantDone("101 tunnel_ended")
	})
	t.Run("origin resets", func(t *testing.T) {
		b, c, id, o := begin(t)
		_ = o.Conn.(*net.TCPConn).SetLinger(0)
		o.Close()
		// RFC 8441, section 5: a reset is a reset with CANCEL.
		c.wantReset(id, http2.ErrCodeCancel)
		b.wantDone("101 tunnel_ended")
	})
}

// What is no switch is an ordinary response, except where it would be a tunnel to the
// client.
func TestWebSocketH2Refused(t *testing.T) {
	for _, c := range []struct{ name, answer, status, done string }{
		{"refused", "HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 7\r\n\r\nnot you", "403", "403 none"},
		{"ignored", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "502", "502 upstream_no_switch"},
		{"wrong accept", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n", "502", "502 upstream_no_switch"},
		{"no accept", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "502", "502 upstream_no_switch"},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n", "502", "502 upstream_no_switch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newTunnelBed(t, nil)
			h := newH2Client(t, b.addr)
			id := h.websocket("/")
			h.ok(h.fr.WriteData(id, false, []byte("early")))
			o := b.accept()
			o.head(t)
			o.send(t, c.answer)
			fields := h.wantHead(id, c.status, false)
			if c.status == "403" {
				if fields["x-why"] != "no" {
					t.Errorf("the answer is %v", fields)
				}
				h.wantData(id, "not you", true)
			}
			b.wantDone(c.done)
			if c.status != "403" {
				return
			}
			// The connection goes on, and nothing of the early bytes is parsed.
			h.wantReset(id, http2.ErrCodeNo)
			id = h.open(true, ":method", "GET", ":scheme", "http", ":path", "/next", ":authority", "a.example")
			if o.r.Buffered() > 0 {
				t.Error("the origin got more than a request")
			}
			if head := o.head(t); head[0] != "GET /next HTTP/1.1" {
				o = b.accept()
			}
			o.send(t, "HTTP/1.1 204 No Content\r\n\r\n")
			h.wantHead(id, "204", true)
		})
	}
}

// RFC 8441, section 4: a protocol that is not known gets 501. V8: h2c is none that an
// option could allow.
func TestConnectProtocols(t *testing.T) {
	ask := func(t *testing.T, b *tunnelBed, protocol string) (*h2Client, uint32) {
		h := newH2Client(t, b.addr)
		return h, h.open(false, ":method", "CONNECT", ":protocol", protocol, ":scheme", "http", ":path", "/", ":authority", "a.example")
	}
	allowed := func(b *tunnelBed) { b.proxy.ConnectProtocols = []string{"connect-udp", "h2c"} }
	for _, c := range []struct {
		protocol string
		change   func(*tunnelBed)
	}{{"connect-udp", nil}, {"h2c", nil}, {"h2c", allowed}, {"other", allowed}} {
		b := newTunnelBed(t, c.change)
		h, id := ask(t, b, c.protocol)
		h.wantHead(id, "501", false)
		b.wantDone("501 protocol_refused")
	}
	b := newTunnelBed(t, allowed)
	h, id := ask(t, b, "connect-udp")
	o := b.accept()
	if head := o.head(t); field(head, "Upgrade") != "connect-udp" || field(head, "Sec-WebSocket-Key") != "" {
		t.Errorf("the origin got %q", head)
	}
	o.send(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: connect-udp\r\nConnection: Upgrade\r\n\r\n")
	h.wantHead(id, "200", false)
	h.ok(h.fr.WriteData(id, true, []byte("x")))
	o.want(t, "x")
	o.fin(t)
	h.wantData(id, "", true)
	b.wantDone("101 none")
}

// RFC 9113, section 8.5: CONNECT; RFC 9110, section 15.5.6: 405 unless it is allowed,
// and the connection stays (H22).
func TestConnectH2(t *testing.T) {
	b := newTunnelBed(t, nil)
	h := newH2Client(t, b.addr)
	id := h.open(false, ":method", "CONNECT", ":authority", "b.example:443")
	if fields := h.wantHead(id, "405", false); fields["allow"] == "" {
		t.Errorf("the answer is %v", fields)
	}
	b.wantDone("405 method_refused")

	b = newTunnelBed(t, func(b *tunnelBed) { b.proxy.AllowConnect = true })
	h = newH2Client(t, b.addr)
	id = h.open(false, ":method", "CONNECT", ":authority", "b.example:443")
	h.ok(h.fr.WriteData(id, false, []byte("early")))
	o := b.accept()
	h.wantHead(id, "200", false)
	o.want(t, "early")
	o.send(t, "back")
	h.wantData(id, "back", false)
	h.ok(h.fr.WriteData(id, true, nil))
	o.wantEOF(t)
	o.fin(t)
	h.wantData(id, "", true)
	b.wantDone("200 none")
}

// wsOrigin accepts WebSockets and gives their connections to the test.
func wsOrigin(conns chan net.Conn) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nc, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
			acceptOf(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
		conns <- nc
	})
}

// wsEnds are both ends of a tunnel, whatever protocol the client speaks.
type wsEnds struct {
	origin net.Conn
	send   func(text string)
	want   func(text string)
	ended  func() // waits for the end of the client's side
	close  func()
}

// beginTunnel makes a tunnel through the bed.
func beginTunnel(t *testing.T, bed *cirquetest.Bed, protocol string, conns chan net.Conn) wsEnds {
	t.Helper()
	nc := bed.Dial()
	w := wsEnds{close: func() { nc.Close() }}
	if protocol == "h2" {
		h := newH2ClientOn(t, nc)
		id := h.websocket("/")
		w.origin = <-conns
		h.wantHead(id, "200", false)
		w.send = func(text string) { h.ok(h.fr.WriteData(id, false, []byte(text))) }
		w.want = func(text string) { h.wantData(id, text, false) }
		w.ended = func() {
			switch f := h.frame().(type) {
			case *http2.DataFrame:
				if !f.StreamEnded() || len(f.Data()) > 0 {
					t.Errorf("got %v, want the end", f)
				}
			case *http2.RSTStreamFrame:
			default:
				t.Errorf("got %v, want the end", f)
			}
		}
		return w
	}
	c := newEnd(nc)
	c.send(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	w.origin = <-conns
	c.head(t)
	w.send = func(text string) { c.send(t, text) }
	w.want = func(text string) { c.want(t, text) }
	w.ended = func() {
		if b, err := c.r.ReadByte(); err == nil {
			t.Errorf("got %q, want the end", b)
		}
	}
	return w
}

// tunnelBubble runs f for both protocols of a client, on fake time.
func tunnelBubble(t *testing.T, srv func() *cirque.Server, f func(t *testing.T, bed *cirquetest.Bed, begin func() wsEnds)) {
	for _, protocol := range []string{"h1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := srv()
				s.H2C = true
				s.Proxy = &cirque.Proxy{LogError: func(*cirque.Session, *cirque.Error) {}}
				bed := cirquetest.NewServer(t, s)
				conns := make(chan net.Conn, 1)
				bed.Origin(wsOrigin(conns))
				f(t, bed, func() wsEnds { return beginTunnel(t, bed, protocol, conns) })
			})
		})
	}
}

// Tunnels have an idle time of their own, which counts for both directions together.
func TestTunnelIdle(t *testing.T) {
	srv := func() *cirque.Server { return &cirque.Server{HTTP2: cirque.HTTP2{PingEvery: -1}} }
	tunnelBubble(t, srv, func(t *testing.T, bed *cirquetest.Bed, begin func() wsEnds) {
		w := begin()
		defer w.close()
		defer w.origin.Close()
		for range 3 { // one direction keeps the other alive
			time.Sleep(50 * time.Minute)
			_, _ = io.WriteString(w.origin, ".")
			w.want(".")
		}
		began := time.Now()
		if _, err := w.origin.Read(make([]byte, 1)); err == nil {
			t.Error("the origin got something")
		}
		w.ended()
		// A direction that was alive when the other one's time was over gets another.
		if took := time.Since(began); took < time.Hour || took > 2*time.Hour {
			t.Errorf("the end of an idle tunnel took %s", took)
		}
	})
}

// A tunnel does not hold a shutdown for longer than TunnelDrain, and its client gets
// an end rather than a cut.
func TestTunnelDrain(t *testing.T) {
	tunnelBubble(t, func() *cirque.Server { return &cirque.Server{} }, func(t *testing.T, bed *cirquetest.Bed, begin func() wsEnds) {
		w := begin()
		defer w.origin.Close()
		began := time.Now()
		donec := make(chan error, 1)
		go func() { donec <- bed.Server().Shutdown(context.Background()) }()
		time.Sleep(5 * time.Second) // it goes on meanwhile
		w.send("still here")
		got := make([]byte, 10)
		if _, err := io.ReadFull(w.origin, got); err != nil || string(got) != "still here" {
			t.Errorf("the origin got %q, %v", got, err)
		}
		w.ended()
		took(t, "the tunnel's end", began, 10*time.Second)
		w.close()
		if err := <-donec; err != nil {
			t.Error(err)
		}
		if end := bed.Wait()[0]; end.Err != nil {
			t.Errorf("the session ended by %v", end.Err)
		}
	})
}

// acceptOf is RFC 6455's answer to a key.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
