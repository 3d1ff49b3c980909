package h2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/message"
)

// sectionKind is what a field section is.
type sectionKind uint8

const (
	requestHead sectionKind = iota
	responseHead
	trailerSection
	discarded // nobody wants it, but the table must follow
)

// headReader makes messages of field sections. It belongs to the reader
// goroutine.
type headReader struct {
	cfg      *Config
	settings bool // the other end's SETTINGS came

	// Of the present section.
	kind     sectionKind
	h        *message.Header
	bad      string // why it is malformed
	tooLarge bool
	size     int // as RFC 9113, section 6.5.2 counts
	fields   int
	crumbs   int
	regular  bool // a field without a colon came
	host     bool // Host was added
	hosts    int  // Host fields that came
	lengths  int
	length   int64
	cookie   []byte
	pseudo   [pseudoCount]string
	has      [pseudoCount]bool
}

type pseudo uint8

const (
	pseudoMethod pseudo = iota
	pseudoScheme
	pseudoAuthority
	pseudoPath
	pseudoProtocol
	pseudoStatus
	pseudoCount
)

var pseudoNames = [pseudoCount]string{":method", ":scheme", ":authority", ":path", ":protocol", ":status"}

// start begins a section whose fields go to h.
func (r *headReader) start(kind sectionKind, h *message.Header) {
	*r = headReader{cfg: r.cfg, settings: r.settings, kind: kind, h: h, cookie: r.cookie[:0], length: -1}
}

// field takes a field from the decoder.
func (r *headReader) field(f hpack.HeaderField) {
	// RFC 9113, section 6.5.2: the size counts 32 bytes for each field, for what
	// it costs to keep it.
	r.size += len(f.Name) + len(f.Value) + 32
	switch {
	case r.kind == discarded || r.bad != "" || r.tooLarge:
		return
	case r.size > r.cfg.HeadBytes:
		r.tooLarge = true
		return
	case strings.HasPrefix(f.Name, ":"):
		r.pseudoField(f.Name, f.Value)
		return
	}
	r.regular = true
	r.regularField(f.Name, f.Value)
}

// pseudoField: RFC 9113, section 8.3: pseudo-header fields come first, once each,
// only those that are defined, and not in trailers.
func (r *headReader) pseudoField(name, value string) {
	for i, known := range pseudoNames {
		if name != known {
			continue
		}
		p := pseudo(i)
		switch {
		case r.regular:
			r.bad = "a pseudo-header field behind others"
		case r.has[p]:
			r.bad = "a pseudo-header field twice"
		case r.kind == trailerSection, (p == pseudoStatus) != (r.kind == responseHead):
			r.bad = "a pseudo-header field where it does not belong"
		}
		r.pseudo[p], r.has[p] = value, true
		return
	}
	r.bad = "an unknown pseudo-header field"
}

// regularField: RFC 9113, section 8.2.1 and 8.2.2.
func (r *headReader) regularField(name, value string) {
	id := message.LookupLower(name)
	if id == message.IDOther && (!ascii.IsToken(name) || hasUpper(name)) {
		r.bad = "a field name that is no token in lower case"
		return
	}
	if !validValue(value) {
		r.bad = "a field value with a control character, or with a space at its end"
		return
	}
	switch id {
	case message.IDConnection, message.IDKeepAlive, message.IDProxyConnection, message.IDTransferEncoding, message.IDUpgrade:
		r.bad = "a field that belongs to a connection of HTTP/1"
		return
	case message.IDTE:
		if r.kind == requestHead && value != "trailers" {
			r.bad = "TE says something else than trailers"
			return
		}
	case message.IDCookie:
		if r.kind == requestHead {
			r.crumb(value)
			return
		}
	case message.IDHost:
		if r.kind == requestHead {
			r.hostField(value)
			return
		}
	case message.IDContentLength:
		r.lengths++
		r.length = ascii.ParseLength([]byte(value))
	}
	if r.kind == requestHead {
		r.addHost()
	}
	if r.fields++; r.fields > r.cfg.Fields {
		r.tooLarge = true
		return
	}
	if r.kind == trailerSection && !id.InTrailer() {
		return
	}
	r.h.AddLine(id, name, value)
}

// crumb joins the cookie fields.
//
// RFC 9113, section 8.2.3: with "; " between them, for who does not speak HTTP/2.
func (r *headReader) crumb(value string) {
	// The crumbs have a limit of their own: a browser with many cookies is no
	// attack, a thousand fields of no bytes are.
	if r.crumbs++; r.crumbs > r.cfg.Crumbs {
		r.tooLarge = true
		return
	}
	if r.crumbs > 1 {
		r.cookie = append(r.cookie, "; "...)
	}
	r.cookie = append(r.cookie, value...)
}

// hostField: RFC 9113, section 8.3.1: :authority stands for Host; one that says
// something else would let two parties see two hosts.
func (r *headReader) hostField(value string) {
	if r.hosts++; r.hosts > 1 || r.has[pseudoAuthority] && r.pseudo[pseudoAuthority] != value {
		r.bad = "Host and :authority do not agree"
		return
	}
	if !r.has[pseudoAuthority] {
		r.pseudo[pseudoAuthority] = value
	}
	r.addHost()
}

// addHost puts Host before the other fields.
func (r *headReader) addHost() {
	if a := r.pseudo[pseudoAuthority]; !r.host && a != "" {
		r.host = true
		r.h.AddLine(message.IDHost, "", a)
	}
}

func hasUpper(s string) bool {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return true
		}
	}
	return false
}

func validValue(v string) bool {
	if n := len(v); n > 0 && (v[0] == ' ' || v[0] == '\t' || v[n-1] == ' ' || v[n-1] == '\t') {
		return false
	}
	return ascii.IsValue(v)
}

// Refusal is why a request is answered by an error although its stream goes on.
type Refusal struct {
	Status int
	Detail string
}

var (
	refuseTooLarge = &Refusal{431, "the field section is larger than the limit"}
	refuseTarget   = &Refusal{414, "the request target is longer than the limit"}
	refusePath     = &Refusal{400, "the request target is malformed"}
	refuseHost     = &Refusal{400, "the authority is malformed"}
	refuseNoHost   = &Refusal{400, "there is no authority"}
	refuseExpect   = &Refusal{417, "the expectation is not 100-continue"}
)

// request completes a request from the section. The refusal is for a head that can
// be understood and not served; bad is set when it is malformed.
func (r *headReader) request(req *message.Request, end bool) (protocol string, refusal *Refusal) {
	if len(r.cookie) > 0 {
		r.h.AddLineBytes(message.IDCookie, "", r.cookie)
	}
	r.addHost()
	method := r.pseudo[pseudoMethod]
	req.SetMethodBytes([]byte(method))
	protocol = r.pseudo[pseudoProtocol]
	defer r.release()
	if r.tooLarge {
		// Nobody will look at it.
		r.size = 0
		r.h.Reset()
		if !end {
			req.SetLength(-1)
		}
		return "", refuseTooLarge
	}
	switch connect := method == "CONNECT"; {
	case r.bad != "":
		return "", nil
	case !ascii.IsToken(method):
		r.bad = "no method, or one that is no token"
	case r.has[pseudoProtocol] && (!connect || !r.cfg.Connect || !ascii.IsToken(protocol)):
		// RFC 8441, section 4: only in CONNECT, and only where it was offered. Its
		// values are those of Upgrade, which are tokens.
		r.bad = ":protocol where it does not belong"
	case connect && !r.has[pseudoProtocol]:
		// RFC 9113, section 8.5.
		if r.has[pseudoScheme] || r.has[pseudoPath] || !r.has[pseudoAuthority] {
			r.bad = "CONNECT with :scheme or :path, or without :authority"
		}
	case !r.has[pseudoScheme] || !r.has[pseudoPath] || r.pseudo[pseudoPath] == "":
		// RFC 9113, section 8.3.1: all requests but CONNECT have them.
		r.bad = "a pseudo-header field is missing"
	case connect && !r.has[pseudoAuthority]:
		r.bad = "extended CONNECT without :authority"
	}
	if r.bad == "" {
		r.framing(end, req.SetLength)
	}
	if r.bad != "" {
		return "", nil
	}
	if method == "CONNECT" && !end {
		req.SetLength(-1) // RFC 9113, section 8.5: what follows is no body
	}
	return protocol, r.target(req)
}

// release gives back what only the section itself needed.
func (r *headReader) release() {
	r.pseudo = [pseudoCount]string{}
	if cap(r.cookie) > maxKeptHead {
		r.cookie = nil
	}
}

// framing says how long the body is.
//
// RFC 9113, section 8.1.1: a Content-Length that is malformed, or that a message
// without a body contradicts, makes the message malformed.
func (r *headReader) framing(end bool, set func(int64)) {
	switch {
	case r.lengths > 1 || r.lengths == 1 && r.length < 0:
		r.bad = "Content-Length is repeated or malformed"
	case end && r.length > 0:
		r.bad = "the body is shorter than Content-Length"
	case end:
		set(0)
	default:
		set(r.length)
	}
}

// target sets what the request is for, in the form in which the engine has it.
func (r *headReader) target(req *message.Request) *Refusal {
	authority, path := r.pseudo[pseudoAuthority], r.pseudo[pseudoPath]
	if authority != "" && !ascii.IsAuthority([]byte(authority)) {
		return refuseHost
	}
	if s := r.pseudo[pseudoScheme]; s == "https" || s == "http" {
		req.SetScheme(s)
	}
	if req.Method() == "CONNECT" && !r.has[pseudoProtocol] {
		if colon := strings.LastIndexByte(authority, ':'); colon < 1 || colon == len(authority)-1 {
			return refuseHost
		}
		req.LoadTarget([]byte(authority))
		return nil
	}
	switch {
	case authority == "":
		return refuseNoHost
	case len(path) > r.cfg.TargetBytes:
		return refuseTarget
	case path == "*" && req.Method() == "OPTIONS":
	case path[0] != '/', strings.IndexByte(path, '#') >= 0, ascii.PlainLen([]byte(path)) != len(path):
		return refusePath
	}
	req.LoadTarget([]byte(path))
	if v := req.Header.ViewID(message.IDExpect); v != nil && !ascii.EqualFold(v, "100-continue") {
		return refuseExpect
	}
	return nil
}

// response completes a response from the section. It reports whether it is an
// interim one; bad is set when it is malformed.
func (r *headReader) response(resp *message.Response, end bool) (interim bool) {
	status, err := strconv.Atoi(r.pseudo[pseudoStatus])
	switch {
	case r.bad != "":
		return false
	case err != nil || status < 100 || status > 999 || len(r.pseudo[pseudoStatus]) != 3:
		r.bad = "the status is missing or malformed"
		return false
	case status == 101:
		// RFC 9113, section 8.6: HTTP/2 has no such thing.
		r.bad = "a 101"
		return false
	}
	resp.Status = status
	if interim = status < 200; interim {
		if end {
			r.bad = "an interim response that ends the stream"
		}
		return true
	}
	r.framing(false, resp.SetLength)
	if end && r.bad == "" && r.length < 0 {
		resp.SetLength(0)
	}
	return false
}

// malformed is the error of the stream for a malformed message.
//
// RFC 9113, section 8.1.1.
func (r *headReader) malformed(id uint32) *h2frame.Error {
	return &h2frame.Error{Code: h2frame.ProtocolError, Stream: id, Detail: r.bad}
}
