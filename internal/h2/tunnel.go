package h2

import (
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
)

// Tunnel is a stream whose DATA is another protocol's bytes, as one end of a relay
// (exchange.Tunnel).
//
// RFC 8441, section 4, and RFC 9113, section 8.5: DATA carries the bytes, END_STREAM
// is the end of a direction, a reset the end of both.
type Tunnel struct{ st *Stream }

// Tunnel returns the stream as a tunnel. A section behind the heads that made it one
// is an error from here on.
func (st *Stream) Tunnel() *Tunnel {
	st.c.mu.Lock()
	st.state.Tunnel()
	st.c.mu.Unlock()
	return &Tunnel{st}
}

// SetIdle bounds each wait. A reader that pauses is no reason to end a tunnel: no
// rate holds.
func (t *Tunnel) SetIdle(d time.Duration) {
	t.st.SetReadTimeout(d)
	t.st.SetWriteTimeout(d)
	t.st.SetMinRate(0, 0, 0)
}

// Read returns the next bytes, lent until the next call.
func (t *Tunnel) Read() (b []byte, last bool, err error) { return t.st.ReadBody(nil) }

// Write sends b.
func (t *Tunnel) Write(b []byte) error { return t.st.WriteBody(b, false, false) }

// CloseWrite ends our direction.
func (t *Tunnel) CloseWrite() error { return t.st.WriteBody(nil, true, false) }

// Received returns how many bytes came.
func (t *Tunnel) Received() int64 {
	t.st.c.mu.Lock()
	defer t.st.c.mu.Unlock()
	return t.st.gotten + int64(t.st.in.size)
}

// Interrupt ends all waits.
func (t *Tunnel) Interrupt(cause error) { t.st.Interrupt(cause, cause) }

// Watch calls gone when the other end resets the stream, or the connection ends.
func (t *Tunnel) Watch(gone func(error)) { t.st.Watch(func(e *Error) { gone(e) }) }

// Unwatch ends Watch.
func (t *Tunnel) Unwatch() { t.st.Unwatch() }

// Wire returns nil: the bytes are in frames.
func (t *Tunnel) Wire() *wire.Conn { return nil }
