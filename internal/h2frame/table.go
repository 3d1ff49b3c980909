package h2frame

import "strconv"

// Type is what a frame is for.
type Type uint8

// The types.
const (
	TypeData           Type = 0x0
	TypeHeaders        Type = 0x1
	TypePriority       Type = 0x2
	TypeReset          Type = 0x3
	TypeSettings       Type = 0x4
	TypePushPromise    Type = 0x5
	TypePing           Type = 0x6
	TypeGoAway         Type = 0x7
	TypeWindowUpdate   Type = 0x8
	TypeContinuation   Type = 0x9
	TypePriorityUpdate Type = 0x10
)

// Flags are a frame's flags. Which bits mean something depends on its type.
type Flags uint8

// The flags.
const (
	FlagAck        Flags = 0x1 // SETTINGS, PING
	FlagEndStream  Flags = 0x1 // DATA, HEADERS
	FlagEndHeaders Flags = 0x4
	FlagPadded     Flags = 0x8
	FlagPriority   Flags = 0x20
)

// Has reports whether all flags of g are set.
func (f Flags) Has(g Flags) bool { return f&g == g }

// lengthRule is what a payload's length must be.
type lengthRule uint8

const (
	atLeast lengthRule = iota
	exactly
	multiple
)

// streamRule is which stream a frame may name.
type streamRule uint8

const (
	anyStream    streamRule = iota
	onStream                // not 0
	onConnection            // 0
)

// scope is what ends when a payload has another length than its type demands.
//
// RFC 9113, section 4.2: the connection, wherever the frame could have changed
// more than its stream.
type scope uint8

const (
	endsConnection scope = iota
	endsStream
)

// facts are what a frame type demands, before its payload is looked into.
type facts struct {
	name   string
	known  bool
	length lengthRule
	bytes  int
	stream streamRule
	flags  Flags // that mean something
	flow   bool  // counts against flow control
	size   scope
}

// table has one row per frame type.
//
// RFC 9113, section 6 (and its subsections, in order); RFC 9218, section 7.1:
// the last row.
var table = [...]facts{
	//                   name                    length        stream        flags                                                    flow   wrong length
	TypeData:           {"DATA", true, atLeast, 0, onStream, FlagEndStream | FlagPadded, true, endsConnection},
	TypeHeaders:        {"HEADERS", true, atLeast, 0, onStream, FlagEndStream | FlagEndHeaders | FlagPadded | FlagPriority, false, endsConnection},
	TypePriority:       {"PRIORITY", true, exactly, 5, onStream, 0, false, endsStream},
	TypeReset:          {"RST_STREAM", true, exactly, 4, onStream, 0, false, endsConnection},
	TypeSettings:       {"SETTINGS", true, multiple, 6, onConnection, FlagAck, false, endsConnection},
	TypePushPromise:    {"PUSH_PROMISE", true, atLeast, 4, onStream, FlagEndHeaders | FlagPadded, false, endsConnection},
	TypePing:           {"PING", true, exactly, 8, onConnection, FlagAck, false, endsConnection},
	TypeGoAway:         {"GOAWAY", true, atLeast, 8, onConnection, 0, false, endsConnection},
	TypeWindowUpdate:   {"WINDOW_UPDATE", true, exactly, 4, anyStream, 0, false, endsConnection},
	TypeContinuation:   {"CONTINUATION", true, atLeast, 0, onStream, FlagEndHeaders, false, endsConnection},
	TypePriorityUpdate: {"PRIORITY_UPDATE", true, atLeast, 4, onConnection, 0, false, endsConnection},
}

func (t Type) facts() *facts {
	if int(t) < len(table) && table[t].known {
		return &table[t]
	}
	return nil
}

// Known reports whether the type has a row in the table. Frames of other types
// are ignored, except between the frames of a field block.
func (t Type) Known() bool { return t.facts() != nil }

// FlowControlled reports whether the payload counts against windows: of all
// types that is DATA.
func (t Type) FlowControlled() bool {
	f := t.facts()
	return f != nil && f.flow
}

// String returns the type's name in the RFC.
func (t Type) String() string {
	if f := t.facts(); f != nil {
		return f.name
	}
	return "type 0x" + strconv.FormatUint(uint64(t), 16)
}

// Errors of frames that end the connection, made once.
var (
	errTooLarge      = connectionError(FrameSizeError, "a frame is larger than SETTINGS_MAX_FRAME_SIZE")
	errLength        = connectionError(FrameSizeError, "a frame has not the length that its type demands")
	errAckLength     = connectionError(FrameSizeError, "an acknowledgement of SETTINGS has a payload")
	errNotOnStream   = connectionError(ProtocolError, "a frame of a stream names stream 0")
	errNotConnection = connectionError(ProtocolError, "a frame of the connection names a stream")
)

// Check returns what is wrong with a frame whose payload has not been read:
// a length or a stream that its type does not allow. Unknown types pass.
//
// A frame larger than maxFrame always ends the connection: its payload is not
// worth reading. After any other error the payload is still to be skipped.
func (h Header) Check(maxFrame int) *Error {
	if h.Length > maxFrame {
		return errTooLarge
	}
	f := h.Type.facts()
	if f == nil {
		// RFC 9113, section 4.1: frames of unknown type are ignored.
		return nil
	}
	switch {
	case f.stream == onStream && h.Stream == 0:
		return errNotOnStream
	case f.stream == onConnection && h.Stream != 0:
		return errNotConnection
	case h.Type == TypeSettings && h.Flags.Has(FlagAck) && h.Length != 0:
		// RFC 9113, section 6.5: an acknowledgement is empty.
		return errAckLength
	}
	right := h.Length >= f.bytes
	switch f.length {
	case exactly:
		right = h.Length == f.bytes
	case multiple:
		right = h.Length%f.bytes == 0
	}
	switch {
	case right:
		return nil
	case f.size == endsStream:
		// RFC 9113, section 6.3: a PRIORITY of another length than 5 ends its
		// stream alone.
		return &Error{FrameSizeError, h.Stream, errLength.Detail}
	default:
		return errLength
	}
}
