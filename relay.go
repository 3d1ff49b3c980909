package cirque

import (
	"errors"

	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// relay moves the body of the response to the client.
func (s *Session) relay() error {
	hooked := len(s.plan.upstreamResponseBody)+len(s.plan.responseBody) > 0
	for {
		if !s.up.BodyReady() {
			if !hooked {
				if moved, err := s.spliceDown(); err != nil {
					return err
				} else if moved {
					continue
				}
			}
			// No flush delay: what there is goes on before we wait for more.
			if err := s.flush(); err != nil {
				return err
			}
			s.sizePieces()
		}
		b, last, err := s.readPiece()
		if err != nil {
			return err
		}
		s.attempt.Received += int64(len(b))
		if hooked {
			if b, err = s.responsePiece(b, last); err != nil {
				return err
			}
		}
		if s.noBody() {
			b = nil // hooks may have made some
		}
		if last {
			if err := s.runTrailer(); err != nil {
				return err
			}
		}
		s.sentBody += int64(len(b))
		if last {
			return s.writeLast(b)
		}
		if err := s.writeLater(b); err != nil {
			return err
		}
	}
}

// sizePieces has the origin's connection read as much at once as the client can take:
// many streams that wait for credit hold little, and one that has it moves much.
func (s *Session) sizePieces() {
	if s.wire != nil {
		s.wire.SetPiece(s.down.Room())
	}
}

// readPiece reads the next piece. As in readHead, an origin that is silent while the
// request still flows may be waiting for it, as in a conversation of gRPC.
func (s *Session) readPiece() (b []byte, last bool, err error) {
	for {
		flowing := s.duplex && s.body.flowing()
		b, last, err = s.readUpBody()
		if err == nil || !flowing || !hasReason(err, reason.UpstreamReadTimeout) {
			return b, last, err
		}
	}
}

func (s *Session) responsePiece(b []byte, last bool) ([]byte, error) {
	b, err := s.runBody(s.plan.upstreamResponseBody, b, last)
	if err == nil {
		b, err = s.runBody(s.plan.responseBody, b, last)
	}
	return b, err
}

// spliceDown lets the kernel move a large piece of body from the origin's
// connection to the client's, where both carry it unframed, and reports whether
// it moved anything.
func (s *Session) spliceDown() (bool, error) {
	src, n := s.up.BeginRawIn()
	if src == nil {
		return false, nil
	}
	dst, first, err := s.down.BeginRawOut(n)
	if dst == nil || err != nil {
		return false, err
	}
	taken, moved, err := s.splice(dst, src, first, n)
	s.up.EndRawIn(taken)
	s.down.EndRawOut(moved)
	s.attempt.Received += taken
	s.sentBody += moved
	if err != nil {
		return true, s.spliceError(err)
	}
	return true, nil
}

// spliceError gives the failure of a splice the reason of the side it is on.
func (s *Session) spliceError(err error) error {
	var se *wire.SpliceError
	if !errors.As(err, &se) {
		return reason.Wrap(reason.UpstreamReset, err)
	}
	if se.Read {
		return s.h1up.BodyError(se.Err)
	}
	if errors.Is(se.Err, wire.ErrTimeout) {
		return &reason.Error{Reason: reason.ClientWriteStop, Err: se.Err}
	}
	return reason.Wrap(reason.ClientGone, se.Err)
}
