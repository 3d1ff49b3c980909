package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// freshIdle is how short a connection may have been idle to carry a request
// that cannot be repeated: long enough for a busy peer's connections, short
// against the idle timeouts of origins.
const freshIdle = time.Second

// checkEvery is how often idle connections are looked at for an origin that
// closed them, a passed idle timeout or age. A dead connection is found again
// when it is taken; this gives its descriptor back.
const checkEvery = 2 * time.Second

// forgetAfter is for how many checks an entry without connections is kept.
const forgetAfter = 30

// Config configures a Pool. Zero numbers mean no limit.
type Config struct {
	Sweep    *wire.Sweep
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	MaxIdle  int       // idle connections of the whole pool; the least recently used goes first
	MaxConns int       // connections of the whole pool, busy and idle
	KeyLog   io.Writer // gets the secrets of all handshakes; nil: nobody does
}

// Pool keeps the idle connections of a process, by reuse key, and counts the
// busy ones.
//
// Each key has an Entry with a lock of its own, so two peers never wait for each
// other. Idle connections are a stack: the one used last is taken first, which
// keeps a small set warm and lets the rest reach their idle timeout. The order
// over all entries, needed only when MaxIdle is passed, is not kept: the oldest
// of each stack is its bottom, and the search over the bottoms happens only
// then. A list over all entries would cost every exchange a second, shared lock.
type Pool struct {
	cfg   Config
	sweep *wire.Sweep

	connects, reuses, strays, evicted, retired atomic.Int64
	idle, conns                                atomic.Int64
	uses                                       atomic.Int64 // a clock finer than the sweep's, for who was used last
	shut                                       atomic.Bool

	mu      sync.Mutex
	entries map[string]*Entry // Guarded by mu.
	janitor *time.Timer       // Guarded by mu: calls check; nil when there is nothing to look at.
	closed  bool              // Guarded by mu.
}

// Entry is the part of a Pool that belongs to one reuse key.
type Entry struct {
	key string
	// connecting has a place for each connect that may be under way.
	connecting chan struct{}

	config  *tls.Config // Guarded by mu: nil before the first handshake.
	mu      sync.Mutex
	idle    []*H1     // Guarded by mu: the last is the one used last.
	total   int       // Guarded by mu: busy, idle and being made.
	waiters []*waiter // Guarded by mu: first come, first served.
	h2      h2State   // Guarded by mu.
	dead    bool      // Guarded by mu: no longer in the pool's map.
	unused  int       // Guarded by mu: checks since the last use.
}

// waiter is an exchange that waits for a connection of a full entry.
type waiter struct {
	c chan *H1 // one slot; nil means: a place is free, dial
}

// Stats are counters since the pool was made, and the present numbers.
type Stats struct {
	Connects int64 // connections made
	Reuses   int64 // exchanges on a connection that had served another
	Strays   int64 // idle connections dropped for bytes that nobody asked for
	Evicted  int64 // idle connections dropped because MaxIdle was reached
	Retired  int64 // connections closed for age, request count or idle time
	Idle     int64
	Conns    int64 // busy and idle
}

// NewPool returns an empty pool.
func NewPool(cfg Config) *Pool {
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Control: tuneDialed}).DialContext
	}
	return &Pool{cfg: cfg, sweep: cfg.Sweep, entries: map[string]*Entry{}}
}

// Stats returns the counters.
func (p *Pool) Stats() Stats {
	return Stats{
		Connects: p.connects.Load(), Reuses: p.reuses.Load(), Strays: p.strays.Load(),
		Evicted: p.evicted.Load(), Retired: p.retired.Load(),
		Idle: p.idle.Load(), Conns: p.conns.Load(),
	}
}

// Entry returns the entry of a reuse key. The caller may keep it: Get says
// when it has to be asked for again.
func (p *Pool) Entry(key string) *Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entries[key]
	if e == nil {
		e = &Entry{key: key, connecting: make(chan struct{}, maxConnecting)}
		p.entries[key] = e
		p.startJanitorLocked() // it forgets entries that are not used any more
	}
	return e
}

// Reuse says which idle connections an exchange may take.
type Reuse uint8

const (
	// ReuseAny takes any that is good.
	ReuseAny Reuse = iota
	// ReuseFresh takes those that were idle for less than a second: for requests
	// that cannot be repeated.
	ReuseFresh
	// ReuseNone takes none: for tunnels.
	ReuseNone
)

// Want is what an exchange asks of the pool.
type Want struct {
	Reuse   Reuse
	Watcher Watcher // tells that the client left; nil: nobody can
	HTTP1   bool    // the exchange cannot be one of HTTP/2
	Switch  bool    // it asks for another protocol: over HTTP/2 by extended CONNECT
	// Connect bounds a connect, Handshake the handshake after it, ConnectTotal
	// both together; 0: nothing does.
	Connect, Handshake, ConnectTotal time.Duration
}

// Get returns a connection for one exchange. It waits for the connect, and in
// the queue of a peer at its limit, unless the client leaves. The
// entry may be replaced when it was dropped for disuse; the new one is returned.
func (p *Pool) Get(e *Entry, t *Target, w Want) (Up, *Entry, error) {
	if t.HTTP2 != HTTP2Never && !w.HTTP1 {
		return p.getAny(e, t, w)
	}
	return p.get(e, t, w)
}

// get returns a connection of HTTP/1.
func (p *Pool) get(e *Entry, t *Target, w Want) (Up, *Entry, error) {
	u, e, err := p.getH1(e, t, w)
	if err != nil {
		return nil, e, err // not a nil *H1 in an interface
	}
	return u, e, nil
}

func (p *Pool) getH1(e *Entry, t *Target, w Want) (*H1, *Entry, error) {
	w.HTTP1 = true // what is dialled for it
	e = p.lockLive(e, t)
	if u := p.takeLocked(e, t, w.Reuse); u != nil {
		e.mu.Unlock()
		p.countReuse(u)
		return u, e, nil
	}
	if t.MaxConns > 0 && e.total >= t.MaxConns {
		// A connection that is idle but not fresh enough still holds a place.
		if n := len(e.idle); n > 0 {
			u := e.idle[0]
			e.idle = append(e.idle[:0], e.idle[1:]...)
			p.idle.Add(-1)
			p.dropLocked(e, u)
		} else {
			u, err := p.queueLocked(e, t, w)
			if u != nil || err != nil {
				return u, e, err
			}
			return p.connect(e, t, w) // the place was handed over
		}
	}
	e.total++
	e.mu.Unlock()
	return p.connect(e, t, w)
}

// connect dials on a place that was counted and gives it back on failure.
func (p *Pool) connect(e *Entry, t *Target, w Want) (*H1, *Entry, error) {
	err := error(&reason.Error{Reason: reason.ConnectionLimit})
	var u *H1
	if n := p.conns.Add(1); p.cfg.MaxConns <= 0 || n <= int64(p.cfg.MaxConns) || p.evict() {
		u, err = p.dial(e, t, w)
	}
	if err != nil {
		p.conns.Add(-1)
		p.leave(e)
		return nil, e, err
	}
	return u, e, nil
}

// takeLocked pops idle connections until one may still be used.
func (p *Pool) takeLocked(e *Entry, t *Target, reuse Reuse) *H1 {
	for n := len(e.idle); n > 0; n = len(e.idle) {
		u := e.idle[n-1]
		now := p.sweep.Now()
		if reuse == ReuseNone || reuse == ReuseFresh && now-u.idleSince >= freshIdle {
			return nil
		}
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		p.idle.Add(-1)
		if u.expired(now) {
			p.retired.Add(1)
			p.dropLocked(e, u)
			continue
		}
		u.target, u.reused = t, true
		return u
	}
	return nil
}

// dropLocked closes a connection that is no longer in the stack.
func (p *Pool) dropLocked(e *Entry, u *H1) {
	e.total--
	p.conns.Add(-1)
	u.wc.Close()
}

// queueLocked waits for a place. It unlocks the entry. No connection and no
// error mean that the caller owns a place and has to dial.
func (p *Pool) queueLocked(e *Entry, t *Target, w Want) (*H1, error) {
	if len(e.waiters) >= t.MaxQueue {
		e.mu.Unlock()
		return nil, &reason.Error{Reason: reason.PeerLimit}
	}
	q := &waiter{c: make(chan *H1, 1)}
	e.waiters = append(e.waiters, q)
	e.mu.Unlock()

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if w.Watcher != nil {
		w.Watcher.Watch(cancelFunc(cancel))
		defer w.Watcher.Unwatch()
	}
	var timeout <-chan time.Time
	if t.QueueTimeout > 0 {
		tm := time.NewTimer(t.QueueTimeout)
		defer tm.Stop()
		timeout = tm.C
	}
	select {
	case u := <-q.c:
		return p.handed(u, t, w.Reuse)
	case <-timeout:
		return p.unqueue(e, q, t, &reason.Error{Reason: reason.PeerLimit})
	case <-ctx.Done():
		return p.unqueue(e, q, t, context.Cause(ctx))
	}
}

// handed prepares a connection that another exchange passed on.
func (p *Pool) handed(u *H1, t *Target, reuse Reuse) (*H1, error) {
	if u != nil && reuse == ReuseNone {
		u.wc.Close() // its place is what counts
		p.conns.Add(-1)
		return nil, nil
	}
	if u != nil {
		u.target, u.reused = t, true
		p.countReuse(u)
	}
	return u, nil
}

// countReuse counts an exchange on a connection that had served another: one
// that was made ahead of its use has not.
func (p *Pool) countReuse(u *H1) {
	if u.requests > 0 {
		p.reuses.Add(1)
	}
}

// unqueue gives a wait up; what was handed over meanwhile is passed on.
func (p *Pool) unqueue(e *Entry, q *waiter, t *Target, err error) (*H1, error) {
	e.mu.Lock()
	for i, o := range e.waiters {
		if o == q {
			e.waiters = append(e.waiters[:i], e.waiters[i+1:]...)
			e.mu.Unlock()
			return nil, err
		}
	}
	e.mu.Unlock()
	if u := <-q.c; u != nil {
		p.put(u)
	} else {
		p.leave(e)
	}
	return nil, err
}

// leave gives back the place of a connection that is no more.
func (p *Pool) leave(e *Entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiters) > 0 {
		e.nextLocked().c <- nil // the place goes to the first who waits
		return
	}
	e.total--
}

func (e *Entry) nextLocked() *waiter {
	q := e.waiters[0]
	e.waiters = append(e.waiters[:0], e.waiters[1:]...)
	return q
}

// put takes a connection back that may serve another exchange.
func (p *Pool) put(u *H1) {
	e := u.entry
	u.idleSince = p.sweep.Now()
	u.usedAt = p.uses.Add(1)
	e.mu.Lock()
	if len(e.waiters) > 0 {
		e.nextLocked().c <- u
		e.mu.Unlock()
		return
	}
	if e.dead || p.shut.Load() {
		p.dropLocked(e, u)
		e.mu.Unlock()
		return
	}
	e.idle = append(e.idle, u)
	e.mu.Unlock()
	if n := p.idle.Add(1); n == 1 {
		p.startJanitor()
	} else if p.cfg.MaxIdle > 0 && n > int64(p.cfg.MaxIdle) {
		p.evict()
	}
}

// drop closes a busy connection.
func (p *Pool) drop(u *H1) {
	u.wc.Close()
	p.conns.Add(-1)
	p.leave(u.entry)
}

// evict closes the idle connection that was not used for the longest time and
// reports whether there was one.
func (p *Pool) evict() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var oldest *Entry
	var since int64
	for _, e := range p.entries {
		e.mu.Lock()
		if len(e.idle) > 0 && (oldest == nil || e.idle[0].usedAt < since) {
			oldest, since = e, e.idle[0].usedAt
		}
		e.mu.Unlock()
	}
	if oldest == nil {
		return false
	}
	oldest.mu.Lock()
	defer oldest.mu.Unlock()
	if len(oldest.idle) == 0 {
		return false
	}
	u := oldest.idle[0]
	oldest.idle = append(oldest.idle[:0], oldest.idle[1:]...)
	p.idle.Add(-1)
	p.evicted.Add(1)
	p.dropLocked(oldest, u)
	return true
}
