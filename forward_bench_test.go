package cirque_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/cirqueproxy/cirque"
)

// rawOrigin answers every request head with one fixed response, with nothing
// allocated per request.
func rawOrigin(tb testing.TB, response []byte) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c, response)
		}
	}()
	return l.Addr().String()
}

func answer(c net.Conn, response []byte) {
	defer c.Close()
	b := make([]byte, 64<<10)
	n := 0
	for {
		k, err := c.Read(b[n:])
		if err != nil {
			return
		}
		if n += k; !bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) {
			continue
		}
		n = 0
		if _, err := c.Write(response); err != nil {
			return
		}
	}
}

// rawClient sends one fixed request and reads a response of a known length.
type rawClient struct {
	tb      testing.TB
	c       net.Conn
	request []byte
	b       []byte
}

func (c *rawClient) do() {
	if _, err := c.c.Write(c.request); err != nil {
		c.tb.Fatal(err)
	}
	if _, err := io.ReadFull(c.c, c.b); err != nil {
		c.tb.Fatal(err)
	}
}

const chromeRequest = "GET /assets/app.js?v=42 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n" +
	"sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n" +
	"Accept: */*\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n" +
	"Referer: https://www.example.com/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"

var smallResponse = []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Tue, 24 Nov 2026 02:00:00 GMT\r\nContent-Type: text/plain\r\n" +
	"Content-Length: 1024\r\nConnection: keep-alive\r\nETag: \"abc\"\r\n\r\n" + string(bytes.Repeat([]byte("x"), 1024)))

// newRawProxy returns a client of a proxy in front of a raw origin, after a
// first request that shows how long a response is.
func newRawProxy(tb testing.TB, filters ...cirque.Filter) (*rawClient, *cirque.Transport) {
	peer := cirque.NewPeer(rawOrigin(tb, smallResponse))
	tr := &cirque.Transport{}
	srv := &cirque.Server{Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Name: "bench", Transport: tr, Filters: filters,
		Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	donec := make(chan struct{})
	go func() { defer close(donec); _ = srv.Serve(l) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { nc.Close(); srv.Close(); tr.Close(); <-donec })
	c := &rawClient{tb: tb, c: nc, request: []byte(chromeRequest)}
	if _, err := nc.Write(c.request); err != nil {
		tb.Fatal(err)
	}
	first := make([]byte, 4096)
	n := 0
	for !bytes.HasSuffix(first[:n], []byte("xxxx")) || n < 1024 {
		k, err := nc.Read(first[n:])
		if err != nil {
			tb.Fatal(err)
		}
		n += k
	}
	if !bytes.HasPrefix(first, []byte("HTTP/1.1 200 OK\r\n")) {
		tb.Fatalf("got %q", first[:n])
	}
	c.b = make([]byte, n)
	return c, tr
}

func TestAllocsForwardH1(t *testing.T) {
	c, tr := newRawProxy(t)
	for range 100 {
		c.do()
	}
	if n := testing.AllocsPerRun(1000, c.do); n > 0 && !raceEnabled {
		t.Errorf("%v allocations per request, want 0", n)
	}
	if st := tr.Stats(); st.Connects != 1 || st.Reuses < 1000 {
		t.Errorf("the requests were not proxied on one connection: %+v", st)
	}
}

func BenchmarkForwardH1Small(b *testing.B) {
	c, tr := newRawProxy(b)
	b.ReportAllocs()
	for b.Loop() {
		c.do()
	}
	if st := tr.Stats(); st.Reuses < int64(b.N) {
		b.Errorf("only %d requests reached the origin", st.Reuses)
	}
}
