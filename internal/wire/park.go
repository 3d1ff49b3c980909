package wire

import "time"

// WakeReason says why a parked connection goes on.
type WakeReason uint8

const (
	// WakeReadable means input, or the other end's FIN.
	WakeReadable WakeReason = iota
	// WakeTimeout means that the deadline passed.
	WakeTimeout
	// WakeShutdown means that the Parker was closed.
	WakeShutdown
)

// CanPark reports whether a Parker can take c.
func (c *Conn) CanPark() bool { return c.sys.ok() }

// parked is a connection in a Parker's care.
type parked struct {
	p    *Parker
	fd   int32
	wake func(*Conn, WakeReason)
}

// parkedUntil arms the sweep for a parked connection.
func (c *Conn) parkedUntil(deadline time.Duration) {
	at := int64(forever)
	if deadline > 0 {
		at = int64(deadline + c.sweep.tick)
	}
	c.rWait.Store(at)
}
