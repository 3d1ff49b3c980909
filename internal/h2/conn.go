package h2

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
	"github.com/cirqueproxy/cirque/internal/wire"
)

// recvFrame is the largest frame that we take: the smallest that RFC 9113,
// section 4.2 lets us announce. Larger ones would only delay other streams.
const recvFrame = 16 << 10

// Conn is one HTTP/2 connection. Its reader goroutine is the one that calls
// Serve; a writer goroutine exists while there is something to write; each
// stream has the goroutines of its owner. They meet under one mutex: what is
// done under it takes less time than to hand it to another goroutine.
type Conn struct {
	// Immutable after newConn.
	wc     *wire.Conn
	sweep  *wire.Sweep
	cfg    *Config
	role   h2frame.Role
	tick   *wire.Tick
	writer func()
	donec  chan struct{} // closed when Serve is about to return
	park   parking       // but for what it says

	// Owned by the reader goroutine.
	dec    *hpack.Decoder
	head   headReader
	block  block
	frames int  // that were whole
	noted  int  // frames when the reader last said what the other end owes
	owes   bool // it owed something then
	ended  bool // the other end closed its direction

	mu sync.Mutex

	// Guarded by mu.
	streams  map[uint32]*Stream
	freeList []*Stream
	ids      h2stream.IDs
	opened   int       // Client: streams reserved or open
	workers  []*worker // that wait for a stream
	spare    int       // of them, not used since restAt
	restAt   time.Duration
	running  int           // Server: handlers
	ending   int           // of them, those whose stream has ended in the ordinary way
	err      *Error        // why the connection is over
	abrupt   bool          // it is to be closed without waiting for anything
	seen     bool          // the other end's SETTINGS came
	ackSince time.Duration // since when it owes an acknowledgement of ours; 0: it does not
	acked    bool
	peer     h2frame.Settings
	hpack    uint32 // the size of table that the other end's decoder reckons with
	shrunk   bool   // it has asked for a smaller one and was not told yet
	headHeld int    // bytes of decoded sections in streams
	send     h2stream.SendWindow
	recv     h2stream.RecvWindow
	abuse    h2stream.Budgets

	out      outBuffer
	writing  bool // a writer goroutine exists
	turns    uint64
	early    map[uint32]h2stream.Priority // of streams that are not open yet
	waiting  []*Stream                    // that have something to send and no room or credit for it
	closing  bool                         // nothing follows what is in out: the writer closes
	quiet    sync.Cond                    // running or writing went down
	draining drainState
	drainWhy error
	drainAt  time.Duration // the first GOAWAY was sent
	changed  func()        // Client: streams or slots changed
	freed    bool          // changed is to be called

	idleSince  time.Duration // on the sweep's clock; 0: there are streams
	blockSince time.Duration // a preface or field section is unfinished; 0: none
	frameSince time.Duration // a frame is; 0: none
	heard      time.Duration // something came
	ping       pingState
	tune       tuning
}

// drainState is how far a graceful end has come.
type drainState uint8

const (
	drainNone   drainState = iota
	drainBegun             // the first GOAWAY was sent; streams that cross it are served
	drainFinal             // the last stream is fixed
	drainRemote            // Client: the other end drains
)

// New returns the connection over wc, which it owns from now on.
func New(wc *wire.Conn, sweep *wire.Sweep, cfg *Config, role h2frame.Role) *Conn {
	c := &Conn{
		wc: wc, sweep: sweep, cfg: cfg, role: role, donec: make(chan struct{}),
		drainWhy: ErrClosed,
		streams:  map[uint32]*Stream{}, ids: h2stream.NewIDs(role), peer: h2frame.DefaultSettings(), hpack: hpackTable,
		send: h2stream.NewSendWindow(h2frame.InitialWindow), recv: h2stream.NewRecvWindow(h2frame.InitialWindow),
		tune: tuning{tuner: h2stream.NewTuner(cfg.StreamWindow, cfg.MaxWindow)},
	}
	c.quiet.L = &c.mu
	c.dec = hpack.NewDecoder(hpackTable, c.head.field)
	c.dec.SetMaxStringLength(cfg.blockBytes())
	c.head.cfg = cfg
	c.tick = wire.NewTick(c.turn)
	c.writer = c.write
	wc.SetMaxBuffer(4 * recvFrame)
	wc.SetWriteTimeout(cfg.WriteTimeout)
	now := max(sweep.NowExact(), 1)
	c.idleSince, c.heard = now, now
	c.sayHello()
	return c
}

// Wire returns the connection itself, for its addresses and counters.
func (c *Conn) Wire() *wire.Conn { return c.wc }

// Serve reads the connection until it ends, which is when all of its streams
// have. The error is never nil.
func (c *Conn) Serve() error {
	c.ServeParking(Parking{})
	return c.err
}

// ServeParking is Serve for a connection that gives its goroutine back while it is
// idle: it returns when the connection is parked, or has ended, which Ended is told.
func (c *Conn) ServeParking(p Parking) {
	c.park.Parking = p
	c.sweep.StartTick(c.tick)
	c.run(c.begin())
}

// run is the reader.
func (c *Conn) run(err error) {
	for {
		if err == errPark {
			var parked bool
			if parked, err = c.parkNow(); parked {
				return
			}
		}
		if err != nil {
			break
		}
		if err = c.readFrames(); err == nil {
			err = c.fill()
		}
	}
	c.fail(c.connError(err))
	c.finish()
	c.sweep.StopTick(c.tick)
	close(c.donec)
	if f := c.park.Ended; f != nil {
		f(c.err)
	}
}

// connError makes an error of the connection of err.
func (c *Conn) connError(err error) *Error {
	var fe *h2frame.Error
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &fe):
		return &Error{Code: fe.Code, Conn: true, Err: fe}
	}
	return &Error{Code: h2frame.NoError, Conn: true, Remote: true, Err: err}
}

// fail ends the connection and all of its streams: each learns of it, and the
// other end too where it was not its own doing.
func (c *Conn) fail(e *Error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = e
	if !e.Remote {
		c.out.append(h2frame.AppendGoAway(c.out.tail(), c.lastLocked(), e.Code, ""))
	}
	c.closing = true
	lost := make([]*Stream, 0, len(c.streams))
	for _, st := range c.streams {
		lost = append(lost, st)
		st.listed = false
		st.failLocked(e)
	}
	for _, st := range c.waiting {
		if st.id == 0 { // it waits to be opened
			lost = append(lost, st)
			st.failLocked(e)
		}
	}
	clear(c.streams)
	c.kickLocked()
	c.unparkLocked()
	c.freed = true
	c.unlock()
	for _, st := range lost {
		st.tellGone(e)
	}
}

// unlock releases mu, and tells who wants to know that a place for a stream
// became free.
func (c *Conn) unlock() {
	var changed func()
	if c.freed {
		c.freed = false
		changed = c.changed
	}
	c.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// finish waits for handlers and the writer and closes the connection.
func (c *Conn) finish() {
	c.mu.Lock()
	for c.running > 0 || c.writing {
		c.quiet.Wait()
	}
	c.dismissLocked(len(c.workers))
	quick := c.err.Remote || c.ended || c.abrupt
	c.out.free()
	c.returnWindowsLocked()
	c.freeList, c.waiting = nil, nil
	c.mu.Unlock()
	if quick {
		c.wc.Close()
		return
	}
	c.wc.ClearInterrupt()
	// The other end may still be sending: a reset for that must not destroy our
	// last frames.
	c.wc.LingerClose(256<<10, 2*time.Second)
}

// Close ends the connection at once. It may be called from any goroutine, and
// more than once.
func (c *Conn) Close(why error) {
	c.mu.Lock()
	c.abrupt = true
	c.mu.Unlock()
	c.fail(&Error{Code: h2frame.NoError, Conn: true, Err: why})
	c.wc.InterruptRead(why)
	c.wc.InterruptWrite(why)
}

// Drain ends the connection when its streams are done. It may be called from
// any goroutine, and more than once.
//
// RFC 9113, section 6.8: a first GOAWAY with the largest identifier says that
// the end is near, so that streams which are under way are not lost; a second
// one, a round trip later, says where it is.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining != drainNone || c.err != nil {
		return
	}
	if c.role == h2frame.Client {
		c.draining = drainFinal
		c.checkDrainedLocked()
		return
	}
	c.draining, c.drainAt = drainBegun, c.sweep.NowExact()
	c.out.append(h2frame.AppendGoAway(c.out.tail(), h2frame.MaxStreamID, h2frame.NoError, ""))
	c.sendPingLocked(pingDrain)
	c.kickLocked()
}

// endDrainLocked fixes the last stream that is served.
func (c *Conn) endDrainLocked() {
	if c.draining != drainBegun {
		return
	}
	c.draining = drainFinal
	last := c.lastLocked()
	c.ids.SendGoAway(last)
	c.out.append(h2frame.AppendGoAway(c.out.tail(), last, h2frame.NoError, ""))
	c.kickLocked()
	c.checkDrainedLocked()
}

// lastLocked returns the last stream of the other end that we looked at.
func (c *Conn) lastLocked() uint32 {
	if c.role == h2frame.Client {
		return 0
	}
	return c.ids.Highest()
}

// checkDrainedLocked ends a connection that drains and has nothing left.
func (c *Conn) checkDrainedLocked() {
	if c.err != nil || len(c.streams) > 0 || c.running > 0 || c.opened > 0 || (c.draining != drainFinal && c.draining != drainRemote) {
		return
	}
	c.err = &Error{Code: h2frame.NoError, Conn: true, Err: c.drainWhy}
	c.closing = true
	c.kickLocked()
	c.wc.InterruptRead(ErrClosed)
	c.unparkLocked()
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.donec }
