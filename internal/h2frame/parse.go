package h2frame

import "encoding/binary"

// Header is the header of a frame.
type Header struct {
	Length int // of the payload
	Type   Type
	Flags  Flags
	Stream uint32 // 0: the connection
}

// ParseHeader parses a frame header, the first HeaderLen bytes of b.
//
// RFC 9113, section 4.1: the reserved bit before the stream is ignored.
func ParseHeader(b []byte) Header {
	_ = b[HeaderLen-1]
	return Header{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Type:   Type(b[3]),
		Flags:  Flags(b[4]),
		Stream: binary.BigEndian.Uint32(b[5:]) & MaxStreamID,
	}
}

// PriorityParam is the deprecated priority of RFC 7540: read, checked, ignored.
type PriorityParam struct {
	Depends   uint32
	Exclusive bool
	Weight    uint8 // 0 means 1
}

// Errors of payloads that end the connection, made once.
var (
	errPadding       = connectionError(ProtocolError, "padding is longer than its frame")
	errCut           = connectionError(FrameSizeError, "a frame is too short for its flags")
	errIncrement     = connectionError(ProtocolError, "a WINDOW_UPDATE of the connection adds nothing")
	errUpdatesNobody = connectionError(ProtocolError, "a PRIORITY_UPDATE is for stream 0")
)

const (
	detailIncrement = "a WINDOW_UPDATE adds nothing"
	detailItself    = "a stream depends on itself"
)

// padding returns how many bytes of padding end the payload, and the payload
// behind the byte that says so.
func padding(h Header, p []byte) (pad int, rest []byte, err *Error) {
	if !h.Flags.Has(FlagPadded) {
		return 0, p, nil
	}
	if len(p) == 0 {
		return 0, nil, errCut
	}
	return int(p[0]), p[1:], nil
}

// unpad returns p without its padding.
//
// RFC 9113, section 6.1: padding as long as the payload or longer ends the
// connection. RFC 9113, section 6.2: padding longer than what is left beside a
// priority is an error; since a field block is lost, of the connection.
func unpad(p []byte, pad int) ([]byte, *Error) {
	if pad > len(p) {
		return nil, errPadding
	}
	return p[:len(p)-pad], nil
}

// ParseData returns the content of a DATA frame. What counts against the
// windows is all of the payload, h.Length bytes.
func ParseData(h Header, p []byte) (data []byte, err *Error) {
	pad, p, err := padding(h, p)
	if err != nil {
		return nil, err
	}
	return unpad(p, pad)
}

// ParseHeaders returns the part of a field block that a HEADERS frame carries,
// and its deprecated priority. With a stream error the fragment is good: it is
// still to be decoded, or the compression states of both ends differ from then on.
func ParseHeaders(h Header, p []byte) (fragment []byte, prio PriorityParam, hasPrio bool, err *Error) {
	pad, p, err := padding(h, p)
	if err != nil {
		return nil, prio, false, err
	}
	var itself *Error
	if hasPrio = h.Flags.Has(FlagPriority); hasPrio {
		if len(p) < 5 {
			return nil, prio, false, errCut
		}
		prio, itself = ParsePriority(h, p)
		p = p[5:]
	}
	if fragment, err = unpad(p, pad); err != nil {
		return nil, prio, hasPrio, err
	}
	return fragment, prio, hasPrio, itself
}

// ParsePriority parses the payload of a PRIORITY frame.
//
// RFC 7540, section 5.3.1: a stream that depends on itself is an error of that
// stream. RFC 9113 took the priorities away, but not the frames.
func ParsePriority(h Header, p []byte) (PriorityParam, *Error) {
	v := binary.BigEndian.Uint32(p)
	prio := PriorityParam{Depends: v & MaxStreamID, Exclusive: v > MaxStreamID, Weight: p[4]}
	if prio.Depends == h.Stream {
		return prio, &Error{ProtocolError, h.Stream, detailItself}
	}
	return prio, nil
}

// Of the parsers without an error Check has seen all that can be wrong.

// ParseReset parses the payload of a RST_STREAM frame.
func ParseReset(p []byte) Code { return Code(binary.BigEndian.Uint32(p)) }

// ParsePing parses the payload of a PING frame.
func ParsePing(p []byte) [8]byte { return [8]byte(p) }

// ParseGoAway parses the payload of a GOAWAY frame: last is the highest stream
// that the sender might have worked on.
func ParseGoAway(p []byte) (last uint32, code Code, debug []byte) {
	return binary.BigEndian.Uint32(p) & MaxStreamID, Code(binary.BigEndian.Uint32(p[4:])), p[8:]
}

// ParseWindowUpdate parses the payload of a WINDOW_UPDATE frame.
//
// RFC 9113, section 6.9: an increment of 0 is an error of what it is for.
func ParseWindowUpdate(h Header, p []byte) (inc uint32, err *Error) {
	inc = binary.BigEndian.Uint32(p) & MaxWindow
	switch {
	case inc != 0:
		return inc, nil
	case h.Stream != 0:
		return 0, &Error{ProtocolError, h.Stream, detailIncrement}
	default:
		return 0, errIncrement
	}
}

// ParsePriorityUpdate parses the payload of a PRIORITY_UPDATE frame: the stream
// that it is for, and the value of a Priority field.
//
// RFC 9218, section 7.1: an update for stream 0 ends the connection.
func ParsePriorityUpdate(p []byte) (stream uint32, field []byte, err *Error) {
	if stream = binary.BigEndian.Uint32(p) & MaxStreamID; stream == 0 {
		return 0, nil, errUpdatesNobody
	}
	return stream, p[4:], nil
}
