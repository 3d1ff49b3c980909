package h2

import (
	"bytes"
	"strconv"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/message"
)

// This file writes field sections. They name what is in HPACK's static table by
// its index and spell the rest out: no dynamic table, so that sections do not
// depend on each other, a connection keeps nothing for it, and nothing has to be
// searched (decision 11).

// staticName is the index of each known field's name in the static table; 0: it is
// not there.
var staticName = func() (t [256]byte) {
	for i, name := range staticNames {
		if id := message.LookupLower(name); id != message.IDOther && t[id] == 0 {
			t[id] = byte(i + firstName)
		}
	}
	return t
}()

// staticNames are the names of RFC 7541, appendix A from firstName on, where each
// name comes once.
const firstName = 15

var staticNames = [...]string{
	"accept-charset", "accept-encoding", "accept-language", "accept-ranges", "accept", "access-control-allow-origin", "age", "allow",
	"authorization", "cache-control", "content-disposition", "content-encoding", "content-language", "content-length", "content-location",
	"content-range", "content-type", "cookie", "date", "etag", "expect", "expires", "from", "host", "if-match", "if-modified-since",
	"if-none-match", "if-range", "if-unmodified-since", "last-modified", "link", "location", "max-forwards", "proxy-authenticate",
	"proxy-authorization", "range", "referer", "refresh", "retry-after", "server", "set-cookie", "strict-transport-security",
	"transfer-encoding", "user-agent", "vary", "via", "www-authenticate",
}

// hpackTable is how large either end takes the other's dynamic table to be until it
// hears something else (RFC 9113, section 6.5.2); hpackNoTable is the instruction that
// makes ours empty (RFC 7541, section 6.3).
const (
	hpackTable   = 4096
	hpackNoTable = 0x20
)

// Indices of RFC 7541, appendix A.
const (
	staticAuthority = 1
	staticGET       = 2
	staticPOST      = 3
	staticPath      = 4
	staticHTTP      = 6
	staticHTTPS     = 7
	staticStatus    = 8
	staticLength    = 28
)

// appendInt appends an integer with a prefix of n bits under the bits of first.
//
// RFC 7541, section 5.1.
func appendInt(dst []byte, first byte, n uint, v uint64) []byte {
	max := uint64(1)<<n - 1
	if v < max {
		return append(dst, first|byte(v))
	}
	dst = append(dst, first|byte(max))
	for v -= max; v >= 128; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}

// appendString appends a string literal, plain.
//
// RFC 7541, section 5.2.
func appendString[T string | []byte](dst []byte, s T) []byte {
	return append(appendInt(dst, 0, 7, uint64(len(s))), s...)
}

// appendLiteral appends a field whose name has an index, without indexing.
//
// RFC 7541, section 6.2.2.
func appendLiteral[T string | []byte](dst []byte, index int, value T) []byte {
	return appendString(appendInt(dst, 0, 4, uint64(index)), value)
}

func appendIndexed(dst []byte, index int) []byte { return append(dst, 0x80|byte(index)) }

// appendField appends a field; of another name than the known ones it is written
// in lower case (RFC 9113, section 8.2.1).
func appendField(dst []byte, id message.ID, name, value []byte) []byte {
	flag := byte(0)
	if id == message.IDAuthorization || id == message.IDCookie && len(value) < 20 {
		// RFC 7541, section 7.1.3: short secrets are never indexed, by whoever
		// writes them anew.
		flag = 0x10
	}
	if i := staticName[id]; i != 0 {
		return appendString(appendInt(dst, flag, 4, uint64(i)), value)
	}
	dst = append(dst, flag)
	if id != message.IDOther {
		dst = appendString(dst, id.Lower())
		return appendString(dst, value)
	}
	dst = appendInt(dst, 0, 7, uint64(len(name)))
	for _, c := range name {
		dst = append(dst, ascii.Lower(c))
	}
	return appendString(dst, value)
}

// appendResponse appends the section of a response. Length is what Content-Length
// tells, -1: nothing.
func appendResponse(dst []byte, resp *message.Response, length int64) []byte {
	dst = appendStatus(dst, resp.Status)
	return appendFields(dst, &resp.Header, length, false)
}

func appendStatus(dst []byte, status int) []byte {
	for i, s := range [...]int{200, 204, 206, 304, 400, 404, 500} {
		if s == status {
			return appendIndexed(dst, staticStatus+i)
		}
	}
	dst = append(appendInt(dst, 0, 4, staticStatus), 3)
	return strconv.AppendInt(dst, int64(status), 10)
}

// appendRequest appends the section of a request.
//
// RFC 9113, section 8.3.1; section 8.5 for CONNECT; RFC 8441, section 4 for
// extended CONNECT.
func appendRequest(dst []byte, req *message.Request, protocol string) []byte {
	switch req.Method() {
	case "GET":
		dst = appendIndexed(dst, staticGET)
	case "POST":
		dst = appendIndexed(dst, staticPOST)
	default:
		dst = appendLiteral(dst, staticGET, req.Method())
	}
	if protocol != "" {
		dst = appendString(append(dst, 0), ":protocol")
		dst = appendString(dst, protocol)
	}
	if req.Method() != "CONNECT" || protocol != "" {
		if req.Scheme() == "https" {
			dst = appendIndexed(dst, staticHTTPS)
		} else {
			dst = appendIndexed(dst, staticHTTP)
		}
		if t := req.TargetView(); len(t) == 1 && t[0] == '/' {
			dst = appendIndexed(dst, staticPath)
		} else {
			dst = appendLiteral(dst, staticPath, t)
		}
	}
	if a := req.AuthorityView(); len(a) > 0 {
		dst = appendLiteral(dst, staticAuthority, a)
	}
	length := req.Length()
	if length == 0 && !req.Header.HasID(message.IDContentLength) {
		if m := req.Method(); m != "POST" && m != "PUT" && m != "PATCH" {
			length = -1
		}
	}
	return appendFields(dst, &req.Header, length, true)
}

// appendFields appends the fields that HTTP/2 carries.
//
// RFC 9113, section 8.2.2: none of those that belong to a connection; TE may say
// trailers.
func appendFields(dst []byte, h *message.Header, length int64, request bool) []byte {
	for i := range h.Len() {
		name, value := h.Field(i)
		id := h.FieldID(i)
		switch id {
		case message.IDConnection, message.IDKeepAlive, message.IDProxyConnection, message.IDTransferEncoding,
			message.IDUpgrade, message.IDContentLength:
			continue
		case message.IDHost:
			if request {
				continue
			}
		case message.IDTE:
			if !request || !ascii.HasToken(value, "trailers") {
				continue
			}
			value = trailers
		case message.IDCookie:
			if request {
				dst = appendCookie(dst, value)
				continue
			}
		}
		dst = appendField(dst, id, name, value)
	}
	if length >= 0 {
		var digits [20]byte
		dst = appendLiteral(dst, staticLength, strconv.AppendInt(digits[:0], length, 10))
	}
	return dst
}

var trailers = []byte("trailers")

// appendCookie splits a cookie field as RFC 9113, section 8.2.3 permits, so that
// the other end can compress the parts that stay the same.
func appendCookie(dst, value []byte) []byte {
	for {
		crumb, rest, more := bytes.Cut(value, []byte("; "))
		dst = appendField(dst, message.IDCookie, nil, crumb)
		if !more {
			return dst
		}
		value = rest
	}
}

// appendTrailer appends the section behind a body.
func appendTrailer(dst []byte, trailer *message.Header) []byte {
	for i := range trailer.Len() {
		if id := trailer.FieldID(i); id.InTrailer() {
			name, value := trailer.Field(i)
			dst = appendField(dst, id, name, value)
		}
	}
	return dst
}
