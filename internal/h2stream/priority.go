package h2stream

// Priority is how a stream wants to be served among others.
//
// RFC 9218, section 4: an urgency from 0, the most urgent, to 7, and whether a
// part of a response is of use before the whole is there.
type Priority struct {
	Urgency     uint8
	Incremental bool
}

// DefaultPriority returns what a Priority field means that leaves all out.
//
// RFC 9218, section 4.1: urgency 3; section 4.2: not incremental.
func DefaultPriority() Priority { return Priority{Urgency: 3} }

// UnsaidPriority returns the priority of a stream whose peer sends no priorities
// at all: streams of one urgency share, since nothing says which of them can
// wait.
//
// RFC 9218, section 10: how streams are served is the server's choice.
func UnsaidPriority() Priority { return Priority{Urgency: 3, Incremental: true} }

// Rank is where a stream stands among those that have something to send. Turn is
// a counter of the engine: when the stream was served last.
type Rank struct {
	Priority
	Stream uint32
	Turn   uint64
}

// Before reports whether a is to be served before b.
//
// RFC 9218, section 10: the more urgent first; of one urgency those that are of
// no use in part one after the other, in the order of their requests; then the
// others in turns.
func (a Rank) Before(b Rank) bool {
	switch {
	case a.Urgency != b.Urgency:
		return a.Urgency < b.Urgency
	case a.Incremental != b.Incremental:
		return b.Incremental
	case a.Incremental && a.Turn != b.Turn:
		return a.Turn < b.Turn
	default:
		return a.Stream < b.Stream
	}
}
