package downstream

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/h1io"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

var (
	errDraining = errors.New("the server is draining")
	errClosed   = &reason.Error{Reason: reason.ServerClosed}
	// ErrGone is the cause of a wait that ended because the client left.
	ErrGone = &reason.Error{Reason: reason.ClientGone}
)

// H1 is one HTTP/1 connection to a client, and the exchange.Down of the request
// that it serves at the moment. One lives as long as its connection.
type H1 struct {
	// Immutable after NewH1.
	wc    *wire.Conn
	cfg   *Config
	sweep *wire.Sweep

	// User is the Handler's own: it keeps what it reuses from request to request.
	User any
	// Sniffed says that the client may have meant to speak HTTP/2, which is taken on
	// the same port. Immutable after the first request.
	Sniffed bool

	// Owned by the connection's goroutine.
	req       message.Request
	meta      h1.RequestMeta
	out       h1io.Writer
	requests  int  // heads read
	keep      bool // the connection may serve another request
	started   bool // a final head was handed to WriteHead
	finished  bool // the response was written to its end
	aborted   bool
	hijacked  bool // the connection has another owner
	tunneled  bool // bytes of another protocol are on the connection
	upgrading bool // the request asks for another protocol
	expect    bool // the client waits for a 100
	head      bool // the request came as HEAD, whatever hooks make of it
	lingering bool // the client may still be sending what is not read
	end       reason.Reason
	bounds    Bounds // of the exchange; of the fields that Bounds shares, MinRate is the reader's

	// Owned by the goroutine that reads the request body; Ended is atomic.
	in      h1io.Reader
	trailer message.Header
	unrated bool // a client that waits for a 100 is not slow: the rate counts from its first byte on

	// Atomic.
	state    atomic.Uint32
	draining atomic.Bool
	killed   atomic.Bool
	gone     atomic.Bool

	watchMu sync.Mutex
	watcher exchange.Canceler // Guarded by watchMu.
	cancel  error             // Guarded by watchMu: what ends all waits of the present session.
}

// NewH1 returns the connection over wc, which it owns from now on.
func NewH1(wc *wire.Conn, sweep *wire.Sweep, cfg *Config) *H1 {
	c := &H1{wc: wc, cfg: cfg, sweep: sweep, bounds: cfg.Bounds}
	wc.SetMaxBuffer(cfg.Limits.HeadBytes)
	if !cfg.AllowHalfClose {
		wc.Watch(c.left)
	}
	return c
}

// Wire returns the connection itself, for its addresses, counters and for a
// tunnel after a 101.
func (c *H1) Wire() *wire.Conn { return c.wc }

// Meta returns what the head of the present request says besides its fields.
func (c *H1) Meta() *h1.RequestMeta { return &c.meta }

// Requests returns how many heads were read on the connection.
func (c *H1) Requests() int { return c.requests }

// Gone reports whether the client was seen to leave.
func (c *H1) Gone() bool { return c.gone.Load() }

// Serve runs the connection until it ends or is parked.
func (c *H1) Serve() {
	for {
		if c.requests > 0 {
			c.setState(StateIdle)
		}
		switch c.readHead() {
		case headRead:
		case headParked:
			return
		default:
			c.close()
			return
		}
		c.cfg.Handler.ServeExchange(c)
		if !c.finish() {
			c.close()
			return
		}
	}
}

// State returns what the connection does. It may be called from any goroutine.
func (c *H1) State() State { return State(c.state.Load()) }

func (c *H1) setState(to State) { c.state.Store(uint32(to)) }

// Drain ends the connection as soon as it is idle. It may be called from any
// goroutine.
func (c *H1) Drain() {
	c.watchMu.Lock()
	defer c.watchMu.Unlock()
	c.draining.Store(true)
	if s := State(c.state.Load()); s == StateIdle || s == StateNew {
		c.wc.InterruptRead(errDraining)
	}
}

// activate takes the connection out of its idle state. Under the lock that
// Drain takes: an interruption meant for the idle wait is over here.
func (c *H1) activate() {
	c.watchMu.Lock()
	c.setState(StateActive)
	cancelled := c.cancel != nil
	c.cancel = nil
	c.watchMu.Unlock()
	if cancelled {
		c.clearInterrupt()
	}
	if c.draining.Load() {
		c.clearInterrupt()
	}
}

// clearInterrupt takes interruptions of the present wait back, but not Kill's.
func (c *H1) clearInterrupt() {
	c.wc.ClearInterrupt()
	if c.killed.Load() {
		c.wc.InterruptRead(errClosed)
		c.wc.InterruptWrite(errClosed)
	}
}

// Kill ends the connection at once, whatever it does. It may be called from
// any goroutine.
func (c *H1) Kill() {
	c.draining.Store(true)
	c.killed.Store(true)
	c.CancelWait(errClosed)
}

// left is called by the sweep when the client's FIN or RST was seen while its
// session waits for something else.
func (c *H1) left() {
	c.gone.Store(true)
	c.watchMu.Lock()
	defer c.watchMu.Unlock()
	if c.watcher != nil {
		c.watcher.Cancel(ErrGone)
		c.watcher = nil
	}
}

// Watch implements exchange.Down.
func (c *H1) Watch(w exchange.Canceler) {
	c.watchMu.Lock()
	c.watcher = w
	cause := c.cancel
	c.watchMu.Unlock()
	if cause != nil {
		w.Cancel(cause)
	}
	if c.gone.Load() {
		c.left()
		return
	}
	c.wc.StartWatch()
}

// Unwatch implements exchange.Down.
func (c *H1) Unwatch() {
	c.wc.StopWatch()
	c.watchMu.Lock()
	c.watcher = nil
	c.watchMu.Unlock()
}

// finish ends the exchange and reports whether the connection can serve
// another one.
func (c *H1) finish() bool {
	c.out.Release()
	switch {
	case c.hijacked:
		c.end = reason.TunnelEnded
		return false
	case c.tunneled:
		c.end = reason.TunnelEnded
		return false
	case c.aborted, !c.finished:
		return false
	case !c.keep:
		if c.end == reason.None {
			c.end = reason.KeepAliveOff
		}
		return false
	case !c.in.Ended() && !c.drainBody():
		c.end = reason.UnreadBody
		return false
	}
	c.in.Settle()
	return true
}

// drainBody reads what the session left of the request body, so that the next
// request begins where this one ends (RFC 9112, section 9.3).
func (c *H1) drainBody() bool {
	budget := c.bounds.DrainBytes
	if left := c.in.Left(); left > budget {
		return false
	}
	if d := c.bounds.DrainTime; d > 0 {
		c.wc.SetReadDeadline(c.sweep.Now() + d)
		defer c.wc.SetReadDeadline(0)
	}
	for {
		b, last, err := c.in.Next()
		if err != nil {
			return false
		}
		if budget -= int64(len(b)); budget < 0 {
			return false
		}
		if last {
			return true
		}
	}
}

// close ends the connection for good. A client that may still be sending gets
// the time to read what was said to it.
func (c *H1) close() {
	c.out.Release()
	switch {
	case c.hijacked:
		c.setState(StateClosed)
		c.cfg.Handler.Ended(c, c.end)
		return
	case c.aborted && c.out.Framing() == h1.Close:
		c.wc.Abort() // an ordinary end would say that the body is complete
	case c.aborted:
		c.wc.Close()
	case c.lingering || (c.finished && (!c.in.Ended() || c.wc.Stray() == wire.ErrStray)):
		c.clearInterrupt()
		c.wc.LingerClose(256<<10, 2*time.Second)
	default:
		c.wc.Close()
	}
	c.setState(StateClosed)
	c.cfg.Handler.Ended(c, c.end)
}

type headResult uint8

const (
	headRead headResult = iota
	headParked
	headNone // the connection ends
)

// readHead waits for a request and parses its head.
func (c *H1) readHead() headResult {
	if len(c.wc.Buffered()) == 0 {
		if r := c.awaitFirst(); r != headRead {
			return r
		}
	}
	c.activate()
	n, herr, ok := c.completeHead()
	if !ok || c.unspoken() {
		return headNone
	}
	c.begin()
	if herr == nil {
		head := c.wc.Buffered()[:n]
		herr = parseError(h1.ParseRequest(head, &c.cfg.Limits, &c.cfg.Rules, &c.req, &c.meta))
		c.wc.Discard(n)
	}
	c.head = c.req.Method() == "HEAD"
	if herr != nil {
		c.refuse(herr)
		return headNone
	}
	c.accept()
	return headRead
}

// unspoken reports whether a client of a port for HTTP/1 and HTTP/2 begins with
// neither: nobody can say in which of the two an answer would be understood.
//
// RFC 9113, section 3.4: an invalid preface ends the connection, and a GOAWAY may be
// left out since the client does not seem to speak HTTP/2. RFC 9112, section 3: a 400
// for an invalid request line is only recommended.
func (c *H1) unspoken() bool {
	if !c.Sniffed || c.requests > 0 || h1.BeginsRequest(c.wc.Buffered()) {
		return false
	}
	c.end = reason.ProtocolError
	return true
}

// parseError returns err as what it always is.
func parseError(err error) *h1.Error {
	if err == nil {
		return nil
	}
	return err.(*h1.Error)
}

// begin resets what belongs to one exchange.
func (c *H1) begin() {
	c.req.Reset()
	if c.trailer.Len() > 0 {
		c.trailer.Reset()
	}
	c.meta = h1.RequestMeta{}
	c.requests++
	c.started, c.finished, c.aborted, c.lingering, c.head = false, false, false, false, false
	c.out.Start(c.wc)
	c.in.Start(c.wc, h1.None, 0, nil)
	c.wc.SetReadDeadline(0)
	c.wc.SetWriteDeadline(0)
	c.bounds = c.cfg.Bounds // what a session set for itself is its own
	c.wc.SetWriteTimeout(c.bounds.WriteTimeout)
}

// accept sets the exchange up from its parsed head.
func (c *H1) accept() {
	c.keep = c.meta.KeepAlive
	if c.meta.LengthDropped {
		// The client may go on sending, and nothing of it may be parsed.
		c.lingering, c.end = true, reason.BadFraming
	}
	c.expect = c.meta.Expect100 && c.meta.Framing != h1.None
	c.upgrading = c.meta.UpgradeWanted || c.req.Method() == "CONNECT"
	c.in.Start(c.wc, c.meta.Framing, c.req.Length(), &c.trailer)
	c.unrated = c.expect
	if c.expect {
		c.wc.SetMinRate(0, 0)
	}
	c.boundReads()
	c.wc.SetMinWriteRate(c.bounds.MinRate, c.bounds.MinRateGrace)
}

// boundReads makes the bounds those of the present body.
func (c *H1) boundReads() {
	c.wc.SetReadTimeout(c.bounds.BodyTimeout)
	if !c.unrated && c.meta.Framing != h1.None {
		c.wc.SetMinRate(c.bounds.MinRate, c.bounds.MinRateGrace)
	}
}

// SetBounds gives the present exchange bounds of its own, which hold for waits
// that begin later: those of the reader if read is set, the others if write is.
// The caller owns the sides that it names.
func (c *H1) SetBounds(b Bounds, read, write bool) {
	if read {
		c.bounds.BodyTimeout, c.bounds.MinRate, c.bounds.MinRateGrace = b.BodyTimeout, b.MinRate, b.MinRateGrace
		c.boundReads()
	}
	if write {
		c.bounds.IdleTimeout, c.bounds.WriteTimeout = b.IdleTimeout, b.WriteTimeout
		c.bounds.DrainBytes, c.bounds.DrainTime = b.DrainBytes, b.DrainTime
		c.wc.SetWriteTimeout(b.WriteTimeout)
		c.wc.SetMinWriteRate(b.MinRate, b.MinRateGrace)
	}
}

// DefaultBounds returns those of an exchange that got none of its own.
func (c *H1) DefaultBounds() *Bounds { return &c.cfg.Bounds }

// refuse answers a head that cannot be served.
func (c *H1) refuse(err *h1.Error) {
	c.keep, c.lingering = false, true
	c.end = err.Reason
	c.cfg.Handler.RefuseHead(c, err)
}

// awaitFirst waits, without a buffer, for the first byte of a head.
func (c *H1) awaitFirst() headResult {
	timeout, park := c.bounds.IdleTimeout, time.Duration(0)
	if c.requests == 0 {
		timeout = c.cfg.HeadTimeout
	}
	if p := c.cfg.ParkAfter; p > 0 && (timeout == 0 || p < timeout) && c.cfg.Parker != nil && c.wc.CanPark() {
		park = p
	}
	c.wc.SetMinRate(0, 0)
	c.wc.SetReadTimeout(timeout)
	if park > 0 {
		c.wc.SetReadTimeout(park)
	}
	if c.draining.Load() && c.requests > 0 {
		c.end = reason.Shutdown
		if c.crossed() {
			return headRead
		}
		return headNone
	}
	if c.requests > 0 {
		// Let those run that are ready: when it is our turn again the next request
		// has often come, which saves two system calls and a wait.
		runtime.Gosched()
	}
	err := c.wc.FillIdle()
	switch {
	case err == nil:
		return headRead
	case errors.Is(err, wire.ErrTimeout) && park > 0 && !c.draining.Load():
		return c.park(timeout, park)
	case errors.Is(err, wire.ErrTimeout):
		c.end = reason.IdleTimeout
	case errors.Is(err, errDraining):
		c.end = reason.Shutdown
		if c.crossed() {
			return headRead
		}
	case errors.Is(err, errClosed):
		c.end = reason.ServerClosed
	case errors.Is(err, io.EOF):
		c.end = reason.PeerClosed
	default:
		c.end = reason.ClientReset
	}
	return headNone
}

// crossed reports whether a request has come that crossed our decision to end
// the idle connection: it is served, with a close.
func (c *H1) crossed() bool {
	c.clearInterrupt()
	if c.killed.Load() || c.wc.Stray() != wire.ErrStray {
		return false
	}
	c.end = reason.None
	return len(c.wc.Buffered()) > 0 || c.wc.Fill() == nil // over TLS the look took it
}

// park gives the goroutine back until the client says something.
func (c *H1) park(timeout, waited time.Duration) headResult {
	deadline := time.Duration(0)
	if timeout > 0 {
		deadline = c.sweep.Now() + timeout - waited
	}
	c.setState(StateParked)
	c.req = message.Request{} // its buffers are most of what the connection holds
	c.cfg.Handler.Parked(c)
	c.cfg.Parker.Park(c.wc, deadline, c.unpark)
	return headParked
}

// unpark goes on in a goroutine of its own.
func (c *H1) unpark(_ *wire.Conn, why wire.WakeReason) {
	if why == wire.WakeReadable || c.wc.Stray() == wire.ErrStray {
		c.Serve()
		return
	}
	c.end = reason.IdleTimeout
	if why == wire.WakeShutdown {
		c.end = reason.Shutdown
	}
	c.close()
}

// completeHead reads until the head is whole and returns its length. It
// reports false when the connection ended instead, having answered if an
// answer is due.
func (c *H1) completeHead() (n int, herr *h1.Error, ok bool) {
	end, next, err := h1.HeadEnd(c.wc.Buffered(), 0)
	if end >= 0 || err != nil {
		return end, parseError(err), true
	}
	timeout := c.cfg.HeadTimeout
	c.wc.SetReadTimeout(0)
	if timeout > 0 {
		c.wc.SetReadDeadline(c.sweep.Now() + timeout)
		defer c.wc.SetReadDeadline(0)
	}
	for {
		if b := c.wc.Buffered(); len(b) >= c.cfg.Limits.HeadBytes {
			return 0, tooLarge(b), true
		}
		if err := c.wc.Fill(); err != nil {
			return c.headFailed(err)
		}
		end, next, err = h1.HeadEnd(c.wc.Buffered(), next)
		if end >= 0 || err != nil {
			return end, parseError(err), true
		}
	}
}

var (
	errHeadTooLarge = &h1.Error{Status: 431, Reason: reason.HeadTooLarge, Detail: "the head is larger than the limit"}
	errTargetLong   = &h1.Error{Status: 414, Reason: reason.TargetTooLong, Detail: "the request target is longer than the limit"}
	errHeadTimeout  = &h1.Error{Status: 408, Reason: reason.HeadTimeout, Detail: "the head did not come in time"}
	errHeadCut      = &h1.Error{Status: 400, Reason: reason.BadRequest, Detail: "the connection ended inside the head"}
)

// tooLarge says what of a head is too large: its first line or the whole.
func tooLarge(b []byte) *h1.Error {
	if bytes.IndexByte(b, '\n') < 0 {
		return errTargetLong
	}
	return errHeadTooLarge
}

// headFailed says what to do about a read that failed inside a head.
func (c *H1) headFailed(err error) (int, *h1.Error, bool) {
	switch {
	case errors.Is(err, wire.ErrFull):
		return 0, tooLarge(c.wc.Buffered()), true
	case errors.Is(err, wire.ErrTimeout):
		return 0, errHeadTimeout, true
	case errors.Is(err, io.EOF):
		return 0, errHeadCut, true
	case errors.Is(err, errClosed):
		c.end = reason.ServerClosed
	default:
		c.end = reason.ClientReset
	}
	return 0, nil, false
}
