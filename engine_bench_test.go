package cirque_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
)

// loopConn answers each write with one fixed text; without a system call or
// another goroutine, so that what a benchmark sees is our code alone.
type loopConn struct {
	in     []byte // what each round of reads gives
	at     int
	rounds int // how many more; then io.EOF
	wrote  int
}

func (c *loopConn) Read(p []byte) (int, error) {
	if c.at == len(c.in) {
		c.at = 0
		if c.rounds--; c.rounds < 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, c.in[c.at:])
	c.at += n
	return n, nil
}

func (c *loopConn) Write(p []byte) (int, error) {
	c.wrote += len(p)
	return len(p), nil
}

func (c *loopConn) Close() error                     { return nil }
func (c *loopConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }
func (c *loopConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5} }
func (c *loopConn) SetDeadline(time.Time) error      { return nil }
func (c *loopConn) SetReadDeadline(time.Time) error  { return nil }
func (c *loopConn) SetWriteDeadline(time.Time) error { return nil }
func (c *loopConn) Stray() error                     { return nil }

// BenchmarkEngineH1Small is what a small request costs in our own code.
func BenchmarkEngineH1Small(b *testing.B) {
	origin := &loopConn{in: smallResponse, rounds: 1 << 60}
	tr := &cirque.Transport{Dial: func(context.Context, string, string) (net.Conn, error) { return origin, nil }}
	defer tr.Close()
	peer := cirque.NewPeer("origin:80")
	srv := &cirque.Server{Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Name: "bench", Transport: tr, Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	client := &loopConn{in: []byte(chromeRequest), rounds: b.N - 1}
	b.ReportAllocs()
	b.ResetTimer()
	srv.ServeConn(client)
	b.StopTimer()
	if st := srv.Stats(); st.Requests != int64(b.N) || tr.Stats().Connects != 1 || client.wrote < 1024*b.N {
		b.Errorf("%d of %d requests, %d bytes", st.Requests, b.N, client.wrote)
	}
	srv.Close()
}
