package upstream

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/internal/h2"
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/reason"
)

// This file is the pool's part for HTTP/2, where one connection serves many
// exchanges at a time: an exchange takes a stream, and connections are made in the
// background, so that no client's end takes one away from the others that wait
// for it.

// HTTP2Mode says when HTTP/2 is spoken to a target.
type HTTP2Mode uint8

const (
	// HTTP2Never is HTTP/1 alone.
	HTTP2Never HTTP2Mode = iota
	// HTTP2Auto lets the handshake decide.
	HTTP2Auto
	// HTTP2Always is HTTP/2 alone, with TLS or without.
	HTTP2Always
)

// forgetHTTP1 is for how long an origin that turned HTTP/2 down is asked in
// HTTP/1 without asking again.
const forgetHTTP1 = 10 * time.Minute

// h2Conn is a connection of HTTP/2 in an entry.
type h2Conn struct {
	h2     *h2.Conn
	pool   *Pool
	entry  *Entry
	target *Target
	secure bool
	made   time.Duration // on the sweep's clock

	factsOnce sync.Once
	facts     any // see Up

	served  int  // Guarded by the entry's lock: streams that were opened.
	settled bool // Guarded by the entry's lock: the origin said how many it takes.
}

// h2State is the part of an Entry that is about HTTP/2. Guarded by the entry's
// lock.
type h2State struct {
	conns     []*h2Conn
	dialing   int           // connects under way
	waiters   []chan error  // exchanges that wait for a stream
	http1Till time.Duration // on the sweep's clock: HTTP/1 until then
}

// getAny returns a stream of HTTP/2 to the target, or a connection of HTTP/1 where
// the origin does not speak HTTP/2 and need not.
func (p *Pool) getAny(e *Entry, t *Target, w Want) (Up, *Entry, error) {
	deadline := time.Time{}
	for {
		e = p.lockLive(e, t)
		if t.HTTP2 == HTTP2Never || w.HTTP1 || t.HTTP2 == HTTP2Auto && e.h2.http1Till > p.sweep.Now() {
			e.mu.Unlock()
			return p.get(e, t, w)
		}
		if w.Switch && !e.switchesLocked() {
			if t.HTTP2 == HTTP2Always {
				e.mu.Unlock()
				return nil, e, errNoExtended
			}
			e.mu.Unlock()
			return p.get(e, t, w) // on a connection of its own
		}
		if u := p.streamLocked(e, t, w); u != nil {
			e.mu.Unlock()
			return u, e, nil
		}
		if err := p.moreLocked(e, t, w); err != nil {
			e.mu.Unlock()
			return nil, e, err
		}
		if deadline.IsZero() && t.QueueTimeout > 0 && e.h2.dialing == 0 {
			deadline = time.Now().Add(t.QueueTimeout)
		}
		if err := p.awaitLocked(e, t, w, deadline); err != nil {
			return nil, e, err
		}
	}
}

// streamLocked opens a stream on a connection that has room. The first ones are
// filled first: the last ones run dry and reach their idle timeout.
func (p *Pool) streamLocked(e *Entry, t *Target, w Want) *H2 {
	now := p.sweep.Now()
	for i := 0; i < len(e.h2.conns); i++ {
		c := e.h2.conns[i]
		if c.worn(now) {
			p.retired.Add(1)
			e.h2.conns = append(e.h2.conns[:i], e.h2.conns[i+1:]...)
			i--
			c.h2.Drain()
			continue
		}
		if w.Switch && !c.h2.Extended() {
			continue // or its SETTINGS have not come
		}
		st, err := c.h2.Open()
		if err != nil {
			continue // full, or about to end
		}
		u := &H2{conn: c, st: st, reused: c.served > 0}
		if c.served++; u.reused {
			p.reuses.Add(1)
		}
		return u
	}
	return nil
}

var errNoExtended = &reason.Error{Reason: reason.UpstreamNoSwitch, Err: poolError("the origin has no extended CONNECT")}

// switchesLocked reports whether the origin may serve extended CONNECT, as far as
// its connections know.
//
// RFC 8441, section 3: only an origin that offers it is asked.
func (e *Entry) switchesLocked() bool {
	known := false
	for _, c := range e.h2.conns {
		if c.h2.Extended() {
			return true
		}
		known = known || c.settled
	}
	return !known
}

// worn reports whether the connection did all that it may do.
func (c *h2Conn) worn(now time.Duration) bool {
	t := c.target
	return t.MaxAge > 0 && now-c.made >= t.MaxAge || t.MaxRequests > 0 && c.served >= t.MaxRequests || t.NoReuse && c.served > 0
}

// moreLocked begins to make a connection if one is needed and permitted. Streams are
// spread before an origin's limit blocks: who waits for one connection's room
// already has another made.
func (p *Pool) moreLocked(e *Entry, t *Target, w Want) error {
	perConn, coming := t.H2.MaxStreams, e.h2.dialing
	if t.NoReuse {
		perConn = 1
	}
	for _, c := range e.h2.conns {
		if !c.settled {
			coming++ // it will take more than one soon
		}
	}
	switch {
	case p.shut.Load():
		return &reason.Error{Reason: reason.Shutdown, Err: errPoolClosed}
	case len(e.h2.waiters) < coming*perConn:
		return nil // what is being made will do
	case t.MaxConns > 0 && e.total >= t.MaxConns && len(e.h2.waiters) >= max(t.MaxQueue, 0):
		return &reason.Error{Reason: reason.PeerLimit}
	case t.MaxConns > 0 && e.total >= t.MaxConns:
		return nil
	}
	if n := p.conns.Add(1); p.cfg.MaxConns > 0 && n > int64(p.cfg.MaxConns) && !p.evictUnlocked(e) {
		p.conns.Add(-1)
		return &reason.Error{Reason: reason.ConnectionLimit}
	}
	e.total++
	e.h2.dialing++
	w.Watcher = nil
	go p.makeH2(e, t, w)
	return nil
}

// evictUnlocked is evict for who holds e's lock.
func (p *Pool) evictUnlocked(e *Entry) bool {
	e.mu.Unlock()
	defer e.mu.Lock()
	return p.evict()
}

// awaitLocked waits until a stream may be had, and unlocks the entry.
func (p *Pool) awaitLocked(e *Entry, t *Target, w Want, deadline time.Time) error {
	c := make(chan error, 1)
	e.h2.waiters = append(e.h2.waiters, c)
	e.mu.Unlock()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if w.Watcher != nil {
		w.Watcher.Watch(cancelFunc(cancel))
		defer w.Watcher.Unwatch()
	}
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		tm := time.NewTimer(time.Until(deadline))
		defer tm.Stop()
		timeout = tm.C
	}
	select {
	case err := <-c:
		return err
	case <-timeout:
		e.forget(c)
		return &reason.Error{Reason: reason.PeerLimit}
	case <-ctx.Done():
		e.forget(c)
		return context.Cause(ctx)
	}
}

// forget takes a waiter out. Its turn goes to another.
func (e *Entry) forget(c chan error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, o := range e.h2.waiters {
		if o == c {
			e.h2.waiters = append(e.h2.waiters[:i], e.h2.waiters[i+1:]...)
			return
		}
	}
	if err := <-c; err == nil {
		e.wakeLocked(1, nil)
	}
}

// wakeLocked lets n waiters look again, or fail; n < 0 means all of them.
func (e *Entry) wakeLocked(n int, err error) {
	if n < 0 || n > len(e.h2.waiters) {
		n = len(e.h2.waiters)
	}
	for _, c := range e.h2.waiters[:n] {
		c <- err
	}
	e.h2.waiters = append(e.h2.waiters[:0], e.h2.waiters[n:]...)
}

// makeH2 makes a connection whose place was counted.
func (p *Pool) makeH2(e *Entry, t *Target, w Want) {
	u, err := p.dial(e, t, w)
	if err == nil && !p.speaksHTTP2(u, t) {
		err = p.spokeHTTP1(e, t, u)
		if err == nil {
			return
		}
		u.wc.Close()
	}
	if err != nil {
		p.conns.Add(-1)
		e.mu.Lock()
		e.h2.dialing--
		e.total--
		// All that wait for it have waited for the same: the next try is theirs.
		e.wakeLocked(-1, err)
		e.mu.Unlock()
		return
	}
	c := &h2Conn{pool: p, entry: e, target: t, secure: t.TLS != nil, made: u.made}
	c.h2 = h2.New(u.wc, p.sweep, t.H2, h2frame.Client)
	c.h2.OnChange(c.changed)
	e.mu.Lock()
	e.h2.dialing--
	e.h2.conns = append(e.h2.conns, c)
	e.wakeLocked(-1, nil)
	if e.dead || p.shut.Load() {
		e.drainH2Locked() // the pool was closed while we dialled
	}
	e.mu.Unlock()
	c.serve()
}

func (p *Pool) speaksHTTP2(u *H1, t *Target) bool {
	tc, ok := u.wc.NetConn().(*tls.Conn)
	if !ok {
		return t.HTTP2 == HTTP2Always
	}
	return tc.ConnectionState().NegotiatedProtocol == "h2"
}

// spokeHTTP1 gives a connection to the exchanges of HTTP/1, if they may be.
func (p *Pool) spokeHTTP1(e *Entry, t *Target, u *H1) error {
	if t.HTTP2 == HTTP2Always {
		return &reason.Error{Reason: reason.UpstreamTLS, Err: errNoHTTP2}
	}
	e.mu.Lock()
	e.h2.http1Till = p.sweep.Now() + forgetHTTP1
	e.mu.Unlock()
	p.put(u) // first: who is woken shall find it, not make another
	e.mu.Lock()
	e.h2.dialing--
	e.wakeLocked(-1, nil)
	e.mu.Unlock()
	return nil
}

const errNoHTTP2 = poolError("the origin does not speak HTTP/2")

type poolError string

func (e poolError) Error() string { return string(e) }

// fallBack remembers that the origin wants HTTP/1.1, where that is permitted.
func (c *h2Conn) fallBack() bool {
	if c.target.HTTP2 != HTTP2Auto {
		return false
	}
	e := c.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	e.h2.http1Till = c.pool.sweep.Now() + forgetHTTP1
	return true
}

// changed is called when a stream ended, or the connection's limits changed.
func (c *h2Conn) changed() {
	e := c.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	if !c.settled && c.h2.Settled() {
		c.settled = true
		e.wakeLocked(-1, nil) // who finds no room here has another connection made
		return
	}
	if free, _ := c.h2.Slots(); free > 0 {
		e.wakeLocked(free, nil)
	}
}

// serve runs the connection until it ends.
func (c *h2Conn) serve() {
	_ = c.h2.Serve() // each stream has learned why
	e := c.entry
	e.mu.Lock()
	for i, o := range e.h2.conns {
		if o == c {
			e.h2.conns = append(e.h2.conns[:i], e.h2.conns[i+1:]...)
			break
		}
	}
	c.pool.conns.Add(-1)
	e.total--
	e.wakeLocked(1, nil) // its place is free
	e.mu.Unlock()
}

// checkH2Locked drains the connections that have been idle for too long.
func (p *Pool) checkH2Locked(e *Entry, now time.Duration) {
	for i := 0; i < len(e.h2.conns); i++ {
		c := e.h2.conns[i]
		since := time.Duration(c.h2.IdleSince())
		idle := c.target.IdleTimeout
		if since > 0 && (idle > 0 && now-since >= idle || c.worn(now)) {
			p.retired.Add(1)
			e.h2.conns = append(e.h2.conns[:i], e.h2.conns[i+1:]...)
			i--
			c.h2.Drain()
		}
	}
}

// drainH2Locked ends connections: those without a stream at once, the others when
// their streams have ended.
func (e *Entry) drainH2Locked() {
	for _, c := range e.h2.conns {
		c.h2.Drain()
	}
	e.h2.conns = nil
}
