package h1

import (
	"bytes"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// RequestMeta is what a request head says besides its message.
type RequestMeta struct {
	Minor         int // of the version: 0 or 1
	KeepAlive     bool
	Expect100     bool
	UpgradeWanted bool
	// LengthDropped is set where a Content-Length beside Transfer-Encoding was
	// dropped: the connection must end after the response.
	LengthDropped bool
	Framing       Framing
}

// RequestRules are leniencies for clients that are known to be odd.
type RequestRules struct {
	// DropLength reads a request with one valid Content-Length beside
	// Transfer-Encoding: chunked as chunked. The Content-Length is removed.
	DropLength bool
}

var (
	errTargetTooLong = &Error{414, reason.TargetTooLong, "the request target is longer than the limit"}
	errMethod        = bad("the method is malformed")
	errTarget        = bad("the request target is malformed")
	errTargetForm    = bad("the form of the request target does not fit the method")
	errVersion       = bad("the protocol version is malformed")
	errMajor         = &Error{505, reason.BadVersion, "the major version is not 1"}
	errNoHost        = &Error{400, reason.BadHost, "there is no Host field"}
	errHosts         = &Error{400, reason.BadHost, "there is more than one Host field"}
	errHost          = &Error{400, reason.BadHost, "the Host field is malformed"}
	errAuthority     = &Error{400, reason.BadHost, "the authority of the target is malformed"}
	errExpect        = &Error{417, reason.BadExpect, "the expectation is not 100-continue"}
	errLengths       = badFraming("there is more than one Content-Length")
	errLength        = badFraming("the Content-Length is not a number")
	errBoth          = badFraming("there are Content-Length and Transfer-Encoding")
	errOldCoding     = badFraming("Transfer-Encoding in HTTP/1.0")
	errCoding        = badFraming("the Transfer-Encoding is not chunked")
	errUnknownCoding = &Error{501, reason.BadFraming, "a transfer coding other than chunked"}
)

// ParseRequest reads a whole head, as HeadEnd found it, into req and meta, both
// reset. The error is always an *Error; req holds then what was understood.
func ParseRequest(head []byte, lim *Limits, rules *RequestRules, req *message.Request, meta *RequestMeta) error {
	if len(head) > lim.HeadBytes {
		return &Error{431, reason.HeadTooLarge, "the head is larger than the limit"}
	}
	b := req.Header.Load(head[skipEmptyLines(head):])
	end := nextLine(b, 0)
	if end < 0 {
		return errBareLF
	}
	target, err := parseRequestLine(b[:end], lim, req, meta)
	if err != nil {
		return err
	}
	var facts fieldFacts
	if err := parseFields(&req.Header, b, end+2, lim.Fields, &facts); err != nil {
		return err
	}
	if err := requestHost(&facts, meta); err != nil {
		return err
	}
	if err := requestTarget(target, req); err != nil {
		return err
	}
	if err := requestFraming(&facts, rules, req, meta); err != nil {
		return err
	}
	return requestMeta(&facts, req, meta)
}

// parseRequestLine reads method and version and returns the target.
//
// RFC 9112, section 3: method SP request-target SP HTTP-version, with exactly
// one space each.
func parseRequestLine(line []byte, lim *Limits, req *message.Request, meta *RequestMeta) ([]byte, error) {
	n := ascii.TokenLen(line)
	if n == 0 || n == len(line) || line[n] != ' ' {
		return nil, errMethod
	}
	req.SetMethodBytes(line[:n])
	rest := line[n+1:]
	n = ascii.PlainLen(rest)
	if n > lim.TargetBytes {
		return nil, errTargetTooLong
	}
	if n == 0 || n == len(rest) || rest[n] != ' ' || bytes.IndexByte(rest[:n], '#') >= 0 {
		return nil, errTarget
	}
	minor, err := parseVersion(rest[n+1:])
	meta.Minor = minor
	return rest[:n], err
}

// parseVersion reads HTTP/1.x. A minor version above 1 is read as 1.
//
// RFC 9112, section 2.3; RFC 9110, section 2.5.
func parseVersion(v []byte) (minor int, err error) {
	if len(v) != len("HTTP/1.1") || string(v[:5]) != "HTTP/" || v[6] != '.' || v[5] < '0' || v[5] > '9' || v[7] < '0' || v[7] > '9' {
		return 1, errVersion
	}
	if v[5] != '1' {
		return 1, errMajor
	}
	return min(int(v[7]-'0'), 1), nil
}

// BeginsRequest reports whether the first line of b is a request line of HTTP/1, be
// it a bad one: its last word is a version. A line without an end is taken for one.
//
// RFC 9112, section 3; RFC 9113, section 3.4: the line that HTTP/2 begins with was
// made to be none.
func BeginsRequest(b []byte) bool {
	b = b[skipEmptyLines(b):]
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return true
	}
	line := bytes.TrimSuffix(b[:end], []byte("\r"))
	word := bytes.LastIndexByte(line, ' ') + 1
	_, err := parseVersion(line[word:])
	return word > 0 && err != errVersion && string(line) != "PRI * HTTP/2.0"
}

// requestHost: RFC 9112, section 3.2: a request of HTTP/1.1 has exactly one
// valid Host field, also when its target is in absolute-form.
func requestHost(f *fieldFacts, meta *RequestMeta) error {
	switch {
	case f.hosts > 1:
		return errHosts
	case f.hosts == 0 && meta.Minor > 0:
		return errNoHost
	case f.hosts == 1 && !f.hostOK:
		return errHost
	}
	return nil
}

// requestTarget sets the target in the form in which the engine has it.
//
// RFC 9112, section 3.2.
func requestTarget(t []byte, req *message.Request) error {
	switch {
	case req.Method() == "CONNECT":
		// Section 3.2.3: authority-form, host and port.
		if colon := bytes.LastIndexByte(t, ':'); colon < 1 || colon == len(t)-1 || t[colon-1] == ':' || !ascii.IsAuthority(t) {
			return errTargetForm
		}
		// RFC 9110, section 7.2: Host is the target's authority; should a client
		// say another, the target stands.
		if string(req.AuthorityView()) != string(t) {
			req.Header.SetID(message.IDHost, t)
		}
	case t[0] == '/':
	case len(t) == 1 && t[0] == '*':
		// Section 3.2.4: asterisk-form, for OPTIONS only.
		if req.Method() != "OPTIONS" {
			return errTargetForm
		}
	default:
		return absoluteTarget(t, req)
	}
	req.LoadTarget(t)
	return nil
}

// absoluteTarget splits a target in absolute-form.
//
// RFC 9112, section 3.2.2: its authority replaces the Host field; section
// 3.2.4: OPTIONS without a path means "*".
func absoluteTarget(t []byte, req *message.Request) error {
	sep := bytes.Index(t, []byte("://"))
	if sep < 0 || !(ascii.EqualFold(t[:sep], "http") || ascii.EqualFold(t[:sep], "https")) {
		return errTarget
	}
	rest := t[sep+3:]
	n := bytes.IndexAny(rest, "/?")
	if n < 0 {
		n = len(rest)
	}
	authority, path := rest[:n], rest[n:]
	if !ascii.IsAuthority(authority) {
		return errAuthority
	}
	switch {
	case len(path) == 0 && req.Method() == "OPTIONS":
		req.LoadTarget([]byte("*"))
	case len(path) == 0:
		req.LoadTarget([]byte("/"))
	case path[0] == '?':
		req.LoadTarget(append([]byte("/"), path...))
	default:
		req.LoadTarget(path)
	}
	req.Header.SetID(message.IDHost, authority)
	return nil
}

// requestFraming: RFC 9112, section 6.3, in its strict reading: what could be
// read in two ways is refused. By rule one combination is not: item 3 of the
// section lets Transfer-Encoding override a Content-Length, which then must not
// be forwarded.
func requestFraming(f *fieldFacts, rules *RequestRules, req *message.Request, meta *RequestMeta) error {
	both := f.codings > 0 && f.lengths > 0
	switch {
	case both && !(rules.DropLength && f.lengths == 1 && f.length >= 0):
		return errBoth
	case f.codings > 0 && meta.Minor == 0:
		return errOldCoding
	case f.codings > 1 || f.coding == codingBad:
		return errCoding
	case f.coding == codingUnknown:
		return errUnknownCoding
	case f.codings == 1:
		meta.Framing = Chunked
		req.SetLength(-1)
		if meta.LengthDropped = both; both {
			req.Header.DelID(message.IDContentLength)
		}
	case f.lengths > 1:
		return errLengths
	case f.lengths == 1 && f.length < 0:
		return errLength
	case f.lengths == 1 && f.length > 0:
		meta.Framing = Length
		req.SetLength(f.length)
	}
	return nil
}

func requestMeta(f *fieldFacts, req *message.Request, meta *RequestMeta) error {
	// RFC 9112, section 6.1: after a request that had both lengths the connection
	// is closed, whatever the client asked for.
	meta.KeepAlive = f.persistent(meta.Minor) && !meta.LengthDropped
	if meta.Minor == 0 {
		// RFC 9110, section 10.1.1: an expectation in HTTP/1.0 is ignored, so that
		// no origin gets to see it either.
		if f.expects > 0 {
			req.Header.DelID(message.IDExpect)
		}
		return nil
	}
	if f.expects > 1 || (f.expects == 1 && !f.expect100) {
		return errExpect
	}
	meta.Expect100 = f.expect100
	meta.UpgradeWanted = f.hasUpgrade && f.upgrade
	return nil
}
