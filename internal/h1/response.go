package h1

import (
	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// ResponseMeta is what a response head says besides its message.
type ResponseMeta struct {
	Minor     int
	KeepAlive bool
	Upgraded  bool // 101: what follows is another protocol
	Framing   Framing
}

// ResponseRules are leniencies for origins that are known to be odd.
type ResponseRules struct {
	// AcceptBadLength reads a response with an invalid or repeated
	// Content-Length as ended by the connection.
	AcceptBadLength bool
}

func upBad(detail string) *Error {
	return &Error{502, reason.UpstreamBadHead, detail}
}

func upFraming(detail string) *Error {
	return &Error{502, reason.UpstreamBadFraming, detail}
}

var (
	errStatusLine    = upBad("the status line is malformed")
	errUpMajor       = upBad("the major version is not 1")
	errUpLength      = upFraming("the Content-Length is malformed or repeated")
	errUpBoth        = upFraming("there are Content-Length and Transfer-Encoding")
	errUpOldCoding   = upFraming("Transfer-Encoding in HTTP/1.0")
	errUpCoding      = upFraming("the Transfer-Encoding is not chunked")
	errUpHeadTooLong = &Error{502, reason.UpstreamHeadTooLarge, "the head is larger than the limit"}
)

// ParseResponse reads a whole head, as HeadEnd found it, into resp and meta,
// both of which it resets. Method is the request's. The error is always an
// *Error.
func ParseResponse(head []byte, lim *Limits, method string, rules *ResponseRules, resp *message.Response, meta *ResponseMeta) error {
	*meta = ResponseMeta{}
	resp.Reset()
	if len(head) > lim.HeadBytes {
		return errUpHeadTooLong
	}
	b := resp.Header.Load(head)
	end := nextLine(b, 0)
	if end < 0 {
		return errBareLF
	}
	if err := parseStatusLine(b[:end], resp, meta); err != nil {
		return err
	}
	var facts fieldFacts
	if err := parseFields(&resp.Header, b, end+2, lim.Fields, &facts); err != nil {
		return err
	}
	meta.KeepAlive = facts.persistent(meta.Minor)
	return responseFraming(&facts, method, rules, resp, meta)
}

// parseStatusLine: RFC 9112, section 4: HTTP-version SP status-code SP
// [ reason-phrase ]. The second space is often missing where there is no
// phrase, which nobody can misread.
func parseStatusLine(line []byte, resp *message.Response, meta *ResponseMeta) error {
	const prefix = len("HTTP/1.1 200")
	if len(line) < prefix || line[8] != ' ' || (len(line) > prefix && line[prefix] != ' ') {
		return errStatusLine
	}
	minor, err := parseVersion(line[:8])
	switch err {
	case nil:
	case errMajor:
		return errUpMajor
	default:
		return errStatusLine
	}
	meta.Minor = minor
	for _, c := range line[9:prefix] {
		if c < '0' || c > '9' {
			return errStatusLine
		}
		resp.Status = resp.Status*10 + int(c-'0')
	}
	// RFC 9110, section 15: the first digit is between 1 and 5; others exist and
	// are passed on.
	if resp.Status < 100 {
		return errStatusLine
	}
	text := line[prefix:]
	if len(text) > 0 {
		text = text[1:]
	}
	if !ascii.IsValue(text) {
		return errStatusLine
	}
	resp.LoadReason(text)
	return nil
}

// responseFraming: RFC 9112, section 6.3, in its strict reading.
func responseFraming(f *fieldFacts, method string, rules *ResponseRules, resp *message.Response, meta *ResponseMeta) error {
	badLength := f.lengths > 1 || (f.lengths == 1 && f.length < 0)
	switch {
	case f.codings > 0 && f.lengths > 0:
		return errUpBoth
	case f.codings > 0 && meta.Minor == 0:
		return errUpOldCoding
	case f.codings > 1 || (f.codings == 1 && f.coding != codingChunked):
		return errUpCoding
	case badLength && !rules.AcceptBadLength:
		return errUpLength
	case badLength:
		resp.Header.DelID(message.IDContentLength)
		f.lengths = 0
	}
	length := int64(-1)
	if f.lengths == 1 {
		length = f.length
	}
	switch {
	case resp.Status < 200 || resp.Status == 204:
		meta.Upgraded = resp.Status == 101
		resp.SetLength(0)
	case resp.Status == 304 || method == "HEAD":
		resp.SetLength(length)
	case f.codings == 1:
		meta.Framing = Chunked
		resp.SetLength(-1)
	case length == 0:
		resp.SetLength(0)
	case length > 0:
		meta.Framing = Length
		resp.SetLength(length)
	default:
		meta.Framing = Close
		meta.KeepAlive = false
		resp.SetLength(-1)
	}
	return nil
}
