package cirque

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/cirqueproxy/cirque/internal/hop"
	"github.com/cirqueproxy/cirque/internal/upstream"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// Forwarding says which fields tell the origin about the client, and whom to
// believe. In its zero value X-Forwarded-For, -Proto and -Host are set and
// whatever a client sent of them is replaced, Via is added to requests, and a
// request id is sent in X-Request-Id.
type Forwarding struct {
	// NoXForwarded leaves the X-Forwarded fields as they came.
	NoXForwarded bool
	// Forwarded also sends the Forwarded field of RFC 7239.
	Forwarded bool
	// TrustedProxies are the prefixes of clients that are proxies of ours: what
	// they say about their client is kept and added to, not replaced.
	TrustedProxies []netip.Prefix
	// ClientCert sends the certificate of a client that identified itself by one
	// in the field Client-Cert, ClientCertChain what came with it in
	// Client-Cert-Chain (RFC 9440). What a client sends in these fields never
	// reaches an origin; a trusted proxy's does, where it shows no certificate
	// itself.
	ClientCert, ClientCertChain bool
	// Via is the name that this proxy has in the Via field. If empty, a name
	// that is unique to the process is used; if "-", the field is neither added
	// nor checked for loops.
	Via string
	// RequestID is the name of the field with the request id. If empty, it is
	// X-Request-Id; if "-", none is sent.
	RequestID string
}

// viaName is unique to the process, so that a loop is told from a chain of two
// proxies of this kind.
var viaName = "cirque-" + hex.EncodeToString(randomBytes(4))

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func (f *Forwarding) via() string {
	if f.Via == "" {
		return viaName
	}
	return f.Via
}

// trusts reports whether the client of s is a proxy of ours.
func (f *Forwarding) trusts(s *Session) bool {
	if len(f.TrustedProxies) == 0 {
		return false
	}
	addr := s.conn.clientAddr.Addr().Unmap()
	for _, p := range f.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// upstreamHead makes the head of the present attempt: a copy of the request
// without hop-by-hop fields, with those that tell about the client, as the
// UpstreamRequest hooks left it.
func (s *Session) upstreamHead() error {
	s.upReq.CopyFrom(s.req)
	h := &s.upReq.Header
	if !s.proxy.KeepHopByHop {
		hop.Remove(h, s.conn.tunnels() && s.peer.RoundTripper == nil && upgradeWanted(s))
		if _, ok := s.up.(*upstream.H2); ok && s.req.Header.HasToken(message.IDTE, "trailers") {
			// RFC 9113, section 8.2.2: all that TE may say; gRPC wants to hear it.
			h.SetID(message.IDTE, trailersOnly)
		}
	}
	if s.body.continued {
		h.DelID(message.IDExpect)
	}
	if s.h1up != nil && s.conn.h1 == nil && s.upReq.Length() > 0 && h.HasID(message.IDTrailer) {
		// HTTP/2 has trailers behind a body whose length was told, HTTP/1 has not:
		// there the length gives way (RFC 9112, section 7.1.2).
		s.upReq.SetLength(-1)
	}
	if !s.proxy.Forwarding.NoXForwarded {
		s.xForwarded(h)
	}
	if s.proxy.Forwarding.Forwarded {
		s.forwarded(h)
	} else if !s.proxy.Forwarding.NoXForwarded && h.HasID(message.IDForwarded) && !s.proxy.Forwarding.trusts(s) {
		h.DelID(message.IDForwarded) // an untrusted client's word, like X-Forwarded-For
	}
	s.clientCert(h)
	if via := s.proxy.Forwarding.via(); via != "-" {
		s.addVia(h, via)
	}
	s.addID(h)
	return s.runHead(s.plan.upstreamRequest)
}

var trailersOnly = []byte("trailers")

// xForwarded sets the X-Forwarded fields.
func (s *Session) xForwarded(h *message.Header) {
	trusted := s.proxy.Forwarding.trusts(s)
	if old := h.ViewID(message.IDXForwardedFor); trusted && len(old) > 0 {
		all := strings.Join(h.Values("X-Forwarded-For"), ", ")
		h.SetID(message.IDXForwardedFor, []byte(all+", "+s.conn.clientIP))
	} else if s.conn.clientIP != "" {
		h.SetID(message.IDXForwardedFor, s.conn.clientIPBytes)
	} else {
		h.DelID(message.IDXForwardedFor)
	}
	if !trusted || !h.HasID(message.IDXForwardedProto) {
		h.SetID(message.IDXForwardedProto, s.conn.scheme)
	}
	if !trusted || !h.HasID(message.IDXForwardedHost) {
		if host := s.req.AuthorityView(); len(host) > 0 {
			h.SetID(message.IDXForwardedHost, host)
		} else {
			h.DelID(message.IDXForwardedHost)
		}
	}
}

// forwarded adds an element to the Forwarded field.
//
// RFC 7239, section 4: elements are in the order of the hops; section 6: an
// IPv6 address is quoted and in brackets, and who has none is "unknown".
func (s *Session) forwarded(h *message.Header) {
	var b bytes.Buffer
	if s.proxy.Forwarding.trusts(s) {
		if old := h.Values("Forwarded"); len(old) > 0 {
			b.WriteString(strings.Join(old, ", ") + ", ")
		}
	}
	switch addr := s.conn.clientAddr.Addr().Unmap(); {
	case !addr.IsValid():
		b.WriteString("for=unknown")
	case addr.Is6():
		b.WriteString(`for="[` + addr.String() + `]"`)
	default:
		b.WriteString("for=" + addr.String())
	}
	if host := s.req.AuthorityView(); len(host) > 0 && !bytes.ContainsAny(host, "\"\\") {
		b.WriteString(`;host="`)
		b.Write(host)
		b.WriteByte('"')
	}
	b.WriteString(";proto=")
	b.Write(s.conn.scheme)
	h.SetID(message.IDForwarded, b.Bytes())
}

// addVia adds this proxy to the Via field.
//
// RFC 9110, section 7.6.3: each intermediary appends the protocol version it
// received and its name.
func (s *Session) addVia(h *message.Header, name string) {
	if !h.HasID(message.IDVia) {
		h.SetID(message.IDVia, s.proxy.viaValue(s.conn.version(s)))
		return
	}
	var b []byte
	for i := range h.Len() {
		if h.FieldID(i) == message.IDVia {
			_, v := h.Field(i)
			b = append(append(b, v...), ", "...)
		}
	}
	b = append(append(append(b, s.conn.version(s)...), ' '), name...)
	h.SetID(message.IDVia, b)
}

// viaValue returns our element of the Via field, made once per Proxy.
func (p *Proxy) viaValue(version string) []byte {
	switch version {
	case "1.1":
		return p.via11
	case "2.0":
		return p.via20
	}
	return append([]byte(version+" "), p.Forwarding.via()...)
}

// looped reports whether the request passed this proxy before.
func (s *Session) looped() bool {
	if !s.req.Header.HasID(message.IDVia) {
		return false
	}
	name := s.proxy.Forwarding.via()
	for _, v := range s.req.Header.Values("Via") {
		for hop := range strings.SplitSeq(v, ",") {
			if f := strings.Fields(hop); len(f) >= 2 && f[1] == name {
				return true
			}
		}
	}
	return false
}

func (f *Forwarding) requestID() string {
	if f.RequestID == "" {
		return "X-Request-Id"
	}
	return f.RequestID
}

func (s *Session) addID(h *message.Header) {
	switch name := s.proxy.Forwarding.RequestID; name {
	case "-":
	case "":
		h.SetID(message.IDXRequestID, s.IDView())
	default:
		h.SetBytes(name, s.IDView())
	}
}

// newID takes the id that a trusted client sent, or makes one.
func (s *Session) newID() {
	if s.proxy != nil && s.proxy.Forwarding.trusts(s) {
		if v := s.req.Header.View(s.proxy.Forwarding.requestID()); len(v) > 0 && len(v) <= len(s.id) {
			s.idLen = copy(s.id[:], v)
			return
		}
	}
	const digits = "0123456789abcdef"
	for i := 0; i < len(s.id); i += 16 {
		for j, r := 0, rand.Uint64(); j < 16; j++ {
			s.id[i+j] = digits[r&15]
			r >>= 4
		}
	}
	s.idLen = len(s.id)
}

// admit refuses what no route may serve.
func (s *Session) admit() error {
	switch {
	case s.req.Method() == "CONNECT" && (s.proxy == nil || !s.proxy.AllowConnect):
		// RFC 9110, section 15.5.6: a 405 says what is allowed.
		s.resp.Header.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
		if s.conn.h1 != nil {
			s.CloseAfter() // what follows is never parsed
		}
		return &Error{Reason: reason.MethodRefused}
	case !s.protocolAllowed():
		return &Error{Reason: reason.ProtocolRefused}
	case s.proxy == nil:
		return &Error{Reason: reason.NoRoute}
	case s.proxy.planErr != nil:
		return &Error{Reason: reason.HookError, Err: s.proxy.planErr}
	case s.proxy.Forwarding.Via != "-" && s.looped():
		return &Error{Reason: reason.Loop}
	case s.proxy.MaxRequestBody > 0 && s.req.Length() > s.proxy.MaxRequestBody:
		return &Error{Reason: reason.BodyTooLarge}
	}
	s.proxy.budget.seen(s.began.Unix())
	return nil
}
