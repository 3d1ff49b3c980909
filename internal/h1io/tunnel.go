package h1io

import (
	"errors"
	"io"
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
)

// Tunnel is a connection of HTTP/1 that carries another protocol from here on, as
// one end of a relay (exchange.Tunnel). What is buffered comes first.
type Tunnel struct {
	wc   *wire.Conn
	lent int // Owned by the reading goroutine.
}

// NewTunnel returns the tunnel over wc.
func NewTunnel(wc *wire.Conn) *Tunnel { return &Tunnel{wc: wc} }

// SetIdle bounds each wait. A reader that pauses is no reason to end a tunnel: no
// rate holds.
func (t *Tunnel) SetIdle(d time.Duration) {
	t.wc.SetReadTimeout(d)
	t.wc.SetWriteTimeout(d)
	t.wc.SetReadDeadline(0)
	t.wc.SetWriteDeadline(0)
	t.wc.SetMinRate(0, 0)
	t.wc.SetMinWriteRate(0, 0)
	t.wc.SetPiece(0)
}

// Read returns the next bytes, lent until the next call.
func (t *Tunnel) Read() (b []byte, last bool, err error) {
	t.wc.Discard(t.lent)
	t.lent = 0
	if len(t.wc.Buffered()) == 0 {
		switch err := t.wc.FillMore(); {
		case errors.Is(err, io.EOF):
			t.wc.ReleaseBuffer()
			return nil, true, nil
		case err != nil:
			return nil, false, err
		}
	}
	b = t.wc.Buffered()
	t.lent = len(b)
	return b, false, nil
}

// Write sends b.
func (t *Tunnel) Write(b []byte) error {
	_, err := t.wc.Write(b)
	return err
}

// CloseWrite ends our direction.
func (t *Tunnel) CloseWrite() error { return t.wc.CloseWrite() }

// Received returns how many bytes came.
func (t *Tunnel) Received() int64 { return t.wc.BytesRead() }

// Interrupt ends all waits.
func (t *Tunnel) Interrupt(cause error) {
	t.wc.InterruptRead(cause)
	t.wc.InterruptWrite(cause)
}

// Watch does nothing: the system tells by a write.
func (t *Tunnel) Watch(func(error)) {}

// Unwatch does nothing.
func (t *Tunnel) Unwatch() {}

// Wire returns the connection.
func (t *Tunnel) Wire() *wire.Conn { return t.wc }
