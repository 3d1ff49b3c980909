// Package wire is a connection as the engine needs it: a read buffer that is
// held only while there is something in it, timeouts without a runtime timer
// per wait, waits that another goroutine can end, gathered writes, and bodies
// moved by the kernel. It knows no protocol.
//
// On Linux TCP and Unix connections are used through their descriptors; every
// other net.Conn through its methods. The same tests run over both.
package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
)

var (
	// ErrTimeout says that a wait took longer than it may. It is an
	// os.ErrDeadlineExceeded too.
	ErrTimeout error = timeoutError{}
	// ErrTooSlow says that the other end stayed below the minimum rate.
	ErrTooSlow = errors.New("the other end is too slow")
	// ErrFull says that the read buffer holds as much as it may.
	ErrFull = errors.New("the read buffer is full")
	// ErrStray says that there were bytes where none are expected.
	ErrStray = errors.New("there are bytes that nobody asked for")

	errAgain = errors.New("wire: wait again")
)

type timeoutError struct{}

func (timeoutError) Error() string        { return "the wait took too long" }
func (timeoutError) Timeout() bool        { return true }
func (timeoutError) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// Conn is one connection. One goroutine may read while another writes; the
// methods said to be for any goroutine may be called at any time.
type Conn struct {
	// Immutable after New.
	nc   net.Conn
	tls  *tls.Conn // the same, if it is one over a Sock
	sock *Sock     // below tls
	low  net.Conn  // what has the deadlines: below sock, else nc
	// foreignTLS is a TLS connection without a Sock, for which a write that timed
	// out is the end.
	foreignTLS bool
	sweep      *Sweep
	sys        sysConn // the descriptor, where there is one

	// Owned by the reading goroutine.
	b     []byte      // the buffer; nil when none is held
	mem   *buf.Buffer // behind b; nil when b is larger than any class
	r, w  int         // b[r:w] was read and not discarded
	max   int
	limit int    // of what a read without a buffer takes; 0: none
	piece int    // how much a read is to take; 0: a small buffer
	first []byte // what FillIdle reads into without a descriptor
	// lastFilled says that the last read got as much as it asked for: there is
	// more.
	lastFilled bool
	rTimeout   time.Duration
	rAbs       time.Duration
	rRate      Rate

	// Owned by the writing goroutine.
	wTimeout time.Duration
	wAbs     time.Duration
	wRate    Rate
	wSince   time.Duration // when the present wait for room began
	wPending time.Duration // in all such waits

	// Atomic.
	rWait, wWait atomic.Int64 // the wait's deadline on the sweep's clock; noWait, or expired
	nRead, nSent atomic.Int64
	interrupted  atomic.Bool
	watchFrom    atomic.Int64 // since when the session waits; 0: not watched

	// mu orders who sets the deadlines of nc.
	mu             sync.Mutex
	rCause, wCause error // Guarded by mu: what interrupted reads and writes.

	gone func() // set once, before StartWatch

	// Guarded by the sweep's lock.
	parked *parked
	slot   int // index in the sweep's list, -1 when closed
}

// firstBytes is how much an idle connection without a descriptor has to hold.
const firstBytes = 512

const (
	noWait  = 0
	expired = -1
	forever = math.MaxInt64
)

var past = time.Unix(1, 0)

// New returns a Conn over nc, which it owns from now on. Close ends both.
func New(nc net.Conn, sweep *Sweep) *Conn {
	c := &Conn{nc: nc, low: nc, sweep: sweep, max: buf.SmallSize}
	c.adopt()
	c.sys.init(c)
	sweep.add(c)
	return c
}

// NetConn returns the connection below.
func (c *Conn) NetConn() net.Conn { return c.nc }

// SetMaxBuffer sets how much the read buffer may hold; beyond it Fill returns
// ErrFull. Less than the smallest buffer means that one.
func (c *Conn) SetMaxBuffer(n int) { c.max = max(n, buf.SmallSize) }

// SetReadTimeout bounds each wait for input. Zero is no bound.
func (c *Conn) SetReadTimeout(d time.Duration) { c.rTimeout = d }

// SetReadDeadline bounds all waits for input by a point on the sweep's clock.
// Zero is no bound.
func (c *Conn) SetReadDeadline(at time.Duration) { c.rAbs = at }

// SetWriteTimeout bounds each wait for room to write. Zero is no bound.
func (c *Conn) SetWriteTimeout(d time.Duration) { c.wTimeout = d }

// SetWriteDeadline bounds all waits for room by a point on the sweep's clock.
// Zero is no bound.
func (c *Conn) SetWriteDeadline(at time.Duration) { c.wAbs = at }

// BytesRead returns how many bytes came in. It is for any goroutine.
func (c *Conn) BytesRead() int64 { return c.nRead.Load() }

// BytesWritten returns how many bytes went out. It is for any goroutine.
func (c *Conn) BytesWritten() int64 { return c.nSent.Load() }

// Buffered returns what was read and not discarded, lent until the next call
// that reads.
func (c *Conn) Buffered() []byte { return c.b[c.r:c.w] }

// LimitFirst bounds what FillIdle and Exchange read at once. Zero is no bound
// but the buffer.
func (c *Conn) LimitFirst(n int) { c.limit = n }

// SetPiece says how much of the input can go on at once, by which reads choose their
// buffer: a tiny one where hardly anything can, a large one for a source that has more.
// Zero is a small one.
func (c *Conn) SetPiece(n int) { c.piece = n }

// class returns the buffer for the next read.
func (c *Conn) class() buf.Class {
	switch {
	case c.piece > 0 && c.piece <= buf.TinySize:
		return buf.Tiny
	case c.piece >= buf.LargeSize && c.lastFilled:
		return buf.Large
	}
	return buf.Small
}

// Discard takes n bytes from the front of what is buffered.
func (c *Conn) Discard(n int) {
	c.r += n
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
}

// ReleaseBuffer gives the buffer back if nothing is in it.
func (c *Conn) ReleaseBuffer() {
	if c.r == c.w {
		c.dropBuffer()
	}
}

func (c *Conn) dropBuffer() {
	if c.mem != nil {
		c.mem.Free()
	}
	c.mem, c.b, c.r, c.w = nil, nil, 0, 0
}

func (c *Conn) useBuffer(class buf.Class) {
	c.mem = buf.Get(class)
	c.b = c.mem.B
}

// makeRoom sees to it that there is room behind what is buffered.
func (c *Conn) makeRoom() error {
	switch {
	case c.b == nil:
		c.useBuffer(c.class())
	case c.w == 0 && c.piece > 0 && len(c.b) != c.class().Size():
		class := c.class()
		c.dropBuffer()
		c.useBuffer(class)
	case c.w < len(c.b):
	case c.r > 0:
		c.w = copy(c.b, c.b[c.r:c.w])
		c.r = 0
	case len(c.b) >= c.max:
		return ErrFull
	default:
		c.grow()
	}
	return nil
}

func (c *Conn) grow() {
	old, mem := c.b, c.mem
	if len(old) < buf.LargeSize {
		c.useBuffer(buf.Large)
	} else {
		c.mem, c.b = nil, make([]byte, min(4*len(old), max(c.max, 2*len(old))))
	}
	copy(c.b, old[:c.w])
	if mem != nil {
		mem.Free()
	}
}

// Fill reads once and adds what came to the buffer. The error is io.EOF,
// ErrTimeout, ErrTooSlow, ErrFull, the cause of an interruption, or the
// system's.
func (c *Conn) Fill() error {
	if err := c.makeRoom(); err != nil {
		return err
	}
	return c.read(opFill)
}

// FillIdle is Fill for an empty buffer: it holds none while it waits.
func (c *Conn) FillIdle() error { return c.read(opIdle) }

// read waits for input as the operation says.
func (c *Conn) read(op readOp) error {
	for {
		armed, n, err := c.readOnce(op)
		if n > 0 {
			c.nRead.Add(int64(n))
		}
		if armed {
			c.rRate.Note(c.sweep.Now(), n)
		} else {
			c.rRate.Credit(n)
		}
		if armed || err != nil {
			err = c.endWait(&c.rWait, &c.rCause, err, c.low.SetReadDeadline)
		}
		switch {
		case err == errAgain:
			op = c.sys.resume(op)
			continue
		case c.rRate.TooSlow() && (err == nil || err == ErrTimeout):
			return ErrTooSlow
		}
		return err
	}
}

func (c *Conn) readOnce(op readOp) (armed bool, n int, err error) {
	if c.sys.ok() {
		return c.sys.read(op)
	}
	armed = true
	if op == opIdle {
		// No buffer while waiting: a few bytes, and the rest at the next Fill.
		c.dropBuffer()
		if c.first == nil {
			c.first = make([]byte, firstBytes)
		}
		c.armRead()
		if n, err = c.nc.Read(c.first); n > 0 {
			c.useBuffer(buf.Small)
			c.w = copy(c.b, c.first[:n])
		}
		c.lastFilled = n == firstBytes
		return armed, n, c.onlyError(n, err)
	}
	c.armRead()
	n, err = c.nc.Read(c.b[c.w:])
	c.w += n
	c.lastFilled = c.w == len(c.b)
	return armed, n, c.onlyError(n, err)
}

// onlyError drops the error that came with data: the next read brings it again.
func (c *Conn) onlyError(n int, err error) error {
	switch {
	case n > 0:
		return nil
	case err == io.EOF && c.sock != nil && c.sock.ended:
		return ErrCut
	}
	return err
}

// armRead tells the sweep that a wait for input begins.
func (c *Conn) armRead() {
	c.arm(&c.rWait, c.waitEnd(c.rTimeout, c.rAbs, &c.rRate), &c.rCause, c.low.SetReadDeadline)
}

// armWrite tells the sweep that a wait for room begins.
func (c *Conn) armWrite() {
	c.wSince = c.sweep.NowExact()
	c.arm(&c.wWait, c.waitEnd(c.wTimeout, c.wAbs, &c.wRate), &c.wCause, c.low.SetWriteDeadline)
}

// waitEnd returns until when a wait that begins now may last.
func (c *Conn) waitEnd(timeout, abs time.Duration, r *Rate) time.Duration {
	at := time.Duration(forever)
	if timeout <= 0 && abs <= 0 && r.perSecond == 0 {
		return at
	}
	now := c.sweep.Now()
	if timeout > 0 {
		at = now + timeout
	}
	if abs > 0 {
		at = min(at, abs)
	}
	// The clock is late by up to a tick; an expiry is never early.
	return min(at, r.Deadline(now)) + c.sweep.tick
}

// WritePending returns how long writes have waited for room since
// ResetWritePending.
func (c *Conn) WritePending() time.Duration { return c.wPending }

// ResetWritePending starts the count anew.
func (c *Conn) ResetWritePending() { c.wPending = 0 }

func (c *Conn) arm(word *atomic.Int64, at time.Duration, cause *error, set func(time.Time) error) {
	if word.Swap(int64(at)) == expired {
		// The wait before this one had made progress when the sweep ended it.
		c.mu.Lock()
		if *cause == nil {
			_ = set(time.Time{})
		}
		c.mu.Unlock()
	}
}

// endWait says what a wait's error means. errAgain means that there was no
// reason for it any more.
func (c *Conn) endWait(word *atomic.Int64, cause *error, err error, set func(time.Time) error) error {
	late := word.Swap(noWait) == expired
	timedOut := err != nil && errors.Is(err, os.ErrDeadlineExceeded)
	if !late && !timedOut {
		return err
	}
	c.mu.Lock()
	why := *cause
	if why == nil {
		_ = set(time.Time{})
	}
	c.mu.Unlock()
	switch {
	case !timedOut:
		return err
	case why != nil:
		return why
	case late:
		return ErrTimeout
	}
	return errAgain
}

// endWriteWait is endWait for a write that sent n bytes after its wait.
func (c *Conn) endWriteWait(armed bool, n int, err error) error {
	if armed {
		c.wRate.Note(c.sweep.Now(), n)
		c.wPending += c.sweep.NowExact() - c.wSince
	}
	err = c.endWait(&c.wWait, &c.wCause, err, c.low.SetWriteDeadline)
	if err == errAgain && c.foreignTLS {
		return ErrTimeout // it would say so for ever
	}
	return err
}

// expire ends a wait whose deadline the sweep saw pass.
func (c *Conn) expire(word *atomic.Int64, seen int64, set func(time.Time) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if word.CompareAndSwap(seen, expired) {
		_ = set(past)
	}
}

// InterruptRead makes the present read and all later ones return cause, until
// ClearInterrupt. The first cause stands. It is for any goroutine.
func (c *Conn) InterruptRead(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rCause == nil {
		c.rCause = cause
	}
	c.interrupted.Store(true)
	_ = c.low.SetReadDeadline(past)
}

// InterruptWrite is InterruptRead for writes.
func (c *Conn) InterruptWrite(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wCause == nil {
		c.wCause = cause
	}
	c.interrupted.Store(true)
	_ = c.low.SetWriteDeadline(past)
}

// interruption returns what interrupted reads or writes, or nil.
func (c *Conn) interruption(cause *error) error {
	if !c.interrupted.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return *cause
}

// ClearInterrupt takes interruptions back. It is for any goroutine.
func (c *Conn) ClearInterrupt() {
	if !c.interrupted.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted.Store(false)
	c.rCause, c.wCause = nil, nil
	if c.rWait.Load() != expired {
		_ = c.low.SetReadDeadline(time.Time{})
	}
	if c.wWait.Load() != expired {
		_ = c.low.SetWriteDeadline(time.Time{})
	}
}

// Write sends b.
func (c *Conn) Write(b []byte) (int, error) { return c.Writev(b, nil, nil) }

// Writev sends a, b and d behind each other, as if they were one.
func (c *Conn) Writev(a, b, d []byte) (int, error) {
	if c.tls != nil {
		return c.writeTLS(a, b, d)
	}
	sent := 0
	for {
		armed, n, err := c.writeOnce(skip(a, b, d, sent))
		sent += n
		c.nSent.Add(int64(n))
		if armed || err != nil {
			err = c.endWriteWait(armed, n, err)
		}
		switch {
		case err == errAgain:
		case c.wRate.TooSlow() && (err == nil || err == ErrTimeout):
			return sent, ErrTooSlow
		case err == ErrTimeout && n > 0:
			// The other end reads, if slowly: one call to a connection without a
			// descriptor spans many waits.
		case err != nil || sent == len(a)+len(b)+len(d):
			return sent, err
		}
	}
}

// skip returns what is left of three pieces after n bytes.
func skip(a, b, d []byte, n int) (x, y, z []byte) {
	k := min(n, len(a))
	a, n = a[k:], n-k
	k = min(n, len(b))
	b, n = b[k:], n-k
	return a, b, d[n:]
}

func (c *Conn) writeOnce(a, b, d []byte) (armed bool, n int, err error) {
	if c.sys.ok() {
		return c.sys.write(a, b, d)
	}
	// A TLS connection makes a record, with a head and a tag, of each write.
	p, mem := gather(a, b, d)
	if mem != nil {
		defer mem.Free()
	}
	if len(p) == 0 {
		return false, 0, nil
	}
	c.armWrite()
	n, err = c.nc.Write(p)
	return true, n, err
}

// gather returns the first bytes of three pieces behind each other: the first
// piece itself, if the others are empty or it is large, else what a buffer has
// room for, which the caller gives back.
func gather(a, b, d []byte) ([]byte, *buf.Buffer) {
	switch {
	case len(a) == 0 && len(b) == 0:
		return d, nil
	case len(a) == 0 && (len(d) == 0 || len(b) >= buf.SmallSize):
		return b, nil
	case len(b)+len(d) == 0 || len(a) >= buf.SmallSize:
		return a, nil
	}
	mem := buf.Get(buf.Small)
	n := copy(mem.B, a)
	n += copy(mem.B[n:], b)
	n += copy(mem.B[n:], d)
	return mem.B[:n], mem
}

// Releaser gives memory back.
type Releaser interface{ Release() }

// Exchange sends out and tail on a connection that waits for nothing, and
// waits for input, holding no buffer: when all is sent it releases mem, which
// holds out, before it waits. It returns ErrStray, io.EOF or the
// system's error with nothing sent when the connection was not quiet. An error
// after something was sent may come from either direction.
func (c *Conn) Exchange(out, tail []byte, mem Releaser) (sent int, err error) {
	if c.sys.ok() {
		return c.exchangeSys(out, tail, mem)
	}
	if err := c.Stray(); err != nil {
		return 0, err
	}
	if sent, err = c.Writev(out, tail, nil); err != nil {
		return sent, err
	}
	mem.Release()
	return sent, c.read(opIdle)
}

// Stray looks, without waiting, whether an idle connection is quiet: it returns
// nil if so, ErrStray, io.EOF, or the system's error.
func (c *Conn) Stray() error {
	if c.w > c.r {
		return ErrStray
	}
	if c.sys.ok() {
		return c.sys.peek()
	}
	if c.tls != nil {
		return c.strayTLS()
	}
	if q, ok := c.nc.(interface{ Stray() error }); ok {
		switch err := q.Stray(); err {
		case nil, io.EOF:
			return err
		default:
			return ErrStray
		}
	}
	return nil
}

// PeerClosed reports whether the other end has closed its sending side, or
// reset. It reads nothing and is for any goroutine.
func (c *Conn) PeerClosed() bool {
	if c.sys.ok() {
		return c.sys.peerClosed()
	}
	nc := c.nc
	for {
		if q, ok := nc.(interface{ PeerClosed() bool }); ok {
			return q.PeerClosed()
		}
		inner, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		nc = inner.NetConn()
		if is, closed := rawPeerClosed(nc); is {
			return closed
		}
	}
}

// watchAfter is how long a session must have waited before its client is
// looked at: fast requests never pay for it.
const watchAfter = 200 * time.Millisecond

// Watch says what to call when the other end leaves during StartWatch and
// StopWatch. It is called once.
func (c *Conn) Watch(gone func()) { c.gone = gone }

// StartWatch begins to look whether the other end has left.
func (c *Conn) StartWatch() {
	if c.gone != nil {
		c.watchFrom.Store(int64(c.sweep.Now()) + 1)
	}
}

// StopWatch ends it. The call may still come once.
func (c *Conn) StopWatch() { c.watchFrom.Store(0) }

// CloseWrite ends the sending direction.
func (c *Conn) CloseWrite() error {
	if c.tls != nil {
		if err := c.tls.CloseWrite(); err != nil {
			return err
		}
		return c.sock.CloseWrite()
	}
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.nc.Close()
}

// Detach gives the connection below away, with what was read from it and not
// used. The Conn must not be used any more.
func (c *Conn) Detach() (nc net.Conn, unread []byte) {
	unread = append([]byte(nil), c.Buffered()...)
	c.sweep.remove(c)
	c.ClearInterrupt()
	c.dropBuffer()
	if c.sock != nil {
		c.sock.c = nil
	}
	return c.nc, unread
}

// Close ends the connection. It may be called more than once, by its owner.
func (c *Conn) Close() {
	c.sweep.remove(c)
	if c.sock != nil {
		c.sock.last.Store(true)
	}
	_ = c.nc.Close()
	c.dropBuffer()
}

// Abort ends the connection with a reset, so that the other end cannot take
// what it got for everything.
func (c *Conn) Abort() {
	nc := c.nc
	for {
		t, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = t.NetConn()
	}
	switch t := nc.(type) {
	case *net.TCPConn:
		_ = t.SetLinger(0)
		_ = t.Close()
	case interface{ Reset() error }:
		_ = t.Reset()
	}
	c.Close()
}

// LingerClose ends the sending direction, reads on until the other end has
// closed, for at most max and maxBytes, and closes: closing with unread input
// would make the system send a reset, which can destroy what was just written.
//
// RFC 9112, section 9.6.
func (c *Conn) LingerClose(maxBytes int, max time.Duration) {
	if c.CloseWrite() == nil {
		c.rRate = Rate{}
		c.SetReadTimeout(0)
		c.SetReadDeadline(c.sweep.Now() + max)
		for maxBytes > 0 {
			c.Discard(c.w - c.r)
			if c.Fill() != nil {
				break
			}
			maxBytes -= c.w - c.r
		}
	}
	c.Close()
}
