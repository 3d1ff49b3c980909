package h2

import "time"

// worker is a goroutine that runs handlers. One that has run a stream waits for the
// next: its stack has grown to what a handler needs, which a new goroutine would have
// to do again, at the cost of a copy for each step. A connection without a stream
// keeps none for longer than workerRest.
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

// dismissLocked ends the workers that wait.
func (c *Conn) dismissLocked() {
	for _, w := range c.workers {
		w.wakec <- struct{}{}
	}
	c.workers = nil
}
