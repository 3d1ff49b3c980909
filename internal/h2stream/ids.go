package h2stream

import "github.com/cirqueproxy/cirque/internal/h2frame"

// Standing is what is known of the id of a stream that the engine has no entry
// for.
type Standing uint8

// The standings.
const (
	StandingNew     Standing = iota // HEADERS of the peer may open it
	StandingIdle                    // ours to open, and not opened
	StandingClosed                  // it has ended, or was passed over
	StandingInvalid                 // nobody can open it
)

// How many ended streams are remembered. The table of an engine holds those that
// run; these are for frames that come late. What is forgotten is judged mildly.
const (
	// keptResets bounds the ids of streams that we reset: frames on them were on
	// their way. In one round trip a peer cannot make us reset more without
	// running out of its budget.
	keptResets = 64
	// keptEnds bounds the others, which are kept only so that a peer that sends
	// on after its own end hears what it did.
	keptEnds = 32
)

// IDs is which streams of a connection were opened, and how those ended that
// ended last.
//
// RFC 9113, section 5.1.1: clients open odd ids, each higher than those before;
// even ids would come from PUSH_PROMISE, which is never allowed; 0 is the
// connection.
type IDs struct {
	role    h2frame.Role
	highest uint32 // that was opened
	goAway  uint32 // above it the peer's streams are ignored; 0: no such limit
	gone    bool

	resets  [keptResets]uint32
	ends    [keptEnds]uint32 // id, and 1<<31 for those that the peer reset
	resetAt uint8
	endAt   uint8
}

// NewIDs returns the ids of a connection of an endpoint with a role.
func NewIDs(role h2frame.Role) IDs { return IDs{role: role} }

// Standing returns what is known of an id that is not in the engine's table.
func (ids *IDs) Standing(id uint32) Standing {
	switch {
	case id%2 == 0:
		return StandingInvalid
	case id <= ids.highest:
		return StandingClosed
	case ids.role == h2frame.Server:
		return StandingNew
	default:
		return StandingIdle
	}
}

// Highest returns the highest id that was opened: the one that GOAWAY of a server
// names.
func (ids *IDs) Highest() uint32 { return ids.highest }

// Next opens the next stream of a client and returns its id; ok is false when
// there are none left.
//
// RFC 9113, section 5.1.1: ids are never used again; a connection whose ids are
// used up is replaced.
func (ids *IDs) Next() (id uint32, ok bool) {
	switch {
	case ids.highest == 0:
		ids.highest = 1
	case ids.highest >= h2frame.MaxStreamID-1:
		return 0, false
	default:
		ids.highest += 2
	}
	return ids.highest, true
}

// SendGoAway tells that a GOAWAY of ours names last. New streams above it are
// ignored: their sender knows that nothing was done.
//
// RFC 9113, section 6.8: last never grows.
func (ids *IDs) SendGoAway(last uint32) {
	if !ids.gone || last < ids.goAway {
		ids.gone, ids.goAway = true, last
	}
}

// Closed tells that a stream has left the engine's table, and how it ended.
func (ids *IDs) Closed(id uint32, end End) {
	switch end {
	case EndReset, EndInternal:
		ids.resets[ids.resetAt] = id
		ids.resetAt = (ids.resetAt + 1) % keptResets
		return
	case EndPeer:
		id |= peerReset
	}
	ids.ends[ids.endAt] = id
	ids.endAt = (ids.endAt + 1) % keptEnds
}

const peerReset = 1 << 31

// end returns how a closed stream ended; EndNone if that is forgotten or it was
// never open.
func (ids *IDs) end(id uint32) End {
	for _, e := range ids.resets {
		if e == id {
			return EndReset
		}
	}
	for _, e := range ids.ends {
		switch e {
		case id:
			return EndBoth
		case id | peerReset:
			return EndPeer
		}
	}
	return EndNone
}

// Recv returns the verdict about a frame of a type for a stream that is not in
// the engine's table. Accept is said about a HEADERS frame that opens its stream,
// which Recv notes, and about PRIORITY.
func (ids *IDs) Recv(id uint32, t h2frame.Type) Verdict {
	if t == h2frame.TypePriority {
		// RFC 9113, section 6.3: PRIORITY can come in any state.
		return Accept
	}
	standing := ids.Standing(id)
	if ids.gone && id > ids.goAway && (standing == StandingNew || standing == StandingClosed) {
		// RFC 9113, section 6.8: frames above the last stream are ignored.
		return Ignore
	}
	switch standing {
	case StandingInvalid:
		return InvalidStream
	case StandingNew:
		if t != h2frame.TypeHeaders {
			return IdleStream
		}
		ids.highest = id
		return Accept
	case StandingIdle:
		return IdleStream
	}
	if t == h2frame.TypeReset || t == h2frame.TypeWindowUpdate {
		// RFC 9113, section 5.1: they can come after the end.
		return Ignore
	}
	switch end := ids.end(id); {
	case end != EndNone:
		return end.verdict()
	case t == h2frame.TypeHeaders:
		// RFC 9113, section 5.1.1: an id that is not higher than all before.
		return OldStream
	default:
		return Ignore
	}
}
