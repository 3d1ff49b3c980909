package cirque

import (
	"errors"
	"fmt"

	"github.com/cirqueproxy/cirque/reason"
)

// Error is what went wrong with a session or with one of its attempts. It
// knows its side, how far the attempt had come, and why it ended. It is
// immutable.
type Error struct {
	Reason  Reason
	Peer    string // address of the peer, empty before one was chosen
	Attempt int    // 1 for the first; 0 outside of attempts
	Sent    bool   // a byte of the request may have reached the origin
	Reused  bool   // the connection had served an earlier request
	Hook    string // name of the filter whose hook returned the error, or panicked
	Err     error  // the cause; may be nil
	status  int
}

// Side returns the side at fault.
func (e *Error) Side() Side { return e.Reason.Side() }

// Status returns the status that the client gets for the error when no
// response has begun; 0 means that nothing can be said to it any more.
func (e *Error) Status() int {
	if e.status != 0 {
		return e.status
	}
	return e.Reason.Status()
}

// Error says side, reason, peer, attempt and cause.
func (e *Error) Error() string {
	s := e.Side().String() + ": " + e.Reason.String()
	if e.Peer != "" {
		s += fmt.Sprintf(" (peer %s, attempt %d)", e.Peer, e.Attempt)
	}
	if e.Hook != "" {
		s += fmt.Sprintf(" (filter %s)", e.Hook)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Reject returns an error with which a hook refuses a request: the client gets
// the status, the log the cause. Status must be between 400 and 599, any other
// is read as 500. Err may be nil.
func Reject(status int, err error) error {
	r := reason.Refused
	if status < 400 || status > 599 {
		status, r = 500, reason.HookError
	}
	return &Error{Reason: r, Err: err, status: status}
}

// errResponded is what Session.Respond returns: it ends the phase.
var errResponded = errors.New("the hook has responded")

// toError makes the public error of err, which a hook or a lower floor
// returned. Fallback is the reason of an error that brings none.
func toError(err error, fallback Reason) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var re *reason.Error
	if errors.As(err, &re) {
		return &Error{Reason: re.Reason, Err: re.Err}
	}
	return &Error{Reason: fallback, Err: err}
}
