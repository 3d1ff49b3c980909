package cirque_test

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque"
)

// TestStalledStreamsMemory: a client opens all streams that it may, for large
// responses, and gives no credit. What the connection makes the whole proxy hold, down
// to its origins' connections, the streams' goroutines included, is measured.
func TestStalledStreamsMemory(t *testing.T) {
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Close()
	large := make([]byte, 1<<20)
	go func() {
		for {
			nc, err := origin.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				var head [4096]byte
				if _, err := nc.Read(head[:]); err != nil {
					return
				}
				_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n")
				_, _ = nc.Write(large)
			}()
		}
	}()
	held := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	// What the origin itself takes for connections that nobody reads.
	before := held()
	for range 100 {
		nc, err := net.Dial("tcp", origin.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := bufio.NewReaderSize(nc, 16).ReadByte(); err != nil {
			t.Fatal(err)
		}
	}
	direct := held() - before

	peer := cirque.NewPeer(origin.Addr().String())
	srv := &cirque.Server{H2C: true, Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Transport: &cirque.Transport{}, Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(nc, http2.ClientPreface)
	fr := http2.NewFramer(nc, nc)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	_ = fr.WriteSettingsAck()
	before = held()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range 100 {
		block.Reset()
		for _, f := range []string{":method GET", ":scheme http", ":authority a.example", ":path /"} {
			name, value, _ := strings.Cut(f, " ")
			_ = enc.WriteField(hpack.HeaderField{Name: name, Value: value})
		}
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndStream: true, EndHeaders: true, BlockFragment: block.Bytes()}); err != nil {
			t.Fatal(err)
		}
	}
	for heads := 0; heads < 100; {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header().Type == http2.FrameHeaders {
			heads++
		}
	}
	// Each stream holds a goroutine, a session, a connection to the origin and the
	// tiny buffer in which its body begins. (The part of HTTP/2 alone is bounded in
	// internal/h2.)
	bound := int64(24 << 10 * 100)
	if raceEnabled { // stacks are larger
		bound *= 2
	}
	if grown := held() - before - direct; grown > bound {
		t.Errorf("100 streams hold %d KiB", grown>>10)
	}
}
