// Package nethttp puts net/http's types behind the two contracts of an exchange, and
// an exchange with an origin behind http.RoundTripper. It knows no session, no hook
// and no pool.
package nethttp

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/cirqueproxy/cirque/internal/hop"
	"github.com/cirqueproxy/cirque/message"
)

// Request makes a message of a request whose body has the length, -1 for unknown.
func Request(req *message.Request, r *http.Request, length int64) {
	req.SetMethod(r.Method)
	if r.Method == "" {
		req.SetMethod(http.MethodGet)
	}
	req.SetTarget(r.URL.RequestURI())
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	req.SetAuthority(host)
	CopyHeader(&req.Header, r.Header)
	hop.Remove(&req.Header, false)
	req.SetLength(length)
}

// CopyHeader adds the fields of a net/http header in a stable order.
func CopyHeader(dst *message.Header, src http.Header) {
	names := make([]string, 0, len(src))
	for name := range src {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range src[name] {
			dst.Add(name, v)
		}
	}
}

// response makes a response of a message; its body is not there yet.
func response(r *http.Request, resp *message.Response, proto string) *http.Response {
	hop.Remove(&resp.Header, false)
	text := resp.Reason()
	if text == "" {
		text = http.StatusText(resp.Status)
	}
	h := &http.Response{
		Status: strconv.Itoa(resp.Status) + " " + text, StatusCode: resp.Status, Proto: proto,
		Header: http.Header{}, ContentLength: resp.Length(), Request: r,
	}
	h.ProtoMajor, h.ProtoMinor, _ = http.ParseHTTPVersion(proto)
	for name, value := range resp.Header.All() {
		h.Header.Add(name, value)
	}
	h.Trailer = announced(h.Header)
	h.Header.Del("Trailer")
	return h
}

// announced returns the names that a Trailer field announces, without values: nil if
// there are none.
func announced(h http.Header) http.Header {
	var t http.Header
	for _, v := range h["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" {
				if t == nil {
					t = http.Header{}
				}
				t[name] = nil
			}
		}
	}
	return t
}
