package h2

import "time"

// worker is a goroutine that runs handlers. One that has run a stream waits for the
// next: its stack has grown to what a handler needs, which a new goroutine would have
// to do again, at the cost of a copy for each step. A connection without a stream
// keeps none for longer than workerRest, and one with streams no more than it used
// meanwhile.
type worker struct {
	st    *Stream
	wakec chan struct{} // one slot
}

// workerRest is how long idle workers are kept.
const workerRest = time.Second

// startLocked has the handler of st run.
func (c *Conn) startLocked(st *Stream) {
	n := len(c.workers)
	if n == 0 {
		go c.work(&worker{st: st, wakec: make(chan struct{}, 1)})
		return
	}
	c.spare = min(c.spare, n-1)
	w := c.workers[n-1] // the one that ran last: its stack is in the cache
	c.workers[n-1] = nil
	c.workers = c.workers[:n-1]
	w.st = st
	w.wakec <- struct{}{}
}

// work is the worker.
func (c *Conn) work(w *worker) {
	for w.st != nil {
		c.cfg.Handler.ServeStream(w.st)
		w.st.Done()
		w.st = nil
		c.mu.Lock()
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		c.workers = append(c.workers, w)
		c.mu.Unlock()
		<-w.wakec
	}
}

// restLocked ends workers of which there is no need.
func (c *Conn) restLocked(now time.Duration) {
	switch {
	case now-c.restAt < workerRest:
		return
	case c.idleSince > 0 && now-c.idleSince >= workerRest:
		c.spare = len(c.workers)
	}
	c.dismissLocked(c.spare)
	c.spare, c.restAt = len(c.workers), now
}

// dismissLocked ends n workers that wait: those that have waited for longest.
func (c *Conn) dismissLocked(n int) {
	n = min(n, len(c.workers))
	for _, w := range c.workers[:n] {
		w.wakec <- struct{}{}
	}
	left := copy(c.workers, c.workers[n:])
	clear(c.workers[left:])
	c.workers = c.workers[:left]
}
