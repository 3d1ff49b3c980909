package cirque

import (
	"net/http"
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// This file is the session's turn.
//
// While a request body is moved beside the response two goroutines run a session,
// and RequestBody hooks run in the second. What they may see and change is the
// whole session, so one lock is around all of it: the session's own goroutine
// holds the turn always but while it waits for input or output, the pump takes it
// for its hooks. Nothing of the session may then be lent to a wait: heads are read
// into another response and become the session's when the turn is back.
//
// Where no RequestBody hook exists, or the body was whole when the head went out,
// there is nothing to share, and the turn costs a look at a bool.

// share begins to share the session with a pump that has hooks to run.
func (s *Session) share() {
	if s.shared = len(s.plan.requestBody) > 0; s.shared {
		s.turn.Lock()
	}
}

// unshare gives the turn to a pump that is about to end. When that has ended
// everything is the session's goroutine's alone again.
func (s *Session) unshare() {
	if s.shared {
		s.turn.Unlock()
	}
}

// The methods below are calls of the exchanges that wait, and let the pump's hooks
// run meanwhile.

// readUpHead reads the next head into s.resp. A hook that has responded while we
// waited wins over what came.
func (s *Session) readUpHead() error {
	if !s.shared {
		err := s.up.ReadHead(&s.resp)
		s.foreign = true
		return err
	}
	if s.incoming == nil {
		s.incoming = &message.Response{}
	}
	err := s.waitUpHead()
	switch {
	case s.responded:
		return errResponded
	case err != nil:
		return err
	}
	s.resp.CopyFrom(s.incoming)
	s.foreign = true
	return nil
}

func (s *Session) waitUpHead() error {
	s.turn.Unlock()
	defer s.turn.Lock()
	return s.up.ReadHead(s.incoming)
}

// readUpBody reads a piece of the response body; with last the trailer of s.resp
// is filled.
func (s *Session) readUpBody() (b []byte, last bool, err error) {
	if !s.shared {
		return s.up.ReadBody()
	}
	b, last, err = s.waitUpBody()
	if last && err == nil {
		s.resp.Trailer.CopyFrom(&s.incoming.Trailer)
	}
	return b, last, err
}

func (s *Session) waitUpBody() ([]byte, bool, error) {
	s.turn.Unlock()
	defer s.turn.Lock()
	return s.up.ReadBody()
}

// writeInterim sends the 1xx in s.resp.
func (s *Session) writeInterim() error {
	if !s.shared {
		return s.down.WriteInterim(&s.resp)
	}
	s.incoming.CopyFrom(&s.resp)
	s.turn.Unlock()
	defer s.turn.Lock()
	return s.down.WriteInterim(s.incoming)
}

// writeHead hands the final head in s.resp to the client's side.
func (s *Session) writeHead() error {
	if !s.shared {
		return s.down.WriteHead(&s.resp)
	}
	s.incoming.CopyFrom(&s.resp)
	s.turn.Unlock()
	defer s.turn.Lock()
	return s.down.WriteHead(s.incoming)
}

// writeLater is Down.WriteLater.
func (s *Session) writeLater(b []byte) error {
	if s.shared {
		s.turn.Unlock()
		defer s.turn.Lock()
	}
	return s.down.WriteLater(b)
}

// writeLast ends the body with b and the trailer of s.resp.
func (s *Session) writeLast(b []byte) error {
	if !s.shared {
		return s.down.WriteBody(b, true, &s.resp.Trailer)
	}
	s.incoming.Trailer.CopyFrom(&s.resp.Trailer)
	s.turn.Unlock()
	defer s.turn.Lock()
	return s.down.WriteBody(b, true, &s.incoming.Trailer)
}

// flush is Down.Flush.
func (s *Session) flush() error {
	if s.shared {
		s.turn.Unlock()
		defer s.turn.Lock()
	}
	return s.down.Flush()
}

// splice is wire.Splice.
func (s *Session) splice(dst, src *wire.Conn, first []byte, n int64) (taken, moved int64, err error) {
	if s.shared {
		s.turn.Unlock()
		defer s.turn.Lock()
	}
	return wire.Splice(dst, src, first, n)
}

// awaitPump lets a pump end that has moved everything and is about to say so:
// an origin that answers at once would cost the client its connection.
func (s *Session) awaitPump() {
	if s.shared {
		s.turn.Unlock()
		defer s.turn.Lock()
	}
	t := time.NewTimer(headPause)
	defer t.Stop()
	select {
	case <-s.body.donec:
	case <-t.C:
	}
}

// mayAnswer reports whether a RequestBody hook can respond: until the origin's
// final head has come, or another response was made.
func (s *Session) mayAnswer() bool {
	return s.phase == phaseRequest && !s.responded && !s.answering
}

// pumpGuard is guard for the pump.
func (s *Session) pumpGuard() (err error) {
	defer func() {
		v := recover()
		switch {
		case v == nil:
			return
		case s.shared:
			s.turn.Lock()
			defer s.turn.Unlock()
		}
		if v == http.ErrAbortHandler {
			// The session's goroutine cuts the response when it learns of the error.
			s.keepOut, err = true, aborted()
			return
		}
		err = s.panicked(v)
	}()
	return s.pumpAll()
}
