//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// runRelay passes connections on to an address, and holds the bytes of each
// direction for a time: a round trip through it takes twice as long. It writes
// its own address to w.
func runRelay(w io.Writer, to string, hold time.Duration) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Fprintln(w, l.Addr())
	for {
		client, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				return
			}
			go passOn(server, client, hold)
			passOn(client, server, hold)
		}()
	}
}

// relayPiece is the most that is read at a time.
const relayPiece = 256 << 10

// heldPiece is bytes that are not to be written before a point in time.
type heldPiece struct {
	buf *[]byte
	n   int
	due time.Time
}

var pieces = sync.Pool{New: func() any {
	b := make([]byte, relayPiece)
	return &b
}}

// passOn copies one direction until it ends, and ends the other side's then. No
// more is held than bodies are long: the bench is alone with it.
func passOn(dst, src net.Conn, hold time.Duration) {
	queue := make(chan heldPiece, 1<<14)
	go func() {
		defer close(queue)
		for {
			p := heldPiece{buf: pieces.Get().(*[]byte)}
			var err error
			if p.n, err = src.Read(*p.buf); err != nil {
				return
			}
			p.due = time.Now().Add(hold)
			queue <- p
		}
	}()
	failed := false
	for p := range queue {
		if !failed {
			time.Sleep(time.Until(p.due))
			_, err := dst.Write((*p.buf)[:p.n])
			failed = err != nil
		}
		pieces.Put(p.buf)
	}
	if c, ok := dst.(*net.TCPConn); ok && !failed {
		_ = c.CloseWrite()
		return
	}
	dst.Close()
	src.Close()
}
