package h2

import (
	"errors"
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
)

// This file is about idle connections without a goroutine.

// Parking says when and where a connection is parked. The zero value parks none.
type Parking struct {
	Parker *wire.Parker
	// After is how long the connection must have been without a stream.
	After time.Duration
	// Parked tells that the connection is about to be parked, and Ended why it ended.
	// Each may be nil.
	Parked func()
	Ended  func(error)
}

// parking is the state of it. Parking itself is immutable after ServeParking, but
// that Parker is set to nil when it was closed; the rest is guarded by Conn.mu.
type parking struct {
	Parking
	offered bool // the reader was asked to
	parked  bool
	wanted  bool // who wakes it may have come before it was
}

// errPark interrupts the reader of an idle connection.
var errPark = errors.New("the connection is to be parked")

// Parked reports whether the connection is parked.
func (c *Conn) Parked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.park.parked
}

// restsLocked reports whether nothing is under way.
func (c *Conn) restsLocked() bool {
	return c.idleSince > 0 && c.draining == drainNone && c.err == nil && !c.writing && len(c.out.b) == 0 &&
		c.blockSince == 0 && c.frameSince == 0 && c.ackSince == 0
}

// offerParkLocked asks the reader of a connection that has been idle for long enough
// to park it.
func (c *Conn) offerParkLocked(now time.Duration) {
	k := &c.park
	if k.Parker == nil || k.After <= 0 || k.offered || k.parked || now-c.idleSince < k.After || !c.restsLocked() || !c.wc.CanPark() {
		return
	}
	k.offered = true
	c.wc.InterruptRead(errPark)
}

// parkNow parks the connection, if it is still idle, and reports whether it did. What
// ended the connection meanwhile is the error. The connection then belongs to who is
// woken.
func (c *Conn) parkNow() (bool, error) {
	c.mu.Lock()
	k := &c.park
	k.offered = false
	if c.err != nil {
		defer c.mu.Unlock()
		return false, c.err
	}
	// Interruptions by others follow upon c.err, so that none of them is lost here.
	c.wc.ClearInterrupt()
	c.mu.Unlock()
	// Of what TLS has read already no descriptor tells. It is in the buffer now.
	if len(c.wc.Buffered()) > 0 || c.wc.Stray() != nil {
		return false, nil
	}
	c.mu.Lock()
	p := k.Parker
	if c.err != nil || p == nil || !c.restsLocked() {
		defer c.mu.Unlock()
		if c.err != nil {
			return false, c.err
		}
		return false, nil
	}
	k.parked, k.wanted = true, false
	c.dismissLocked(len(c.workers))
	c.freeList, c.waiting, c.workers = nil, nil, nil
	c.mu.Unlock()
	c.block.b, c.head.cookie, c.head.h = nil, nil, nil // which holds the last Stream, and all of its user
	if k.Parked != nil {
		k.Parked()
	}
	p.Park(c.wc, 0, c.unparked)
	c.mu.Lock()
	wanted := k.wanted && k.parked
	c.mu.Unlock()
	if wanted {
		p.Unpark(c.wc)
	}
	return true, nil
}

// unparkLocked sees to it that a parked connection gets its reader back.
func (c *Conn) unparkLocked() {
	if k := &c.park; k.parked {
		k.wanted = true
		k.Parker.Unpark(c.wc)
	}
}

// unparked goes on, on a goroutine of its own.
func (c *Conn) unparked(_ *wire.Conn, why wire.WakeReason) {
	c.mu.Lock()
	c.park.parked = false
	if why == wire.WakeShutdown {
		c.park.Parker = nil
	}
	c.mu.Unlock()
	if why == wire.WakeShutdown {
		c.Drain()
	}
	c.run(c.fill())
}
