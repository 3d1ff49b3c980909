package accesslog

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// flushBytes is how many bytes are worth a write before their time.
	flushBytes = 64 << 10
	// closeWait bounds the wait of Close for an output that is stuck.
	closeWait = 5 * time.Second
)

var errStuck = errors.New("accesslog: the output did not take the last lines")

// output hands lines to a writer on a goroutine of its own. Sessions add to one
// buffer while the other is being written: the time of a write is never theirs.
type output struct {
	// Immutable after newOutput.
	w       io.Writer
	after   time.Duration
	max     int
	onError func(error)
	wakec   chan struct{} // there is something to look at
	donec   chan struct{} // closed when the goroutine has ended

	dropped atomic.Int64

	mu     sync.Mutex
	b      []byte // Guarded by mu: whole lines.
	lines  int    // Guarded by mu: how many.
	closed bool   // Guarded by mu.
	err    error  // Guarded by mu: of the last write.

	// Owned by the goroutine.
	spare   []byte
	torn    bool // the last write ended inside a line
	failing bool
}

func newOutput(o Options) *output {
	out := &output{
		w: o.Output, after: o.FlushAfter, max: o.MaxBuffered, onError: o.OnError,
		wakec: make(chan struct{}, 1), donec: make(chan struct{}),
	}
	if out.after == 0 {
		out.after = time.Second
	}
	if out.max <= 0 {
		out.max = 1 << 20
	}
	go out.run()
	return out
}

// add takes a copy of a line, or drops it. It never waits for the output.
func (o *output) add(line []byte) {
	o.mu.Lock()
	before := len(o.b)
	if o.closed || before+len(line) > o.max {
		o.mu.Unlock()
		o.dropped.Add(1)
		return
	}
	o.b = append(o.b, line...)
	after := len(o.b)
	o.lines++
	o.mu.Unlock()
	if before == 0 || (before < flushBytes && after >= flushBytes) {
		o.wake()
	}
}

func (o *output) wake() {
	select {
	case o.wakec <- struct{}{}:
	default: // it will look anyway
	}
}

// run writes until the output is closed. Its timer runs only while lines wait.
func (o *output) run() {
	defer close(o.donec)
	var timer *time.Timer
	var timec <-chan time.Time
	for {
		due := false
		select {
		case <-o.wakec:
		case <-timec:
			due, timec = true, nil
		}
		o.mu.Lock()
		n, closed := len(o.b), o.closed
		o.mu.Unlock()
		switch {
		case n == 0:
		case due || closed || n >= flushBytes || o.after < 0:
			if timer != nil {
				timer.Stop()
			}
			timec = nil
			o.flush()
		case timec == nil && timer == nil:
			timer = time.NewTimer(o.after)
			timec = timer.C
		case timec == nil:
			timer.Reset(o.after)
			timec = timer.C
		}
		if closed {
			return
		}
	}
}

// flush writes what there is.
func (o *output) flush() {
	o.mu.Lock()
	b, lines := o.b, o.lines
	o.b, o.lines = o.spare[:0], 0
	o.mu.Unlock()
	err := o.write(b, lines)
	o.mu.Lock()
	o.err = err
	o.mu.Unlock()
	o.spare = b
	if err != nil && !o.failing && o.onError != nil {
		o.onError(err)
	}
	o.failing = err != nil
	o.mu.Lock()
	again := len(o.b) > 0
	o.mu.Unlock()
	if again {
		o.wake()
	}
}

// write writes whole lines and counts those that are lost.
func (o *output) write(b []byte, lines int) error {
	if o.torn {
		// Ends the line that a failed write left open, so that none of ours grows
		// out of it.
		if _, err := o.w.Write([]byte{'\n'}); err != nil {
			o.dropped.Add(int64(lines))
			return err
		}
		o.torn = false
	}
	n, err := o.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		n = min(max(n, 0), len(b))
		o.dropped.Add(int64(lines - bytes.Count(b[:n], []byte{'\n'})))
		o.torn = n > 0 && b[n-1] != '\n'
	}
	return err
}

// close writes the rest and ends the goroutine.
func (o *output) close() error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.wake()
	wait := time.NewTimer(closeWait)
	defer wait.Stop()
	select {
	case <-o.donec:
	case <-wait.C:
		return errStuck
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
