//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loadSpec says what to send, how and for how long.
type loadSpec struct {
	addr    string
	conns   int
	target  target // of each request, without the id
	perConn bool   // a connection for each request

	// rate is requests a second that are due whether or not earlier ones are
	// answered; latency counts from when a request was due, which is what
	// corrects for coordinated omission. 0: each connection sends its next
	// request when it has the answer to the one before.
	rate float64

	// swing makes the number of requests in flight jump between inFlight and
	// swing every second. The connections take turns.
	swing int

	// once makes each connection send one request and stay open.
	once bool

	// inFlight is how many requests there are at a time; 0: one on each
	// connection, or on each stream.
	inFlight int

	tls     *tlsSpec // nil: plain
	streams int      // of each connection; 0: HTTP/1

	// messages is how many messages each gRPC call sends, one after the answer
	// to another, and what is counted; 0: no gRPC.
	messages int

	warm, measure time.Duration
}

// loadResult is what the measured part of a run saw.
type loadResult struct {
	completed int64 // within the measured part
	all       int64 // with the warm-up and what was in flight at the end
	elapsed   time.Duration
	bytes     int64
	connects  int64
	errors    map[string]int64
	latency   hist
	open      int   // connections that are open at the end
	resumed   int64 // handshakes of the measured part that were
}

func (r *loadResult) errorCount() (n int64) {
	for _, c := range r.errors {
		n += c
	}
	return n
}

// loader is the load generator: one thread.
type loader struct {
	spec    loadSpec
	to      *unix.SockaddrInet4
	poll    *poller
	conns   []*loadConn
	links   []*h2Link
	dirty   []*h2Link // have something to write
	byFD    []served  // by descriptor
	config  *tls.Config
	free    ring
	flying  int
	limit   int
	nextID  uint64
	sent    int64 // since the start of the open loop
	buf     []byte
	plain   []byte
	started time.Time
	now     int64
	counts  bool // inside the measured part
	stop    bool // no new requests
	res     loadResult
}

// served has a socket.
type served interface {
	serve(l *loader, events uint32)
}

// drainTime is how long requests in flight may take at the end of a run.
const drainTime = 5 * time.Second

// runLoad runs spec. It calls edge at the start and at the end of the measured
// part.
func runLoad(spec loadSpec, edge func(end bool)) (*loadResult, error) {
	l, err := newLoader(spec)
	if err != nil {
		return nil, err
	}
	defer l.close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.until(spec.warm, edgeNone)
	edge(false)
	l.counts = true
	from := l.clock()
	l.until(time.Duration(from)+spec.measure, edgeNone)
	l.counts = false
	l.res.elapsed = time.Duration(l.clock() - from)
	edge(true)
	l.drain()
	return &l.res, nil
}

func newLoader(spec loadSpec) (*loader, error) {
	to, err := sockaddr(spec.addr)
	if err != nil {
		return nil, err
	}
	l := &loader{spec: spec, to: to, buf: make([]byte, 256<<10), started: time.Now()}
	l.limit = l.peak()
	l.res.errors = map[string]int64{}
	l.nextID = uint64(l.started.UnixNano()) &^ (patternSpan - 1)
	if l.poll, err = newPoller(); err != nil {
		return nil, err
	}
	if spec.tls != nil {
		l.config = spec.tls.config()
	}
	l.makeConns()
	return l, l.preconnect()
}

// makeConns makes the places that requests take turns on: connections, or
// streams of connections. The streams of one do not follow each other, so that
// few requests spread over all.
func (l *loader) makeConns() {
	places := l.spec.conns * max(1, l.spec.streams)
	l.free.items = make([]*loadConn, places)
	if l.spec.streams > 0 {
		for range l.spec.conns {
			l.links = append(l.links, &h2Link{l: l, fd: -1})
		}
	}
	for i := range places {
		c := &loadConn{fd: -1}
		if l.spec.streams > 0 {
			c.link = l.links[i%l.spec.conns]
		}
		l.conns = append(l.conns, c)
		l.free.push(c)
	}
}

// preconnect makes the connections that take handshakes: they block, and none
// is to wait for another's with a request in hand.
func (l *loader) preconnect() error {
	for _, k := range l.links {
		if err := k.connect(); err != nil {
			return err
		}
	}
	if l.spec.tls == nil || l.spec.streams > 0 || l.spec.once {
		return nil
	}
	for _, c := range l.conns {
		if !l.connect(c) {
			return fmt.Errorf("connect: %v", l.res.errors)
		}
	}
	return nil
}

// peak is the most requests that are in flight.
func (l *loader) peak() int {
	if l.spec.inFlight > 0 {
		return l.spec.inFlight
	}
	return l.spec.conns * max(1, l.spec.streams)
}

func (l *loader) close() {
	for _, c := range l.conns {
		l.hangUp(c)
	}
	for _, k := range l.links {
		k.hangUp()
	}
	_ = unix.Close(l.poll.fd)
}

func (l *loader) clock() int64 {
	l.now = int64(time.Since(l.started))
	return l.now
}

func edgeNone() bool { return false }

// until runs the loop until the time is end, or done says so.
func (l *loader) until(end time.Duration, done func() bool) {
	for l.clock() < int64(end) && !done() {
		if l.spec.swing > 0 {
			l.limit = l.peak()
			if l.now/int64(time.Second)%2 == 1 {
				l.limit = l.spec.swing
			}
		}
		l.dispatch()
		l.flushLinks()
		wait := end - time.Duration(l.clock())
		if l.spec.rate > 0 && l.free.n > 0 {
			wait = min(wait, time.Duration(l.due(l.sent)-l.now))
		}
		events := l.poll.wait(max(0, min(wait, 50*time.Millisecond)))
		l.clock()
		for i := range events {
			if c := l.byFD[events[i].Fd]; c != nil {
				c.serve(l, events[i].Events)
			}
		}
	}
}

// due is when request number n of the open loop is to be sent.
func (l *loader) due(n int64) int64 { return int64(float64(n) / l.spec.rate * float64(time.Second)) }

// dispatch sends what is to be sent now.
func (l *loader) dispatch() {
	for !l.stop && l.free.n > 0 && l.flying < l.limit {
		at := l.now
		if l.spec.rate > 0 {
			if at = l.due(l.sent); at > l.now {
				return
			}
		}
		l.sent++
		c := l.free.pop()
		l.flying++
		l.send(c, at)
	}
}

// drain waits for the requests in flight and counts those that never end.
func (l *loader) drain() {
	l.stop = true
	l.until(time.Duration(l.clock())+drainTime, func() bool { return l.flying == 0 })
	if l.flying > 0 {
		l.res.errors["no answer"] += int64(l.flying)
	}
	for _, c := range l.conns {
		if c.fd >= 0 {
			l.res.open++
		}
	}
	for _, k := range l.links {
		if k.fd >= 0 {
			l.res.open++
		}
	}
}

// send starts a request on c that was due at the time at.
func (l *loader) send(c *loadConn, at int64) {
	t := l.spec.target
	l.nextID++
	t.id = l.nextID
	c.begin(t, at)
	if c.link != nil {
		c.link.send(c)
		return
	}
	c.head = append(c.head[:0], "GET "...)
	if t.upload > 0 {
		c.head = append(c.head[:0], "POST "...)
	}
	c.head = t.appendPath(c.head)
	c.head = append(c.head, " HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n"...)
	if l.spec.perConn {
		c.head = append(c.head, "Connection: close\r\n"...)
	}
	if t.upload > 0 {
		c.head = fmt.Appendf(c.head, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", t.upload)
		c.head = appendID(c.head, t.id)
		c.off, c.end = idLen, t.upload
	} else {
		c.head = append(c.head, "\r\n"...)
	}
	if c.fd < 0 && !l.connect(c) {
		return
	}
	if c.rest = c.head; c.pipe != nil {
		c.clear, c.rest = c.head, nil
	}
	l.flush(c)
}

func (l *loader) connect(c *loadConn) bool {
	fd, err := dialFD(l.to)
	if err != nil {
		l.fail(c, "connect")
		return false
	}
	if l.spec.tls != nil {
		if c.pipe, err = handshake(fd, l.spec.tls, l.config); err != nil {
			_ = unix.Close(fd)
			l.fail(c, "handshake: "+err.Error())
			return false
		}
	}
	c.fd, c.writing = fd, false
	l.watch(fd, c)
	return true
}

// watch gives a connected socket to the loop.
func (l *loader) watch(fd int, who served) {
	for fd >= len(l.byFD) {
		l.byFD = append(l.byFD, make([]served, 1024)...)
	}
	l.byFD[fd] = who
	_ = l.poll.add(fd, unix.EPOLLIN)
	if l.counts {
		l.res.connects++
	}
}

func (l *loader) hangUp(c *loadConn) {
	if c.fd >= 0 {
		l.byFD[c.fd] = nil
		_ = unix.Close(c.fd)
		c.fd, c.pipe = -1, nil
	}
}

func (l *loader) flush(c *loadConn) {
	for c.seal(); len(c.rest) > 0 || c.off < c.end; c.seal() {
		n, errno := rawSend(c.fd, c.rest, c.unsent())
		switch errno {
		case 0:
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if !c.writing {
				c.writing = true
				l.poll.mod(c.fd, unix.EPOLLIN|unix.EPOLLOUT)
			}
			return
		default:
			l.fail(c, "write: "+errno.Error())
			return
		}
		h := min(n, len(c.rest))
		c.rest = c.rest[h:]
		c.off += n - h
	}
	if c.writing {
		c.writing = false
		l.poll.mod(c.fd, unix.EPOLLIN)
	}
}

func (c *loadConn) serve(l *loader, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		l.flush(c)
	}
	if c.fd < 0 || events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	n, errno := rawRead(c.fd, l.buf)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return
	case errno != 0 && c.flying:
		l.fail(c, "read: "+errno.Error())
		return
	case n == 0 && c.flying:
		l.fail(c, "early end")
		return
	case errno != 0 || n == 0: // an idle connection that the proxy closed
		l.hangUp(c)
		return
	}
	data := l.buf[:n]
	if c.pipe != nil {
		var err error
		if l.plain, err = c.pipe.decrypt(l.plain[:0], data); err != nil && c.flying {
			l.fail(c, "read: "+err.Error())
			return
		} else if err != nil {
			l.hangUp(c)
			return
		}
		if data = l.plain; len(data) == 0 { // a ticket, or part of a record
			return
		}
	}
	done, problem := c.receive(data)
	if problem != "" {
		l.fail(c, problem)
		return
	}
	if l.counts {
		l.res.bytes += int64(n)
	}
	if done {
		l.finish(c)
	}
}

// finish counts a good answer and gives c its next request.
func (l *loader) finish(c *loadConn) {
	l.count(c)
	if l.spec.perConn || c.closes {
		l.hangUp(c)
	}
	l.release(c)
}

func (l *loader) count(c *loadConn) {
	l.res.all++
	if l.counts {
		l.res.completed++
		l.res.latency.add(l.now - c.due)
	}
}

// fail counts an error. The connection is not used again.
func (l *loader) fail(c *loadConn, why string) {
	l.res.errors[why]++
	l.hangUp(c)
	l.release(c)
	if len(l.res.errors) > 0 && l.res.errorCount() > 10_000 {
		l.stop = true // it does not proxy, and the loop must end
	}
}

func (l *loader) release(c *loadConn) {
	if !c.flying {
		return // it failed before it was sent
	}
	c.flying = false
	l.flying--
	if l.spec.once {
		return
	}
	l.free.push(c)
	l.dispatch()
}

// ring is a queue of connections.
type ring struct {
	items   []*loadConn
	from, n int
}

func (r *ring) push(c *loadConn) {
	r.items[(r.from+r.n)%len(r.items)] = c
	r.n++
}

func (r *ring) pop() *loadConn {
	c := r.items[r.from]
	r.from = (r.from + 1) % len(r.items)
	r.n--
	return c
}
