package reason

// Error is an error below the framework with the reason that logs, counters
// and the retry ladder use. The framework turns it into its public error.
type Error struct {
	Reason Reason
	Err    error // the cause; may be nil
}

// Error returns the reason's name and the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Wrap returns err with a reason; an err that has one keeps its own.
func Wrap(r Reason, err error) error {
	if e, ok := err.(*Error); ok {
		return e
	}
	return &Error{Reason: r, Err: err}
}
