package h1

import (
	"errors"
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

var testLimits = &Limits{HeadBytes: 4096, Fields: 10, TargetBytes: 256}

var noRules = &RequestRules{}

func TestHeadEnd(t *testing.T) {
	tests := []struct {
		name, in string
		end      int
		err      error
	}{
		{"nothing", "", -1, nil},
		{"part of a line", "GET / HT", -1, nil},
		{"a line without its LF", "GET / HTTP/1.1\r", -1, nil},
		{"no empty line yet", "GET / HTTP/1.1\r\nA: b\r\n", -1, nil},
		{"half of the empty line", "GET / HTTP/1.1\r\n\r", -1, nil},
		{"whole", "a\r\n\r\nrest\n", 5, nil},
		// RFC 9112, section 2.2: empty lines before a request line are ignored, and
		// a bare LF ends no line.
		{"empty lines first", "\r\n\r\na\r\n\r\n", 9, nil},
		{"four empty lines", "\r\n\r\n\r\n\r\na\r\n\r\n", 13, nil},
		{"five empty lines", "\r\n\r\n\r\n\r\n\r\na\r\n\r\n", -1, errEmptyLines},
		{"only empty lines", "\r\n\r\n", -1, nil},
		{"bare LF first", "\na\r\n\r\n", -1, errBareLF},
		{"bare LF for the empty line", "a\r\n\n", -1, errBareLF},
		{"LF behind a whole head", "a\r\n\r\n\n", 5, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			end, _, err := HeadEnd([]byte(tt.in), 0)
			if end != tt.end || err != tt.err {
				t.Fatalf("got %d %v, want %d %v", end, err, tt.end, tt.err)
			}
			// What comes in two pieces is the same.
			for i := range len(tt.in) {
				end, next, err := HeadEnd([]byte(tt.in[:i]), 0)
				if end < 0 && err == nil {
					end, _, err = HeadEnd([]byte(tt.in), next)
				}
				if end != tt.end || err != tt.err {
					t.Fatalf("cut at %d: got %d %v, want %d %v", i, end, err, tt.end, tt.err)
				}
			}
		})
	}
}

// TestBareLFLater: wherever the bytes are cut, a bare LF inside a head is
// refused, by HeadEnd or at the latest when the lines are parsed.
func TestBareLFLater(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"
	for i := range len(head) + 1 {
		end, next, err := HeadEnd([]byte(head[:i]), 0)
		if end < 0 && err == nil {
			end, _, err = HeadEnd([]byte(head), next)
		}
		if err == nil {
			var req message.Request
			err = ParseRequest([]byte(head[:end]), wideLimits, noRules, &req, &RequestMeta{})
		}
		if err != errBareLF {
			t.Errorf("cut at %d: got %v", i, err)
		}
	}
}

// parse parses a head given as lines.
func parseLines(lines ...string) (*message.Request, RequestMeta, error) {
	var req message.Request
	var meta RequestMeta
	head := strings.Join(lines, "\r\n") + "\r\n\r\n"
	err := ParseRequest([]byte(head), testLimits, noRules, &req, &meta)
	return &req, meta, err
}

func TestParseRequest(t *testing.T) {
	req, meta, err := parseLines("POST /a?b HTTP/1.1", "hOST: A.test:80", "x-One:\t 1 \t", "X-Two:", "Content-Length: 7")
	if err != nil {
		t.Fatal(err)
	}
	if req.Method() != "POST" || req.Target() != "/a?b" || req.Host() != "a.test" || req.Length() != 7 {
		t.Errorf("%s %s %s %d", req.Method(), req.Target(), req.Host(), req.Length())
	}
	if want := (RequestMeta{Minor: 1, KeepAlive: true, Framing: Length}); meta != want {
		t.Errorf("got %+v, want %+v", meta, want)
	}
	var got []string
	for name, value := range req.Header.All() {
		got = append(got, name+"="+value)
	}
	if s := strings.Join(got, " "); s != "hOST=A.test:80 x-One=1 X-Two= Content-Length=7" {
		t.Error(s)
	}
}

// TestDropLength: RFC 9112, section 6.3: Transfer-Encoding overrides one valid
// Content-Length, of which nothing is left; section 6.1: the connection ends.
func TestDropLength(t *testing.T) {
	for _, lines := range []string{
		"Content-Length: 7\r\nTransfer-Encoding: chunked",
		"Connection: keep-alive\r\nTransfer-Encoding: CHUNKED\r\ncontent-length: 0",
	} {
		head := []byte("POST /a HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n\r\n")
		var req message.Request
		var meta RequestMeta
		if err := ParseRequest(head, testLimits, noRules, &req, &meta); err != errBoth {
			t.Errorf("without the rule: %v", err)
		}
		req.Reset()
		meta = RequestMeta{}
		if err := ParseRequest(head, testLimits, &RequestRules{DropLength: true}, &req, &meta); err != nil {
			t.Errorf("with the rule: %v", err)
		}
		if want := (RequestMeta{Minor: 1, LengthDropped: true, Framing: Chunked}); meta != want || req.Length() != -1 || req.Header.Has("Content-Length") {
			t.Errorf("got %+v, length %d, %q", meta, req.Length(), req.Header.Get("Content-Length"))
		}
	}
}

func TestParseRequestMeta(t *testing.T) {
	const h = "Host: a.test"
	tests := []struct {
		name  string
		lines []string
		want  RequestMeta
	}{
		// RFC 9112, section 9.3: who keeps the connection.
		{"plain", []string{"GET / HTTP/1.1", h}, RequestMeta{Minor: 1, KeepAlive: true}},
		{"close", []string{"GET / HTTP/1.1", h, "Connection: a, Close"}, RequestMeta{Minor: 1}},
		{"1.0", []string{"GET / HTTP/1.0"}, RequestMeta{}},
		{"1.0 keep-alive", []string{"GET / HTTP/1.0", "Connection: Keep-Alive"}, RequestMeta{KeepAlive: true}},
		{"1.0 both", []string{"GET / HTTP/1.0", "Connection: close", "Connection: keep-alive"}, RequestMeta{}},
		// RFC 9112, section 2.3; RFC 9110, section 2.5: a higher minor version.
		{"1.9", []string{"GET / HTTP/1.9", h}, RequestMeta{Minor: 1, KeepAlive: true}},
		// RFC 9110, section 10.1.1: the expectation.
		{"expect", []string{"PUT / HTTP/1.1", h, "Expect: 100-Continue", "Content-Length: 1"}, RequestMeta{Minor: 1, KeepAlive: true, Expect100: true, Framing: Length}},
		{"expect 1.0", []string{"PUT / HTTP/1.0", "Expect: 100-continue"}, RequestMeta{}},
		{"expect nonsense 1.0", []string{"PUT / HTTP/1.0", "Expect: more"}, RequestMeta{}},
		{"upgrade", []string{"GET / HTTP/1.1", h, "Upgrade: x", "Connection: UPGRADE"}, RequestMeta{Minor: 1, KeepAlive: true, UpgradeWanted: true}},
		{"upgrade not named", []string{"GET / HTTP/1.1", h, "Upgrade: x"}, RequestMeta{Minor: 1, KeepAlive: true}},
		{"upgrade 1.0", []string{"GET / HTTP/1.0", "Upgrade: x", "Connection: upgrade"}, RequestMeta{}},
		// RFC 9112, section 6.3: framing.
		{"chunked", []string{"GET / HTTP/1.1", h, "Transfer-Encoding: Chunked"}, RequestMeta{Minor: 1, KeepAlive: true, Framing: Chunked}},
		{"length 0", []string{"GET / HTTP/1.1", h, "Content-Length: 0"}, RequestMeta{Minor: 1, KeepAlive: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got, err := parseLines(tt.lines...)
			if err != nil || got != tt.want {
				t.Errorf("got %+v %v, want %+v", got, err, tt.want)
			}
		})
	}
}

// TestBeginsRequest: RFC 9112, section 3: the last word of a request line is a
// version. RFC 9113, section 3.4.
func TestBeginsRequest(t *testing.T) {
	for in, want := range map[string]bool{
		"":                                  true,
		"GET":                               true,
		"\x00\x00\x00":                      true,
		"GET / HTTP/1.1\r\n":                true,
		"GET / HTTP/1.1\n":                  true,
		"\r\nGET / HTTP/1.0\r\n\r\n":        true,
		"GET  /a b HTTP/1.1\r\nHost: a\r\n": true,
		"GET / HTTP/3.0\r\n":                true,
		"PRI * HTTP/1.1\r\n":                true,
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n":  false,
		"INVALID CONNECTION PREFACE\r\n":    false,
		"GET /\r\n":                         false,
		"HTTP/1.1\r\n":                      false,
		"GET / HTTP/1\r\n\r\n":              false,
		"GET / http/1.1\r\n":                false,
		"\x16\x03\x01 \n":                   false,
	} {
		if got := BeginsRequest([]byte(in)); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

func TestExpectationOfOldClientIsDropped(t *testing.T) {
	// RFC 9110, section 10.1.1.
	req, _, err := parseLines("PUT / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1")
	if err != nil || req.Header.Has("Expect") {
		t.Errorf("%v %q", err, req.Header.Get("Expect"))
	}
}

func TestParseRequestTarget(t *testing.T) {
	// RFC 9112, section 3.2: the four forms; section 3.2.2: absolute-form; section
	// 3.2.3: authority-form; section 3.2.4: asterisk-form. RFC 9110, section 7.2:
	// of CONNECT the target is the authority.
	tests := []struct{ name, method, target, want, authority string }{
		{"origin-form", "GET", "/a/b?c", "/a/b?c", "h.test"},
		{"asterisk-form", "OPTIONS", "*", "*", "h.test"},
		{"absolute-form", "GET", "http://b.test:1/x?y", "/x?y", "b.test:1"},
		{"absolute-form https", "GET", "HTTPS://b.test/x", "/x", "b.test"},
		{"absolute-form without path", "GET", "http://b.test", "/", "b.test"},
		{"absolute-form query only", "GET", "http://b.test?q", "/?q", "b.test"},
		{"absolute-form OPTIONS", "OPTIONS", "http://b.test", "*", "b.test"},
		{"absolute-form OPTIONS with path", "OPTIONS", "http://b.test/", "/", "b.test"},
		{"absolute-form IPv6", "GET", "http://[::1]:8/x", "/x", "[::1]:8"},
		{"authority-form", "CONNECT", "c.test:443", "c.test:443", "c.test:443"},
		{"authority-form IPv6", "CONNECT", "[::1]:443", "[::1]:443", "[::1]:443"},
		{"asterisk-form for GET", "GET", "*", "", ""},
		{"authority-form for GET", "GET", "c.test:443", "", ""},
		{"CONNECT without port", "CONNECT", "c.test", "", ""},
		{"CONNECT with empty port", "CONNECT", "c.test:", "", ""},
		{"CONNECT with two colons", "CONNECT", "c.test::1", "", ""},
		{"CONNECT with a path", "CONNECT", "/c:1", "", ""},
		{"CONNECT without host", "CONNECT", ":443", "", ""},
		{"no slash", "GET", "a", "", ""},
		{"fragment", "GET", "/a#b", "", ""},
		{"other scheme", "GET", "ftp://b.test/", "", ""},
		{"userinfo", "GET", "http://u@b.test/", "", ""},
		{"empty host", "GET", "http://:80/", "", ""},
		{"backslash in host", "GET", "http://b.test\\x/", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, _, err := parseLines(tt.method+" "+tt.target+" HTTP/1.1", "Host: h.test")
			switch {
			case tt.want == "" && err == nil:
				t.Errorf("accepted as %s", req.Target())
			case tt.want != "" && (err != nil || req.Target() != tt.want || req.Authority() != tt.authority):
				t.Errorf("got %s %s %v, want %s %s", req.Target(), req.Authority(), err, tt.want, tt.authority)
			}
		})
	}
}

func TestAuthority(t *testing.T) {
	// RFC 9110, section 4.2.1: no empty host; section 4.2.4: no userinfo.
	valid := []string{"a", "a.test", "a.test.", "a.test:", "a.test:1", "a.test:65535", "1.2.3.4", "a_b", "a,b", "a%20b", "[::1]", "[::ffff:1.2.3.4]:80", "!$&'()*+;=~-"}
	for _, v := range valid {
		if !ascii.IsAuthority([]byte(v)) {
			t.Errorf("%q is refused", v)
		}
	}
	invalid := []string{"", ":", ":80", "a b", "a/b", "a?b", "a#b", "a@b", "a:b", "a:1:2", "a:65536", "a:000001", "a:-1", "[", "[]", "[:", "[::1", "[::1]x", "[::1]:x", "[v1.a]", "[::1%25eth0]", "a[b]", "\"a\"", "caf\xe9", "a\\b", "<a>"}
	for _, v := range invalid {
		if ascii.IsAuthority([]byte(v)) {
			t.Errorf("%q is accepted", v)
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	const h = "Host: a.test"
	many := make([]string, 12)
	for i := range many {
		many[i] = "X: 1"
	}
	many[0], many[1] = "GET / HTTP/1.1", h
	tests := []struct {
		name   string
		lines  []string
		status int
		reason reason.Reason
	}{
		{"no method", []string{" / HTTP/1.1", h}, 400, reason.BadRequest},
		{"method alone", []string{"GET", h}, 400, reason.BadRequest},
		{"no version", []string{"GET /", h}, 400, reason.BadRequest},
		{"empty target", []string{"GET  HTTP/1.1", h}, 400, reason.BadRequest},
		{"version 2", []string{"GET / HTTP/2.0", h}, 505, reason.BadVersion},
		{"version x", []string{"GET / HTTP/x.1", h}, 400, reason.BadRequest},
		{"version 1.x", []string{"GET / HTTP/1.x", h}, 400, reason.BadRequest},
		{"target too long", []string{"GET /" + strings.Repeat("a", 256) + " HTTP/1.1", h}, 414, reason.TargetTooLong},
		{"head too large", []string{"GET / HTTP/1.1", h, "X: " + strings.Repeat("a", 4096)}, 431, reason.HeadTooLarge},
		{"fields too many", many, 431, reason.HeadTooLarge},
		{"no host", []string{"GET / HTTP/1.1"}, 400, reason.BadHost},
		{"two hosts", []string{"GET / HTTP/1.1", h, h}, 400, reason.BadHost},
		{"two hosts 1.0", []string{"GET / HTTP/1.0", h, h}, 400, reason.BadHost},
		{"bad host 1.0", []string{"GET / HTTP/1.0", "Host: /"}, 400, reason.BadHost},
		// RFC 9112, section 5.2: no folding; section 5.1: no space before the colon.
		{"fold", []string{"GET / HTTP/1.1", h, " x"}, 400, reason.BadRequest},
		{"space before colon", []string{"GET / HTTP/1.1", "Host : a"}, 400, reason.BadRequest},
		{"no colon", []string{"GET / HTTP/1.1", "Host"}, 400, reason.BadRequest},
		{"empty name", []string{"GET / HTTP/1.1", h, ":x"}, 400, reason.BadRequest},
		{"CR in value", []string{"GET / HTTP/1.1", h, "X: a\rb"}, 400, reason.BadRequest},
		{"DEL in value", []string{"GET / HTTP/1.1", h, "X: a\x7fb"}, 400, reason.BadRequest},
		// RFC 9112, section 6.3, and section 6.1.
		{"both", []string{"GET / HTTP/1.1", h, "Content-Length: 1", "Transfer-Encoding: chunked"}, 400, reason.BadFraming},
		{"coding in 1.0", []string{"GET / HTTP/1.0", "Transfer-Encoding: chunked"}, 400, reason.BadFraming},
		{"two codings", []string{"GET / HTTP/1.1", h, "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"}, 400, reason.BadFraming},
		{"unknown coding", []string{"GET / HTTP/1.1", h, "Transfer-Encoding: gzip,chunked"}, 501, reason.BadFraming},
		{"chunked with comma", []string{"GET / HTTP/1.1", h, "Transfer-Encoding: chunked,"}, 400, reason.BadFraming},
		{"two lengths", []string{"GET / HTTP/1.1", h, "Content-Length: 1", "Content-Length: 1"}, 400, reason.BadFraming},
		{"bad length", []string{"GET / HTTP/1.1", h, "Content-Length: 1x"}, 400, reason.BadFraming},
		{"unknown expectation", []string{"GET / HTTP/1.1", h, "Expect: x"}, 417, reason.BadExpect},
		{"empty expectation", []string{"GET / HTTP/1.1", h, "Expect:"}, 417, reason.BadExpect},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := parseLines(tt.lines...)
			var e *Error
			if !errors.As(err, &e) || e.Status != tt.status || e.Reason != tt.reason || e.Error() == "" {
				t.Errorf("got %#v, want %d %s", err, tt.status, tt.reason)
			}
		})
	}
}

// TestParseRequestLeavesNothing parses one request after another into the same
// message: nothing of the first shows in the second.
func TestParseRequestLeavesNothing(t *testing.T) {
	var req message.Request
	var meta RequestMeta
	for _, head := range []string{
		"POST http://b.test/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: 1\r\nConnection: close\r\n\r\n",
		"PUT /y HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: c.test\r\n\r\n",
	} {
		req.Reset()
		meta = RequestMeta{}
		if err := ParseRequest([]byte(head), testLimits, noRules, &req, &meta); err != nil {
			t.Fatal(err)
		}
	}
	if req.Length() != 0 || req.Host() != "c.test" || req.Target() != "/" || req.Header.Len() != 1 ||
		meta != (RequestMeta{Minor: 1, KeepAlive: true}) {
		t.Errorf("%d %s %s %d %+v", req.Length(), req.Host(), req.Target(), req.Header.Len(), meta)
	}
}

func TestFramingString(t *testing.T) {
	for f, want := range map[Framing]string{None: "none", Length: "length", Chunked: "chunked", Close: "close"} {
		if f.String() != want {
			t.Errorf("%d is %q", f, f)
		}
	}
}
