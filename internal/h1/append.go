package h1

import (
	"strconv"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// OutFraming is how a head that is written says where its body ends, and what
// becomes of the connection.
type OutFraming struct {
	Kind       Framing
	Length     int64  // for Length; with NoBody the length to tell, -1: none
	Connection string // value of the Connection field, "" for no field
	NoBody     bool   // a response that has no body whatever it says
}

var (
	errHookField  = &Error{500, reason.BadHookField, "a field that was set is not valid"}
	errHookTarget = &Error{500, reason.BadHookField, "the method or target that was set is not valid"}
	errHookStatus = &Error{500, reason.BadHookField, "the status that was set is not between 100 and 999"}
)

// AppendRequestHead appends the head of req. Fields that frame the message or
// belong to one connection are written as f says, whatever the Header holds.
// The error is an *Error when method, target or a field must not be sent; dst
// is returned as it was.
func AppendRequestHead(dst []byte, req *message.Request, f OutFraming) ([]byte, error) {
	if req.InvalidHead() != "" {
		return dst, errHookTarget
	}
	b := append(dst, req.Method()...)
	b = append(b, ' ')
	b = append(b, req.TargetView()...)
	b = append(b, " HTTP/1.1\r\n"...)
	b, err := appendFields(b, &req.Header, f, f.Kind == Length)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// AppendResponseHead appends the head of resp, like AppendRequestHead.
func AppendResponseHead(dst []byte, resp *message.Response, f OutFraming) ([]byte, error) {
	if resp.Status < 100 || resp.Status > 999 {
		return dst, errHookStatus
	}
	b := append(dst, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(resp.Status), 10)
	b = append(b, ' ')
	b = resp.AppendReason(b)
	b = append(b, "\r\n"...)
	// RFC 9110, section 8.6: no Content-Length in 1xx and 204; RFC 9112, section
	// 6.1: no Transfer-Encoding either.
	told := f.Kind == Length
	if f.NoBody {
		told = f.Length >= 0 && resp.Status >= 200 && resp.Status != 204
	}
	b, err := appendFields(b, &resp.Header, f, told)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// appendFields appends the fields, the framing and the empty line. A
// Content-Length that says the right thing keeps its place.
func appendFields(b []byte, h *message.Header, f OutFraming, told bool) ([]byte, error) {
	if _, bad := h.Invalid(); bad {
		return b, errHookField
	}
	for i := 0; i < h.Len(); i++ {
		if run, next := h.Run(i, managed); next > i {
			b = append(b, run...)
			if i = next; i == h.Len() {
				break
			}
		}
		name, value := h.Field(i)
		switch h.FieldID(i) {
		case message.IDConnection, message.IDKeepAlive, message.IDProxyConnection, message.IDTE, message.IDTransferEncoding:
			continue
		case message.IDUpgrade:
			if f.Connection != "upgrade" {
				continue
			}
		case message.IDContentLength:
			if !told || ascii.ParseLength(value) != f.Length {
				continue
			}
			told = false
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	if told {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, f.Length, 10)
		b = append(b, "\r\n"...)
	}
	if f.Kind == Chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if f.Connection != "" {
		b = append(b, "Connection: "...)
		b = append(b, f.Connection...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// managed reports whether what becomes of a field depends on the framing.
func managed(id message.ID) bool {
	switch id {
	case message.IDConnection, message.IDKeepAlive, message.IDProxyConnection, message.IDTE,
		message.IDTransferEncoding, message.IDUpgrade, message.IDContentLength:
		return true
	}
	return false
}

// ChunkEnd ends a chunk, LastChunk a body without a trailer section.
const (
	ChunkEnd  = "\r\n"
	LastChunk = "0\r\n\r\n"
)

// AppendChunkHead appends the line before a chunk of n > 0 bytes.
//
// RFC 9112, section 7.1: chunk-size is hexadecimal.
func AppendChunkHead(dst []byte, n int) []byte {
	dst = strconv.AppendUint(dst, uint64(n), 16)
	return append(dst, "\r\n"...)
}

// AppendTrailer appends the last chunk and a trailer section. Fields that may
// not come in one are left out.
func AppendTrailer(dst []byte, trailer *message.Header) ([]byte, error) {
	if _, bad := trailer.Invalid(); bad {
		return dst, errHookField
	}
	b := append(dst, "0\r\n"...)
	for i := range trailer.Len() {
		if !trailer.FieldID(i).InTrailer() {
			continue
		}
		name, value := trailer.Field(i)
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}
