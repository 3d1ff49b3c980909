package wire

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// defaultTick is the precision of timeouts.
const defaultTick = 100 * time.Millisecond

// Sweep is a coarse clock and what looks after the waits of many connections:
// a wait costs two atomic stores, and one timer serves all. It runs only while
// it has connections.
type Sweep struct {
	tick time.Duration
	base time.Time
	now  atomic.Int64

	mu    sync.Mutex
	ticks []*Tick     // Guarded by mu.
	conns []*Conn     // Guarded by mu.
	timer *time.Timer // Guarded by mu: nil when there are no connections.
}

// NewSweep returns a Sweep that looks every tick. If tick is zero, it is 100 ms.
func NewSweep(tick time.Duration) *Sweep {
	if tick <= 0 {
		tick = defaultTick
	}
	return &Sweep{tick: tick, base: time.Now()}
}

// Now returns the time since the Sweep was made, up to a tick late. It stands
// still while there are no connections.
func (s *Sweep) Now() time.Duration { return time.Duration(s.now.Load()) }

// Late returns by how much Now may be late.
func (s *Sweep) Late() time.Duration { return s.tick }

// NowExact is Now without delay, for who can afford to read the clock.
func (s *Sweep) NowExact() time.Duration {
	now := time.Since(s.base)
	s.now.Store(int64(now))
	return now
}

func (s *Sweep) add(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.slot = len(s.conns)
	s.conns = append(s.conns, c)
	if s.timer == nil {
		s.NowExact()
		s.timer = time.AfterFunc(s.tick, s.run)
	}
}

func (s *Sweep) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.slot < 0 {
		return
	}
	n := len(s.conns) - 1
	s.conns[c.slot] = s.conns[n]
	s.conns[c.slot].slot = c.slot
	s.conns[n] = nil
	s.conns = s.conns[:n]
	c.slot = -1
	if n == 0 {
		s.timer.Stop()
		s.timer = nil
		if cap(s.conns) > 4096 {
			s.conns = nil
		}
	}
}

// run is one turn: it ends the waits that are over, and looks after clients
// whose sessions have waited for long.
func (s *Sweep) run() {
	var left, late []*Conn
	var parkers []*Parker
	s.mu.Lock()
	if s.timer == nil {
		s.mu.Unlock()
		return
	}
	now := int64(s.NowExact())
	for _, c := range s.conns {
		if at := c.rWait.Load(); at > 0 && at <= now {
			if c.parked != nil {
				late, parkers = append(late, c), append(parkers, c.parked.p)
			} else {
				c.expire(&c.rWait, at, c.low.SetReadDeadline)
			}
		}
		if at := c.wWait.Load(); at > 0 && at <= now {
			c.expire(&c.wWait, at, c.low.SetWriteDeadline)
		}
		if from := c.watchFrom.Load(); from > 0 && now-from >= int64(watchAfter) && c.PeerClosed() {
			if c.watchFrom.CompareAndSwap(from, 0) {
				left = append(left, c)
			}
		}
	}
	s.timer.Reset(s.tick)
	ticks := slices.Clone(s.ticks)
	s.mu.Unlock()
	for _, t := range ticks {
		t.f(time.Duration(now))
	}
	for _, c := range left {
		c.gone()
	}
	for i, c := range late {
		parkers[i].unpark(c, WakeTimeout)
	}
}

// Tick is a function that a Sweep calls at each of its turns. A Sweep turns only
// while it has connections, so a Tick belongs to something that has one.
type Tick struct {
	f    func(now time.Duration)
	slot int // Guarded by the Sweep's lock: index in its list, -1 when it is in none.
}

// NewTick returns a Tick that is not running.
func NewTick(f func(now time.Duration)) *Tick { return &Tick{f: f, slot: -1} }

// StartTick begins to call t, if it is not called already.
func (s *Sweep) StartTick(t *Tick) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.slot < 0 {
		t.slot = len(s.ticks)
		s.ticks = append(s.ticks, t)
	}
}

// StopTick ends it. A call may still be under way.
func (s *Sweep) StopTick(t *Tick) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.slot < 0 {
		return
	}
	n := len(s.ticks) - 1
	s.ticks[t.slot] = s.ticks[n]
	s.ticks[t.slot].slot = t.slot
	s.ticks[n] = nil
	s.ticks = s.ticks[:n]
	t.slot = -1
}

func (s *Sweep) setParked(c *Conn, k *parked) {
	s.mu.Lock()
	c.parked = k
	s.mu.Unlock()
}

// parkedFD returns under which descriptor c is parked.
func (s *Sweep) parkedFD(c *Conn) (int32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.parked == nil {
		return 0, false
	}
	return c.parked.fd, true
}

// takeParked ends a connection's parking: its wait is over too.
func (s *Sweep) takeParked(c *Conn) *parked {
	s.mu.Lock()
	k := c.parked
	c.parked = nil
	s.mu.Unlock()
	c.rWait.Store(noWait)
	return k
}
