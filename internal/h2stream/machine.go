package h2stream

import "github.com/cirqueproxy/cirque/internal/h2frame"

// State is a stream's state in the words of the RFC. Push is never enabled, so
// that no stream is ever reserved.
//
// RFC 9113, section 5.1, without its reserved states (H is HEADERS, ES is the
// flag END_STREAM, R is RST_STREAM, from either end):
//
//	           idle
//	             | send H, recv H
//	             v
//	           open ------------------.
//	    recv ES /  \ send ES          |
//	           v    v                 |
//	  half-closed  half-closed        | R
//	     (remote)  (local)            |
//	           |    |                 |
//	send ES, R |    | recv ES, R      |
//	           v    v                 |
//	           closed <---------------'
type State uint8

// The states.
const (
	Idle State = iota
	Open
	HalfClosedLocal  // we have sent END_STREAM
	HalfClosedRemote // the peer has sent END_STREAM
	Closed
)

// String returns the state's name in the RFC.
func (s State) String() string {
	return [...]string{"idle", "open", "half-closed (local)", "half-closed (remote)", "closed"}[s]
}

// half is one direction of a stream. Both directions go through the same states,
// each on its own.
//
// RFC 9113, section 8.1: interim heads (of responses), one head, DATA, trailers
// with END_STREAM; or any of head and DATA with END_STREAM.
type half uint8

const (
	halfIdle    half = iota // nothing was sent
	halfInterim             // interim heads only
	halfBody                // the head was sent
	halfEnded               // END_STREAM
)

// End is how a stream ended.
type End uint8

// The ends.
const (
	EndNone     End = iota // it did not
	EndBoth                // END_STREAM in both directions
	EndReset               // by our RST_STREAM; frames of the peer can still be on their way
	EndPeer                // by the peer's RST_STREAM
	EndInternal            // by the end of the connection
)

// Machine is the state of one stream: of both directions, and of resets. Closed
// is terminal. The zero value is an idle stream of a client.
type Machine struct {
	role       h2frame.Role
	recv, send half
	end        End
	tunnel     bool
}

// NewMachine returns an idle stream of an endpoint with a role.
func NewMachine(role h2frame.Role) Machine { return Machine{role: role} }

// State returns the state.
func (m *Machine) State() State {
	switch {
	case m.end != EndNone:
		return Closed
	case m.send == halfEnded:
		return HalfClosedLocal
	case m.recv == halfEnded:
		return HalfClosedRemote
	case m.send == halfIdle && m.recv == halfIdle:
		return Idle
	default:
		return Open
	}
}

// End returns how the stream ended.
func (m *Machine) End() End { return m.end }

// HeadReceived reports whether the peer's final head came, so that another
// HEADERS frame is trailers.
func (m *Machine) HeadReceived() bool { return m.recv >= halfBody }

// Tunnel tells that the stream carries a tunnel now: CONNECT was answered with
// success.
//
// RFC 9113, section 8.5: from then on there is DATA only, in both directions.
func (m *Machine) Tunnel() { m.tunnel = true }

// closed closes the stream when both directions have ended.
func (m *Machine) closed() {
	if m.recv == halfEnded && m.send == halfEnded && m.end == EndNone {
		m.end = EndBoth
	}
}

// late returns the verdict about a frame, other than those that are allowed in
// every state, on a stream whose direction from the peer has ended; Accept if it
// has not.
func (m *Machine) late() Verdict {
	if m.end != EndNone {
		return m.end.verdict()
	}
	if m.recv == halfEnded {
		// RFC 9113, section 5.1, half-closed (remote): a stream error.
		return HalfClosed
	}
	return Accept
}

// verdict returns what HEADERS and DATA on a stream earn that ended so.
func (e End) verdict() Verdict {
	switch e {
	case EndBoth:
		// RFC 9113, section 5.1, closed: may be treated as a connection error.
		return EndedStream
	case EndPeer:
		return ResetStream
	default:
		// RFC 9113, section 5.1, closed: after our RST_STREAM any frame can come
		// and is discarded.
		return Ignore
	}
}

// RecvHeaders takes a field section of the peer: a head, interim or not, or
// trailers (interim then says nothing). end is END_STREAM. A section whose fields
// are malformed is to be taken too, before its stream is reset.
func (m *Machine) RecvHeaders(interim, end bool) Verdict {
	if v := m.late(); v != Accept {
		return v
	}
	switch {
	case m.recv == halfBody && m.tunnel:
		return HeadersInTunnel
	case m.recv == halfBody && !end:
		// RFC 9113, section 8.1: a second final head, or trailers without
		// END_STREAM, are malformed.
		return TrailersUnended
	case m.recv != halfBody && m.role == h2frame.Client && m.send == halfIdle:
		// RFC 9113, section 5.1.1: streams of servers come from PUSH_PROMISE, which
		// is never allowed.
		return IdleStream
	case m.recv != halfBody && interim && m.role == h2frame.Server:
		m.recv = halfInterim // malformed or not, the stream is open and can be reset
		return InterimRequest
	case m.recv != halfBody && interim && end:
		// RFC 9113, section 8.1: malformed.
		return InterimEnds
	case m.recv != halfBody && interim:
		m.recv = halfInterim
		return Accept
	}
	m.recv = halfBody
	if end {
		m.recv = halfEnded
		m.closed()
	}
	return Accept
}

// RecvData takes a DATA frame of the peer.
func (m *Machine) RecvData(end bool) Verdict {
	if v := m.late(); v != Accept {
		return v
	}
	switch {
	case m.State() == Idle:
		// RFC 9113, section 5.1, idle: all but HEADERS and PRIORITY end the
		// connection.
		return IdleStream
	case m.recv != halfBody:
		// RFC 9113, section 8.1: the head comes first.
		return DataBeforeHead
	}
	if end {
		m.recv = halfEnded
		m.closed()
	}
	return Accept
}

// RecvReset takes a RST_STREAM frame of the peer.
//
// RFC 9113, section 6.4: on an idle stream it ends the connection. Section 5.1:
// on a closed one it was on its way.
func (m *Machine) RecvReset() Verdict {
	switch m.State() {
	case Idle:
		return IdleStream
	case Closed:
		return Ignore
	}
	m.end = EndPeer
	return Accept
}

// RecvWindowUpdate takes a WINDOW_UPDATE frame of the peer for this stream.
//
// RFC 9113, section 5.1: on an idle stream it ends the connection, on a closed one
// it was on its way. Section 6.9: half-closed is no reason to refuse it.
func (m *Machine) RecvWindowUpdate() Verdict {
	switch {
	case m.State() == Idle:
		return IdleStream
	case m.end != EndNone || m.send == halfEnded:
		return Ignore
	}
	return Accept
}

// SendHeaders is asked before a head of ours, interim or not, or trailers go out
// (interim then says nothing). Ignore: the stream has ended, do not send.
func (m *Machine) SendHeaders(interim, end bool) Verdict {
	switch {
	case m.end != EndNone:
		return Ignore
	case m.send == halfEnded, m.send == halfBody && (m.tunnel || !end):
		return Misuse
	case m.send != halfBody && m.role == h2frame.Server && m.recv == halfIdle:
		return Misuse
	case m.send != halfBody && interim && (end || m.role == h2frame.Client):
		return Misuse
	case m.send != halfBody && interim:
		m.send = halfInterim
		return Accept
	}
	m.send = halfBody
	if end {
		m.send = halfEnded
		m.closed()
	}
	return Accept
}

// SendData is asked before DATA of ours goes out. Ignore: the stream has ended,
// do not send.
func (m *Machine) SendData(end bool) Verdict {
	switch {
	case m.end != EndNone:
		return Ignore
	case m.send != halfBody:
		return Misuse
	}
	if end {
		m.send = halfEnded
		m.closed()
	}
	return Accept
}

// SendReset is asked before a RST_STREAM of ours goes out. Ignore: there is
// nothing to reset, do not send.
//
// RFC 9113, section 6.4: it must not be sent for an idle stream. Section 5.1: on a
// closed stream nothing is sent.
func (m *Machine) SendReset() Verdict {
	if s := m.State(); s == Idle || s == Closed {
		return Ignore
	}
	m.end = EndReset
	return Accept
}

// Abandon closes the stream because its connection has ended.
func (m *Machine) Abandon() {
	if m.end == EndNone {
		m.end = EndInternal
	}
}

// unknownLength is the length of a content that nobody announced.
const unknownLength = -1

// Content compares the DATA of one direction with its Content-Length. The zero
// value is for a content that must be empty.
type Content struct {
	left int64
}

// NewContent returns the machine for a content of length bytes, or of any length
// if that is negative.
func NewContent(length int64) Content { return Content{max(length, unknownLength)} }

// Whole reports whether all has come that the length told.
func (c *Content) Whole() bool { return c.left == 0 }

// Recv takes n bytes of DATA, without padding; end says that they are the last.
//
// RFC 9113, section 8.1.1: a message whose DATA does not add up to its
// Content-Length is malformed.
func (c *Content) Recv(n int, end bool) Verdict {
	if c.left == unknownLength {
		return Accept
	}
	if int64(n) > c.left || end && int64(n) < c.left {
		return LengthDiffers
	}
	c.left -= int64(n)
	return Accept
}
