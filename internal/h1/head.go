package h1

import (
	"bytes"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// maxEmptyLines bounds the empty lines before a head: enough for old clients
// that end a body with one too many, not a way to send for ever.
const maxEmptyLines = 4

var (
	errBareLF     = bad("a line ends with a bare LF")
	errEmptyLines = bad("too many empty lines before the head")
	errFieldName  = bad("a field name is malformed")
	errFieldValue = bad("a field value holds a control character")
	errObsFold    = bad("a field is folded over two lines")
	errNoColon    = bad("a field has no colon")
	errFields     = &Error{431, reason.HeadTooLarge, "there are too many fields"}
)

// HeadEnd looks for the end of a head in b: the empty line. From is where an
// earlier call stopped, 0 at first. It returns end < 0 when the head is not
// complete, and then from where to go on. Bare LFs are refused at once.
//
// RFC 9112, section 2.2: a recipient may take a bare LF for a line's end; one
// that does not agree with its neighbour about it can be smuggled past, so we
// do not. A few empty lines before a request line are ignored.
func HeadEnd(b []byte, from int) (end, next int, err error) {
	if from == 0 && len(b) > 0 && b[0] != '\r' && b[0] != '\n' {
		// The whole head is there most of the time: one search finds its end. A
		// bare LF before it is found when the lines are parsed.
		if n := bytes.Index(b, emptyLine); n >= 0 {
			return n + len(emptyLine), n, nil
		}
	}
	at := from
	for {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return -1, at, nil
		}
		line := at
		at += n + 1
		if n == 0 || b[at-2] != '\r' {
			return -1, at, errBareLF
		}
		if n > 1 {
			continue
		}
		if skipEmptyLines(b) < line {
			return at, at, nil
		}
		if at > 2*maxEmptyLines {
			return -1, at, errEmptyLines
		}
	}
}

var emptyLine = []byte("\r\n\r\n")

// skipEmptyLines returns where the first line that is not empty begins.
func skipEmptyLines(b []byte) int {
	at := 0
	for at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n' {
		at += 2
	}
	return at
}

// nextLine returns where the line that begins at at ends, without its CRLF, or
// -1 if it ends with a bare LF. There is an LF: HeadEnd has found the last one.
func nextLine(b []byte, at int) int {
	end := at + bytes.IndexByte(b[at:], '\n') - 1
	if end < at || b[end] != '\r' {
		return -1
	}
	return end
}

// parseFields adds the fields that begin at at in h's own copy of the head.
// What matters for framing is noted in f.
//
// RFC 9112, section 5: field-line = field-name ":" OWS field-value OWS; section
// 5.1: a space before the colon is refused; section 5.2: so is folding.
func parseFields(h *message.Header, b []byte, at, limit int, f *fieldFacts) error {
	for n := 0; ; n++ {
		end := nextLine(b, at)
		if end == at {
			return nil
		}
		if end < 0 {
			return errBareLF
		}
		if n == limit {
			return errFields
		}
		nameLen := ascii.TokenLen(b[at:end])
		if nameLen == 0 || at+nameLen >= end || b[at+nameLen] != ':' {
			return fieldNameError(b[at:end], nameLen)
		}
		value, valueEnd := at+nameLen+1, end
		for value < valueEnd && (b[value] == ' ' || b[value] == '\t') {
			value++
		}
		for value < valueEnd && (b[valueEnd-1] == ' ' || b[valueEnd-1] == '\t') {
			valueEnd--
		}
		if !ascii.IsValue(b[value:valueEnd]) {
			return errFieldValue
		}
		id := h.AddSpan(at, at+nameLen, value, valueEnd)
		if id != message.IDOther {
			f.seen(id, b[value:valueEnd])
		}
		at = end + 2
	}
}

// fieldNameError says what is wrong with a line whose name ends at n without a
// colon.
func fieldNameError(line []byte, n int) error {
	switch {
	case n == 0 && (line[0] == ' ' || line[0] == '\t'):
		return errObsFold
	case n == len(line):
		return errNoColon
	}
	return errFieldName
}

// fieldFacts is what framing and the connection's fate depend on, gathered
// while fields are parsed.
type fieldFacts struct {
	lengths, codings, hosts, expects int
	length                           int64 // of the first Content-Length, -1: not a number
	coding                           codingKind
	close, keepAlive, upgrade        bool // Connection's options
	hasUpgrade                       bool
	expect100                        bool
	hostOK                           bool
}

type codingKind uint8

const (
	codingChunked codingKind = iota + 1 // exactly `chunked`
	codingUnknown                       // another, with chunked last
	codingBad
)

func (f *fieldFacts) seen(id message.ID, v []byte) {
	switch id {
	case message.IDContentLength:
		if f.lengths++; f.lengths == 1 {
			f.length = ascii.ParseLength(v)
		}
	case message.IDTransferEncoding:
		f.codings++
		f.coding = parseCoding(v)
	case message.IDHost:
		f.hosts++
		f.hostOK = ascii.IsAuthority(v)
	case message.IDConnection:
		f.connection(v)
	case message.IDUpgrade:
		f.hasUpgrade = true
	case message.IDExpect:
		f.expects++
		f.expect100 = ascii.EqualFold(v, "100-continue")
	}
}

func (f *fieldFacts) connection(v []byte) {
	for len(v) > 0 {
		var e []byte
		e, v = ascii.NextElement(v)
		switch {
		case ascii.EqualFold(e, "close"):
			f.close = true
		case ascii.EqualFold(e, "keep-alive"):
			f.keepAlive = true
		case ascii.EqualFold(e, "upgrade"):
			f.upgrade = true
		}
	}
}

// persistent reports whether the connection may carry another message.
//
// RFC 9112, section 9.3.
func (f *fieldFacts) persistent(minor int) bool {
	return !f.close && (minor > 0 || f.keepAlive)
}

// parseCoding reads one Transfer-Encoding field.
//
// RFC 9112, section 6.1: chunked comes last and only once, and has no
// parameters.
func parseCoding(v []byte) codingKind {
	if ascii.EqualFold(v, "chunked") {
		return codingChunked
	}
	last, chunked, others := []byte(nil), 0, 0
	for len(v) > 0 {
		last, v = ascii.NextElement(v)
		switch {
		case ascii.EqualFold(last, "chunked"):
			chunked++
		case len(last) > 0:
			others++
		}
	}
	if chunked == 1 && others > 0 && ascii.EqualFold(last, "chunked") {
		return codingUnknown
	}
	return codingBad
}
