package h1

import (
	"errors"
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

func parseResponse(method string, rules ResponseRules, lines ...string) (*message.Response, ResponseMeta, error) {
	var resp message.Response
	var meta ResponseMeta
	head := strings.Join(lines, "\r\n") + "\r\n\r\n"
	err := ParseResponse([]byte(head), testLimits, method, &rules, &resp, &meta)
	return &resp, meta, err
}

func TestParseResponse(t *testing.T) {
	// RFC 9112, section 6.3: how the end of a body is known.
	tests := []struct {
		name, method string
		lines        []string
		want         ResponseMeta
		length       int64
	}{
		{"length", "GET", []string{"HTTP/1.1 200 OK", "Content-Length: 5"}, ResponseMeta{Minor: 1, KeepAlive: true, Framing: Length}, 5},
		{"length 0", "GET", []string{"HTTP/1.1 200 OK", "Content-Length: 0"}, ResponseMeta{Minor: 1, KeepAlive: true}, 0},
		{"chunked", "GET", []string{"HTTP/1.1 200 OK", "Transfer-Encoding: CHUNKED"}, ResponseMeta{Minor: 1, KeepAlive: true, Framing: Chunked}, -1},
		{"neither", "GET", []string{"HTTP/1.1 200 OK"}, ResponseMeta{Minor: 1, Framing: Close}, -1},
		{"close", "GET", []string{"HTTP/1.1 200 OK", "Connection: close", "Content-Length: 5"}, ResponseMeta{Minor: 1, Framing: Length}, 5},
		{"1.0", "GET", []string{"HTTP/1.0 200 OK", "Content-Length: 5"}, ResponseMeta{Framing: Length}, 5},
		{"1.0 keep-alive", "GET", []string{"HTTP/1.0 200 OK", "Content-Length: 5", "Connection: keep-alive"}, ResponseMeta{KeepAlive: true, Framing: Length}, 5},
		{"HEAD", "HEAD", []string{"HTTP/1.1 200 OK", "Content-Length: 5"}, ResponseMeta{Minor: 1, KeepAlive: true}, 5},
		{"HEAD chunked", "HEAD", []string{"HTTP/1.1 200 OK", "Transfer-Encoding: chunked"}, ResponseMeta{Minor: 1, KeepAlive: true}, -1},
		{"204", "GET", []string{"HTTP/1.1 204 No Content", "Content-Length: 5"}, ResponseMeta{Minor: 1, KeepAlive: true}, 0},
		{"304", "GET", []string{"HTTP/1.1 304 Not Modified", "Content-Length: 5"}, ResponseMeta{Minor: 1, KeepAlive: true}, 5},
		{"304 without", "GET", []string{"HTTP/1.1 304 Not Modified"}, ResponseMeta{Minor: 1, KeepAlive: true}, -1},
		{"100", "GET", []string{"HTTP/1.1 100 Continue"}, ResponseMeta{Minor: 1, KeepAlive: true}, 0},
		{"101", "GET", []string{"HTTP/1.1 101 Switching Protocols", "Upgrade: x"}, ResponseMeta{Minor: 1, KeepAlive: true, Upgraded: true}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, meta, err := parseResponse(tt.method, ResponseRules{}, tt.lines...)
			if err != nil || meta != tt.want || resp.Length() != tt.length {
				t.Errorf("got %+v %d %v, want %+v %d", meta, resp.Length(), err, tt.want, tt.length)
			}
		})
	}
}

func TestStatusLine(t *testing.T) {
	tests := []struct {
		line   string
		status int // 0: refused
		reason string
	}{
		{"HTTP/1.1 200 OK", 200, "OK"},
		{"HTTP/1.1 200 ", 200, ""},
		{"HTTP/1.1 200", 200, ""},
		{"HTTP/1.1 200 Two  Words\t\xff", 200, "Two  Words\t\xff"},
		// RFC 9110, section 15: codes beyond 599 exist and pass.
		{"HTTP/1.1 999 Own", 999, "Own"},
		{"HTTP/1.1 099 Low", 0, ""},
		{"HTTP/1.1 20 OK", 0, ""},
		{"HTTP/1.1 2000", 0, ""},
		{"HTTP/1.1 -20 OK", 0, ""},
		{"HTTP/1.1  200 OK", 0, ""},
		{"HTTP/1.1\t200 OK", 0, ""},
		{"HTTP/1.1 200\tOK", 0, ""},
		{"HTTP/2.0 200 OK", 0, ""},
		{"HTTP/1 200 OK", 0, ""},
		{"HTTPS/1.1 200 OK", 0, ""},
		{"HTTP/1.1 200 O\x00K", 0, ""},
		{" HTTP/1.1 200 OK", 0, ""},
		{"", 0, ""},
	}
	for _, tt := range tests {
		resp, _, err := parseResponse("GET", ResponseRules{}, tt.line, "Content-Length: 0")
		var e *Error
		switch {
		case tt.status == 0 && (!errors.As(err, &e) || e.Reason != reason.UpstreamBadHead || e.Status != 502):
			t.Errorf("%q: got %v, want a refusal", tt.line, err)
		case tt.status != 0 && (err != nil || resp.Status != tt.status || resp.Reason() != tt.reason):
			t.Errorf("%q: got %d %q %v", tt.line, resp.Status, resp.Reason(), err)
		}
	}
}

func TestParseResponseRefuses(t *testing.T) {
	tests := []struct {
		name   string
		lines  []string
		reason reason.Reason
	}{
		{"both", []string{"Content-Length: 5", "Transfer-Encoding: chunked"}, reason.UpstreamBadFraming},
		{"both on 204", []string{"Content-Length: 5", "Transfer-Encoding: chunked"}, reason.UpstreamBadFraming},
		{"two lengths", []string{"Content-Length: 5", "Content-Length: 5"}, reason.UpstreamBadFraming},
		{"bad length", []string{"Content-Length: five"}, reason.UpstreamBadFraming},
		{"unknown coding", []string{"Transfer-Encoding: gzip, chunked"}, reason.UpstreamBadFraming},
		{"two codings", []string{"Transfer-Encoding: chunked", "Transfer-Encoding: chunked"}, reason.UpstreamBadFraming},
		{"too large", []string{"X: " + strings.Repeat("a", 4096)}, reason.UpstreamHeadTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := parseResponse("GET", ResponseRules{}, append([]string{"HTTP/1.1 200 OK"}, tt.lines...)...)
			var e *Error
			if !errors.As(err, &e) || e.Reason != tt.reason || e.Status != 502 {
				t.Errorf("got %v, want %s", err, tt.reason)
			}
		})
	}
	// RFC 9112, section 6.1: Transfer-Encoding in HTTP/1.0 is faulty.
	if _, _, err := parseResponse("GET", ResponseRules{}, "HTTP/1.0 200 OK", "Transfer-Encoding: chunked"); err != errUpOldCoding {
		t.Errorf("chunked in HTTP/1.0: %v", err)
	}
}

func TestAcceptBadLength(t *testing.T) {
	lenient := ResponseRules{AcceptBadLength: true}
	for _, lines := range [][]string{
		{"HTTP/1.1 200 OK", "Content-Length: x", "X: 1"},
		{"HTTP/1.1 200 OK", "Content-Length: 5", "X: 1", "Content-Length: 5"},
	} {
		resp, meta, err := parseResponse("GET", lenient, lines...)
		if err != nil || meta.Framing != Close || meta.KeepAlive || resp.Length() != -1 || resp.Header.Has("Content-Length") || resp.Header.Len() != 1 {
			t.Errorf("%q: %v %+v %d", lines, err, meta, resp.Length())
		}
	}
	// With chunked there is no lenient reading.
	if _, _, err := parseResponse("GET", lenient, "HTTP/1.1 200 OK", "Content-Length: x", "Transfer-Encoding: chunked"); err != errUpBoth {
		t.Errorf("got %v", err)
	}
}
