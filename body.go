package cirque

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// requestBody is the body of a session's request on its way from the client,
// through the RequestBody hooks, to the origin. What the hooks made of it is
// held, up to a bound, so that another attempt can send it again.
//
// It belongs to the session's goroutine until a pump is started, then to the
// pump until stopPump returns.
type requestBody struct {
	data     []byte // what passed the hooks, from the beginning
	mem      *buf.Buffer
	whole    []byte // what BufferRequest read
	max      int    // data beyond this is not held
	buffered bool   // whole is the body
	last     bool   // the last piece passed the hooks
	lost     bool   // data is no longer the beginning of the body

	trailer   message.Header // behind the body, as the hooks left it
	continued bool           // we sent the 100 that the client waited for
	failed    error          // what BufferRequest ended with: a part of the body is gone
	pumpErr   error
	donec     chan struct{} // closed when the pump has ended

	read    atomic.Int64
	running atomic.Bool // a pump is running
}

// errPump interrupts the pump of an attempt that is over.
var errPump = errors.New("the attempt is over")

// start begins the body of a request.
func (b *requestBody) start(s *Session) {
	b.max = s.proxy.Retry.replayBytes()
	b.lost = false
	b.last = s.req.Length() == 0 && len(s.plan.requestBody) == 0
}

// release gives the memory back.
func (b *requestBody) release() {
	if b.mem != nil {
		b.mem.Free()
		b.mem = nil
	}
	b.data, b.whole, b.buffered, b.continued, b.pumpErr, b.failed = nil, nil, false, false, nil, nil
	b.read.Store(0)
}

// held returns what an attempt sends first.
func (b *requestBody) held() []byte { return b.data }

// replayable reports whether another attempt can send all that was read: after
// one that sent something only what is within the bound.
func (b *requestBody) replayable(sent bool) bool {
	return !b.lost && (!sent || len(b.data) <= b.max)
}

// gather takes what there is of the body without waiting, and reports whether
// that is all of it.
func (b *requestBody) gather(s *Session) (whole bool, err error) {
	for !b.last && !b.lost && len(b.data) < buf.LargeSize && (b.buffered || s.down.BodyReady()) {
		piece, err := b.next(s)
		if err != nil {
			return false, err
		}
		b.keep(piece)
	}
	if b.last && s.req.Trailer.Len() > 0 {
		s.upReq.Trailer.CopyFrom(&s.req.Trailer)
	}
	return b.last, nil
}

// next reads a piece and passes it through the hooks.
func (b *requestBody) next(s *Session) (piece []byte, err error) {
	var last bool
	switch {
	case b.failed != nil:
		return nil, b.failed
	case b.buffered:
		piece, last = b.whole, true
	default:
		if piece, last, err = s.down.ReadBody(); err != nil {
			return nil, err
		}
		n := b.read.Add(int64(len(piece)))
		if m := s.proxy.MaxRequestBody; m > 0 && n > m {
			return nil, &Error{Reason: reason.BodyTooLarge}
		}
	}
	if len(s.plan.requestBody) > 0 {
		if piece, err = b.filter(s, piece, last); err != nil {
			return nil, err
		}
	} else if last && !s.duplex {
		s.takeTrailer()
	}
	b.last = last
	return piece, nil
}

// filter passes a piece through the hooks.
func (b *requestBody) filter(s *Session, piece []byte, last bool) ([]byte, error) {
	if s.shared {
		s.turn.Lock()
		defer s.turn.Unlock()
	}
	if last {
		s.takeTrailer()
	}
	s.upward = true
	defer func() { s.upward = false }()
	piece, err := s.runBody(s.plan.requestBody, piece, last)
	if last && err == nil {
		b.trailer.CopyFrom(&s.req.Trailer)
	}
	return piece, err
}

// takeTrailer makes the fields that came behind the body part of the request.
// Until then they belong to who reads it: a hook may look at the request.
func (s *Session) takeTrailer() {
	if t := s.down.Trailer(); t.Len() > 0 {
		s.req.Trailer.CopyFrom(t)
	}
}

// hold keeps a piece that is on its way for another attempt, unless that would
// be more than the bound.
func (b *requestBody) hold(piece []byte) {
	switch {
	case b.lost:
	case len(b.data)+len(piece) > b.max:
		b.lose()
	default:
		b.keep(piece)
	}
}

// keep adds a piece to data.
func (b *requestBody) keep(piece []byte) {
	if len(piece) == 0 {
		return
	}
	need := len(b.data) + len(piece)
	if b.mem == nil && need <= buf.LargeSize {
		b.mem = buf.Get(class(need))
		b.data = b.mem.B[:0]
	} else if b.mem != nil && need > len(b.mem.B) && need <= buf.LargeSize {
		large := buf.Get(buf.Large)
		b.data = append(large.B[:0], b.data...)
		b.mem.Free()
		b.mem = large
	}
	b.data = append(b.data, piece...)
}

func class(n int) buf.Class {
	if n <= buf.SmallSize {
		return buf.Small
	}
	return buf.Large
}

// lose gives up on another attempt.
func (b *requestBody) lose() {
	b.lost = true
	b.data = nil
	if b.mem != nil {
		b.mem.Free()
		b.mem = nil
	}
}

// buffer reads the whole body into memory.
func (b *requestBody) buffer(s *Session, max int64) ([]byte, error) {
	if b.buffered || b.failed != nil {
		return b.whole, b.failed
	}
	if m := s.proxy.MaxRequestBody; m > 0 && m < max {
		max = m
	}
	whole, err := b.readAll(s, max)
	if err != nil {
		// A hook that goes on all the same must not have a part of the body sent
		// for the whole.
		b.failed = err
		return nil, err
	}
	b.whole, b.buffered = whole, true
	return whole, nil
}

func (b *requestBody) readAll(s *Session, max int64) (whole []byte, err error) {
	if n := s.req.Length(); n > max {
		return nil, &Error{Reason: reason.BodyTooLarge}
	}
	if !s.down.BodyReady() {
		b.continued = true
		if err := s.down.Continue(); err != nil {
			return nil, err
		}
	}
	for {
		piece, last, err := s.down.ReadBody()
		if err != nil {
			return nil, err
		}
		b.read.Add(int64(len(piece)))
		if int64(len(whole)+len(piece)) > max {
			return nil, &Error{Reason: reason.BodyTooLarge}
		}
		whole = append(whole, piece...)
		if last {
			s.takeTrailer()
			return whole, nil
		}
	}
}

// flowing reports whether the request still moves.
func (b *requestBody) flowing() bool { return b.running.Load() }

// startPump moves the rest of the body in a second goroutine, while the
// session's own reads the response.
func (s *Session) startPump() {
	if len(s.body.data) > s.body.max {
		s.body.lose()
	}
	s.duplex = true
	s.body.pumpErr = nil
	s.body.running.Store(true)
	s.body.donec = make(chan struct{})
	s.share()
	go s.pump(s.up, s.body.donec)
}

// pump sends pieces until the body ends or something fails. What stops the
// client's side, or an origin that takes nothing more, ends the wait for the
// response; any other failed write does not, since the origin may have answered
// before it closed.
func (s *Session) pump(up canceler, donec chan struct{}) {
	defer close(donec)
	b := &s.body
	err := s.pumpGuard()
	b.pumpErr = err
	b.running.Store(false)
	var re *reason.Error
	wrote := errors.As(err, &re) && re.Reason == reason.UpstreamReset
	if err != nil && !wrote && !errors.Is(err, errPump) {
		up.Cancel(err)
	}
}

type canceler interface{ Cancel(cause error) }

func (s *Session) pumpAll() error {
	b := &s.body
	for !b.last {
		if moved, err := s.spliceUp(); err != nil {
			return err
		} else if moved {
			continue
		}
		piece, err := b.next(s)
		if err != nil {
			return err
		}
		b.hold(piece)
		var trailer *message.Header
		if b.last {
			trailer = s.down.Trailer()
			if len(s.plan.requestBody) > 0 {
				trailer = &b.trailer // hooks have looked at it
			}
		}
		if err := s.up.SendBody(piece, b.last, trailer); err != nil {
			return err
		}
	}
	return nil
}

// spliceUp is spliceDown for the request: no hook looks at it, and no other
// attempt can send it again.
func (s *Session) spliceUp() (bool, error) {
	if len(s.plan.requestBody) > 0 || s.body.buffered || s.proxy.MaxRequestBody > 0 && s.req.Length() < 0 || s.down.BodyReady() {
		return false, nil
	}
	src, n := s.down.BeginRawIn()
	if src == nil {
		return false, nil
	}
	dst, first, err := s.up.BeginRawOut(n)
	if dst == nil || err != nil {
		return false, err
	}
	s.body.lose()
	taken, moved, err := wire.Splice(dst, src, first, n)
	s.down.EndRawIn(taken)
	s.up.EndRawOut(moved)
	s.body.read.Add(taken)
	var se *wire.SpliceError
	switch {
	case err == nil:
		return true, nil
	case !errors.As(err, &se):
		return true, reason.Wrap(reason.UpstreamReset, err)
	case se.Read:
		return true, s.conn.h1.BodyError(se.Err)
	default:
		return true, s.h1up.WriteError(se.Err)
	}
}

// lastWrite is how long a pump that has read the whole body may take for its
// last write when the response is complete: the origin has answered, so it has
// most likely read everything.
const lastWrite = 100 * time.Millisecond

// headPause is how long the head of a response waits for a pump that may just
// have finished.
const headPause = 2 * time.Millisecond

// stopPump ends the pump and returns what it failed with.
func (s *Session) stopPump() error {
	b := &s.body
	s.unshare()
	select {
	case <-b.donec:
	default:
		s.interruptPump()
	}
	s.duplex, s.shared = false, false
	if b.last && len(s.plan.requestBody) == 0 {
		s.takeTrailer()
	}
	return b.pumpErr
}

func (s *Session) interruptPump() {
	if s.down.BodyEnded() {
		t := time.NewTimer(lastWrite)
		defer t.Stop()
		select {
		case <-s.body.donec:
			return
		case <-t.C:
		}
	}
	s.down.InterruptBody(errPump)
	s.up.Cancel(errPump)
	<-s.body.donec
	s.down.ResumeBody()
}

// pumpFailed says what an attempt's error is when its pump failed too: a
// response that is complete stands, whatever became of the request.
func (s *Session) pumpFailed(perr, err error) error {
	switch {
	case err == nil || errors.Is(perr, errPump):
		return err
	default:
		return perr
	}
}
