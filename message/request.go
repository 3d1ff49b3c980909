package message

import (
	"github.com/cirqueproxy/cirque/internal/ascii"
)

// Request is a request head and what is known of its body. The zero value is
// empty. It belongs to one goroutine at a time and must not be copied.
type Request struct {
	// Header holds the fields, Host among them. Trailer holds those after the
	// body, once it was read to its end.
	Header  Header
	Trailer Header

	method     string
	scheme     string
	target     []byte
	targetText string
	edited     bool // the target was set by a program, not by a parser
	length     int64

	// What Path, Query and PathProblem look at; valid while parsed is set.
	parsed   bool
	path     []byte // normalized
	pathText string
	query    int // index in target of what follows '?'; len(target)+1 if there is none
	problem  PathProblem

	// Host's value; valid while hostAt is the Header's count of changes.
	host     []byte
	hostText string
	hostAt   uint32
	hostOK   bool
}

// Reset empties the request and keeps its memory.
func (r *Request) Reset() {
	r.Header.Reset()
	r.Trailer.Reset()
	if cap(r.target) > maxKept {
		r.target, r.path = nil, nil
	}
	r.method, r.scheme, r.targetText = "", "", ""
	r.target = r.target[:0]
	r.length = 0
	r.edited, r.parsed, r.hostOK = false, false, false
}

// CopyFrom makes r equal to o, which stays as it is. Trailers are copied too.
func (r *Request) CopyFrom(o *Request) {
	r.Header.CopyFrom(&o.Header)
	r.Trailer.CopyFrom(&o.Trailer)
	r.method, r.scheme, r.targetText = o.method, o.scheme, o.targetText
	r.target = append(r.target[:0], o.target...)
	r.length, r.edited = o.length, o.edited
	r.parsed, r.hostOK = false, false
}

// Method returns the method, in the case in which it came.
func (r *Request) Method() string { return r.method }

// SetMethod sets the method. One that is no token makes the request fail when
// its head is written.
func (r *Request) SetMethod(m string) { r.method = m }

// methods are interned, so that parsing them allocates nothing.
var methods = [...]string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "REPORT", "QUERY"}

// SetMethodBytes is SetMethod for bytes, which are copied.
func (r *Request) SetMethodBytes(m []byte) {
	for _, s := range methods {
		if string(m) == s {
			r.method = s
			return
		}
	}
	r.method = string(m)
}

// Scheme returns "http" or "https": how the client spoke to us.
func (r *Request) Scheme() string {
	if r.scheme == "" {
		return "http"
	}
	return r.scheme
}

// SetScheme sets the scheme.
func (r *Request) SetScheme(s string) { r.scheme = s }

// Target returns the request target as it came: a path with its query, "*", or
// for CONNECT host:port. An absolute-form target is split into Authority and
// path before.
func (r *Request) Target() string {
	if r.targetText == "" && len(r.target) > 0 {
		r.targetText = string(r.target)
	}
	return r.targetText
}

// TargetView is Target, lent.
func (r *Request) TargetView() []byte { return r.target }

// SetTarget sets the request target. One that is not valid makes the request
// fail when its head is written.
func (r *Request) SetTarget(t string) {
	r.target = append(r.target[:0], t...)
	r.targetText, r.edited, r.parsed = t, true, false
}

// LoadTarget takes a copy of a target that a parser has checked.
func (r *Request) LoadTarget(t []byte) {
	r.target = append(r.target[:0], t...)
	r.targetText, r.edited, r.parsed = "", false, false
}

// InvalidHead returns what of method and target must not be sent, or "".
//
// RFC 9112, section 3: neither may hold a space or a control character.
func (r *Request) InvalidHead() string {
	if !ascii.IsToken(r.method) {
		return "method"
	}
	if !r.edited {
		return ""
	}
	if n := len(r.target); n == 0 || ascii.PlainLen(r.target) != n {
		return "target"
	}
	for _, c := range r.target {
		if c == '#' {
			return "target"
		}
	}
	if r.method != "CONNECT" && r.target[0] != '/' && string(r.target) != "*" {
		return "target"
	}
	return ""
}

// Authority returns the host and, where there is one, the port that the client
// asked for: the value of Host, as it came.
func (r *Request) Authority() string { return r.Header.Get("Host") }

// AuthorityView is Authority, lent.
func (r *Request) AuthorityView() []byte { return r.Header.ViewID(IDHost) }

// SetAuthority sets Host.
func (r *Request) SetAuthority(a string) { r.Header.Set("Host", a) }

// Host returns the host that the client asked for in lower case, without port
// and without the dot at the end of a full name; an IPv6 address keeps its
// brackets. It is "" when the client did not say.
func (r *Request) Host() string {
	v := r.HostView()
	if r.hostText == "" && len(v) > 0 {
		r.hostText = string(v)
	}
	return r.hostText
}

// HostView is Host, lent.
func (r *Request) HostView() []byte {
	if r.hostOK && r.hostAt == r.Header.changes {
		return r.host
	}
	r.hostOK, r.hostAt, r.hostText = true, r.Header.changes, ""
	r.host = r.host[:0]
	a := r.AuthorityView()
	for i := 0; i < len(a); i++ {
		if a[i] == ':' && (a[0] != '[' || (i > 0 && a[i-1] == ']')) {
			break
		}
		r.host = append(r.host, ascii.Lower(a[i]))
	}
	if n := len(r.host); n > 1 && r.host[n-1] == '.' {
		r.host = r.host[:n-1]
	}
	return r.host
}

// Length returns the length of the body in bytes: 0 when there is none, -1 when
// only its end will tell.
func (r *Request) Length() int64 { return r.length }

// SetLength says how long the body is, -1 for unknown. The engine frames the
// message by it.
func (r *Request) SetLength(n int64) { r.length = max(n, -1) }
