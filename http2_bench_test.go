package cirque_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque"
)

// streamsConn is a client of HTTP/2 without a system call: each time that all of its
// streams are answered it asks on as many new ones.
type streamsConn struct {
	loopConn
	head   []byte // a field section
	batch  int
	left   int // requests
	open   int // not answered
	id     uint32
	out    bytes.Buffer
	again  chan struct{}
	frame  []byte // what was written of a frame header
	skip   int    // bytes of payload to come
	failed bool
}

func newStreamsConn(requests, batch int) *streamsConn {
	c := &streamsConn{batch: batch, left: requests, id: 1, again: make(chan struct{}, 1)}
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	section := func() []byte {
		b.Reset()
		for _, f := range [][2]string{
			{":method", "GET"}, {":scheme", "http"}, {":authority", "a.example"}, {":path", "/index.html"},
			{"user-agent", "bench/1.0"}, {"accept", "*/*"}, {"accept-encoding", "gzip, deflate, br"},
		} {
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		return bytes.Clone(b.Bytes())
	}
	first := section()
	c.head = section() // by indices, as every request after the first
	c.out.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&c.out, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	_ = fr.WriteSettingsAck()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: c.id, EndStream: true, EndHeaders: true, BlockFragment: first})
	c.id += 2
	c.open, c.left = 1, c.left-1
	return c
}

func (c *streamsConn) Read(p []byte) (int, error) {
	if c.out.Len() == 0 {
		<-c.again
		if c.left == 0 {
			return 0, io.EOF
		}
		c.ask()
	}
	return c.out.Read(p)
}

func (c *streamsConn) ask() {
	n := min(c.batch, c.left)
	c.left -= n
	c.open = n
	credit := binary.BigEndian.AppendUint32([]byte{0, 0, 4, 8, 0, 0, 0, 0, 0}, uint32(2048*n))
	c.out.Write(credit)
	for range n {
		h := [9]byte{0, 0, byte(len(c.head)), 1, 5}
		binary.BigEndian.PutUint32(h[5:], c.id)
		c.out.Write(h[:])
		c.out.Write(c.head)
		c.id += 2
	}
}

// Write counts the streams that end.
func (c *streamsConn) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if c.skip > 0 {
			k := min(c.skip, len(p))
			c.skip -= k
			p = p[k:]
			continue
		}
		k := min(9-len(c.frame), len(p))
		c.frame = append(c.frame, p[:k]...)
		if p = p[k:]; len(c.frame) < 9 {
			break
		}
		f := c.frame
		c.skip = int(f[0])<<16 | int(f[1])<<8 | int(f[2])
		c.failed = c.failed || f[3] == 3 || f[3] == 7 // RST_STREAM, GOAWAY
		if f[3] <= 1 && f[4]&1 != 0 {
			if c.open--; c.open == 0 {
				c.again <- struct{}{}
			}
		}
		c.frame = c.frame[:0]
	}
	return n, nil
}

// benchH2ToH1 serves b.N requests on one connection, 32 at a time.
func benchH2ToH1(b *testing.B) {
	tr := &cirque.Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
		return &loopConn{in: smallResponse, rounds: 1 << 60}, nil
	}}
	defer tr.Close()
	peer := cirque.NewPeer("origin:80")
	srv := &cirque.Server{H2C: true, Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Name: "bench", Transport: tr, Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	client := newStreamsConn(b.N, 32)
	b.ReportAllocs()
	b.ResetTimer()
	srv.ServeConn(client)
	b.StopTimer()
	if st := srv.Stats(); st.Requests != int64(b.N) || client.failed && b.N > 1 {
		b.Errorf("%d of %d requests, failed %v", st.Requests, b.N, client.failed)
	}
	srv.Close()
}

// BenchmarkEngineH2ToH1Small is what a small request of HTTP/2 costs in our own code.
func BenchmarkEngineH2ToH1Small(b *testing.B) { benchH2ToH1(b) }

// TestAllocsH2ToH1: in the steady state a small request allocates nothing.
func TestAllocsH2ToH1(t *testing.T) {
	r := testing.Benchmark(benchH2ToH1)
	if n := r.AllocsPerOp(); n > 0 && !raceEnabled || r.N < 1000 {
		t.Errorf("%d allocations per request in %d requests, want 0", n, r.N)
	}
}
