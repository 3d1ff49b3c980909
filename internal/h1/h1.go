// Package h1 is the HTTP/1.1 codec: bytes to heads and chunks, and back. It is
// pure: no connection, no clock, no goroutine. What is ambiguous is refused,
// never repaired, because two parties that read one message differently is how
// requests are smuggled.
package h1

import "github.com/cirqueproxy/cirque/reason"

// Limits bound what a head may make its receiver hold. All must be positive.
type Limits struct {
	HeadBytes   int // of the whole head
	Fields      int // field lines
	TargetBytes int // of a request target
}

// Error says why bytes were refused. Values are static.
type Error struct {
	Status int // for a request: what its client gets
	Reason reason.Reason
	Detail string // a sentence for people, without what the other party sent
}

// Error returns the detail.
func (e *Error) Error() string { return e.Detail }

func bad(detail string) *Error {
	return &Error{400, reason.BadRequest, detail}
}

func badFraming(detail string) *Error {
	return &Error{400, reason.BadFraming, detail}
}

// Framing is how the end of a body is known.
type Framing uint8

// The kinds of framing.
const (
	None    Framing = iota // no body
	Length                 // Content-Length
	Chunked                // Transfer-Encoding: chunked
	Close                  // the end of the connection
)

// String returns the kind's name.
func (f Framing) String() string {
	return [...]string{"none", "length", "chunked", "close"}[f]
}
