// Package grpcweb serves clients of gRPC-Web, which run in browsers and cannot read
// trailers, with the help of origins that speak gRPC. It is a filter on the public
// API alone: what the client sent is made a call of gRPC, and the trailers of the
// answer become the last frame of its body.
//
// It knows both forms, binary (application/grpc-web) and text
// (application/grpc-web-text, which is base64), with any subtype. It does not look
// at messages, and it does not answer CORS preflights.
package grpcweb

import (
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/message"
)

// New returns the filter. Requests of other content types pass it as they are. Its
// peers have to speak HTTP/2. Filters behind it see gRPC; those before it see
// gRPC-Web, and no trailers.
func New() cirque.Filter {
	return cirque.Filter{
		Name:            "grpcweb",
		Request:         request,
		UpstreamRequest: upstreamRequest,
		RequestBody:     requestBody,
		Response:        response,
		ResponseBody:    responseBody,
	}
}

// call is what one session of gRPC-Web has in progress.
type call struct {
	textIn, textOut bool
	subtype         string // "+proto", or ""
	in              decoder
	inBuf           []byte // what the RequestBody hook returned last

	answering bool // the response is one of gRPC
	trailers  []byte
	out, enc  []byte // what the ResponseBody hook returned last
}

var calls = cirque.NewKey[*call]("grpcweb")

// request makes the client's request one of gRPC.
func request(s *cirque.Session) error {
	r := s.Request()
	text, subtype, ok := webType(r.Header.Get("Content-Type"))
	if !ok || r.Method() != "POST" {
		return nil
	}
	c := &call{textIn: text, textOut: text, subtype: subtype}
	if accept := r.Header.Get("Accept"); accept != "" && accept != "*/*" {
		for want := range strings.SplitSeq(accept, ",") {
			if t, _, ok := webType(want); ok {
				c.textOut = t
				break
			}
		}
	}
	calls.Set(s, c)
	r.Header.Set("Content-Type", "application/grpc"+subtype)
	r.Header.Del("X-Grpc-Web")
	if text {
		r.SetLength(-1)
	}
	return nil
}

// webType says what of gRPC-Web a content type is.
func webType(v string) (text bool, subtype string, ok bool) {
	v, _, _ = strings.Cut(v, ";")
	rest, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(v)), "application/grpc-web")
	if !ok {
		return false, "", false
	}
	rest, text = strings.CutPrefix(rest, "-text")
	if rest != "" && rest[0] != '+' {
		return false, "", false
	}
	return text, rest, true
}

// upstreamRequest says what gRPC wants to hear: that trailers arrive.
func upstreamRequest(s *cirque.Session) error {
	if calls.Get(s) != nil {
		s.UpstreamRequest().Header.Set("TE", "trailers")
	}
	return nil
}

func requestBody(s *cirque.Session, b []byte, last bool) ([]byte, error) {
	c := calls.Get(s)
	if c == nil || !c.textIn {
		return b, nil
	}
	var err error
	if c.inBuf, err = c.in.decode(c.inBuf[:0], b); err == nil && last {
		err = c.in.end()
	}
	if err != nil {
		return nil, cirque.Reject(400, err)
	}
	return c.inBuf, nil
}

// response makes the head of a response of gRPC one of gRPC-Web.
func response(s *cirque.Session) error {
	c := calls.Get(s)
	if c == nil {
		return nil
	}
	r := s.Response()
	if r.Status != 200 || !isGRPC(r.Header.Get("Content-Type")) {
		return nil // an error page of something on the way: its status says enough
	}
	c.answering = true
	c.trailers = c.trailers[:0]
	kind := "application/grpc-web"
	if c.textOut {
		kind = "application/grpc-web-text"
	}
	r.Header.Set("Content-Type", kind+c.subtype)
	// A response of trailers alone has them in its head. Which other fields are
	// trailers nobody can tell.
	for _, name := range []string{"grpc-status", "grpc-message", "grpc-status-details-bin"} {
		for _, v := range r.Header.Values(name) {
			c.trailers = appendField(c.trailers, []byte(name), []byte(v))
		}
		r.Header.Del(name)
	}
	r.Header.Del("Trailer")
	r.SetLength(-1)
	if s.Request().Header.Has("Origin") && !strings.Contains(r.Header.Get("Access-Control-Expose-Headers"), "grpc-status") {
		r.Header.Add("Access-Control-Expose-Headers", "grpc-status, grpc-message, grpc-status-details-bin")
	}
	return nil
}

func isGRPC(v string) bool {
	v, _, _ = strings.Cut(strings.ToLower(v), ";")
	v, _, _ = strings.Cut(strings.TrimSpace(v), "+")
	return v == "application/grpc"
}

func responseBody(s *cirque.Session, b []byte, last bool) ([]byte, error) {
	c := calls.Get(s)
	if c == nil || !c.answering {
		return b, nil
	}
	if last {
		c.out = append(c.out[:0], b...)
		c.out = appendTrailers(c.out, c.trailers, &s.Response().Trailer)
		s.Response().Trailer.Reset()
		b = c.out
	}
	if c.textOut {
		// Each piece is padded by itself: what came shall be readable before the
		// next piece does, and readers expect padding anywhere.
		c.enc = base64.StdEncoding.AppendEncode(c.enc[:0], b)
		b = c.enc
	}
	return b, nil
}

// trailerFlag marks a frame of trailers among those of messages.
const trailerFlag = 0x80

// appendTrailers appends the frame of trailers: the fields that came in the head, then
// those of the trailer section, as lines of HTTP/1 with names in lower case.
func appendTrailers(dst, head []byte, section *message.Header) []byte {
	dst = append(dst, trailerFlag, 0, 0, 0, 0)
	at := len(dst)
	dst = append(dst, head...)
	for i := range section.Len() {
		name, value := section.Field(i)
		dst = appendField(dst, name, value)
	}
	binary.BigEndian.PutUint32(dst[at-4:], uint32(len(dst)-at))
	return dst
}

func appendField(dst, name, value []byte) []byte {
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	dst = append(append(dst, ": "...), value...)
	return append(dst, "\r\n"...)
}
