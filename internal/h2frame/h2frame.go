// Package h2frame is the HTTP/2 frame layer: bytes to frames and back. It is
// pure: no connection, no clock, no goroutine. It knows the layout of each frame
// and which layouts are wrong, and nothing of the streams that frames belong to:
// what may come when is decided in internal/h2stream.
//
// Parsers take payloads of frames that passed Header.Check, and borrow: what they
// return points into the payload.
package h2frame

import "strconv"

// Preface is what a client sends first.
//
// RFC 9113, section 3.4: it begins the connection, before the client's SETTINGS.
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Bounds of the protocol.
const (
	HeaderLen     = 9       // bytes of a frame header
	MinMaxFrame   = 1 << 14 // what each endpoint takes at least, and until it says more
	MaxMaxFrame   = 1<<24 - 1
	MaxWindow     = 1<<31 - 1 // of flow control
	InitialWindow = 1<<16 - 1 // of flow control, until SETTINGS say another
	MaxStreamID   = 1<<31 - 1
)

// Role is which end of a connection an endpoint is.
type Role uint8

// The roles. The server is the end that accepted the connection.
const (
	Client Role = iota
	Server
)

// String returns "client" or "server".
func (r Role) String() string {
	if r == Server {
		return "server"
	}
	return "client"
}

// Code is why a stream or a connection ended.
//
// RFC 9113, section 7: unknown codes mean no more than INTERNAL_ERROR.
type Code uint32

// The codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

var codeNames = [...]string{
	NoError:            "NO_ERROR",
	ProtocolError:      "PROTOCOL_ERROR",
	InternalError:      "INTERNAL_ERROR",
	FlowControlError:   "FLOW_CONTROL_ERROR",
	SettingsTimeout:    "SETTINGS_TIMEOUT",
	StreamClosed:       "STREAM_CLOSED",
	FrameSizeError:     "FRAME_SIZE_ERROR",
	RefusedStream:      "REFUSED_STREAM",
	Cancel:             "CANCEL",
	CompressionError:   "COMPRESSION_ERROR",
	ConnectError:       "CONNECT_ERROR",
	EnhanceYourCalm:    "ENHANCE_YOUR_CALM",
	InadequateSecurity: "INADEQUATE_SECURITY",
	HTTP11Required:     "HTTP_1_1_REQUIRED",
}

// String returns the code's name in the RFC.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code 0x" + strconv.FormatUint(uint64(c), 16)
}

// Error is a rule that the other endpoint broke.
//
// RFC 9113, section 5.4: it ends one stream, with RST_STREAM, or the connection,
// with GOAWAY.
//
// Functions return *Error, not error: give it to an error variable only after a
// check for nil.
type Error struct {
	Code   Code
	Stream uint32 // 0: the connection ends
	Detail string // a sentence for people, without what the other party sent
}

// Error returns the code and the detail.
func (e *Error) Error() string {
	where := "connection"
	if e.Stream != 0 {
		where = "stream " + strconv.FormatUint(uint64(e.Stream), 10)
	}
	return where + ": " + e.Code.String() + ": " + e.Detail
}

// Errors that end the connection need no stream, so that they are made once.
func connectionError(code Code, detail string) *Error { return &Error{Code: code, Detail: detail} }
