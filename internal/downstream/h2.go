package downstream

import (
	"errors"
	"sync/atomic"

	"github.com/cirqueproxy/cirque/internal/h2"
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// H2Conn is one HTTP/2 connection to a client. Its requests are H2 values.
type H2Conn struct {
	// Immutable after NewH2.
	conn *h2.Conn
	cfg  *Config

	// User is the Handler's own.
	User any

	streams atomic.Int64 // that were served
	running atomic.Int64
	killed  atomic.Bool
}

// NewH2 returns the connection over wc, which it owns from now on.
func NewH2(wc *wire.Conn, sweep *wire.Sweep, cfg *Config) *H2Conn {
	c := &H2Conn{cfg: cfg}
	hc := *cfg.H2
	hc.Handler = c
	c.conn = h2.New(wc, sweep, &hc, h2frame.Server)
	return c
}

// Serve runs the connection until it ends or is parked.
func (c *H2Conn) Serve() {
	c.conn.ServeParking(h2.Parking{
		Parker: c.cfg.Parker, After: c.cfg.ParkAfter,
		Parked: func() { c.cfg.Handler.ParkedH2(c) },
		Ended:  func(err error) { c.cfg.Handler.EndedH2(c, c.endReason(err)) },
	})
}

// ServeStream implements h2.Handler.
func (c *H2Conn) ServeStream(st *h2.Stream) {
	d, _ := st.User.(*H2)
	if d == nil {
		d = &H2{}
		d.gone = d.left
		st.User = d
	}
	d.begin(c, st)
	c.streams.Add(1)
	c.running.Add(1)
	c.cfg.Handler.ServeStream(d)
	c.running.Add(-1)
}

// Wire returns the connection itself, for its addresses and counters.
func (c *H2Conn) Wire() *wire.Conn { return c.conn.Wire() }

// Requests returns how many streams the connection has served.
func (c *H2Conn) Requests() int { return int(c.streams.Load()) }

// State returns what the connection does. It may be called from any goroutine.
func (c *H2Conn) State() State {
	switch {
	case c.running.Load() > 0:
		return StateActive
	case c.conn.Parked():
		return StateParked
	case c.streams.Load() == 0:
		return StateNew
	}
	return StateIdle
}

// Drain ends the connection when its streams are done. It may be called from any
// goroutine.
func (c *H2Conn) Drain() { c.conn.Drain() }

// Kill ends the connection at once. It may be called from any goroutine.
func (c *H2Conn) Kill() {
	c.killed.Store(true)
	c.conn.Close(errClosed)
}

// endReason gives the end of the connection its reason.
func (c *H2Conn) endReason(err error) reason.Reason {
	var e *h2.Error
	switch {
	case c.killed.Load():
		return reason.ServerClosed
	case errors.Is(err, h2.ErrIdle):
		return reason.IdleTimeout
	case errors.Is(err, h2.ErrClosed):
		return reason.Shutdown
	case errors.As(err, &e) && !e.Remote && e.Code == h2frame.EnhanceYourCalm:
		return reason.Abuse
	case errors.As(err, &e) && !e.Remote:
		return reason.ProtocolError
	case c.running.Load() > 0:
		return reason.ClientGone
	}
	return reason.PeerClosed
}
