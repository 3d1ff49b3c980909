package accesslog

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cirqueproxy/cirque"
)

// RFC 8259, section 7: quotes, backslashes and control characters are escaped.
func TestAppendQuoted(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"empty", "", `""`},
		{"plain", "abc", `"abc"`},
		{"quote and backslash", `a"b\c`, `"a\"b\\c"`},
		{"line break and NUL", "a\r\nb\x00", `"a\u000d\u000ab\u0000"`},
		{"delete", "a\x7fb", `"a\u007fb"`},
		{"utf-8", "grün €", `"grün €"`},
		{"not utf-8", "a\xffb\xc3", `"a\ufffdb\ufffd"`},
		{"the replacement character itself", "\ufffd", "\"\ufffd\""},
		{"overlong", "\xc0\xaf", `"\ufffd\ufffd"`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(appendQuoted(nil, tc.in)); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if got := string(appendQuoted(nil, []byte(tc.in))); got != tc.want {
				t.Errorf("bytes: got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestAppendPlain(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"empty", "", "-"},
		{"plain", "a b~", "a b~"},
		{"quote and backslash", `a"b\c`, `a\x22b\x5cc`},
		{"line break", "a\nb", `a\x0ab`},
		{"escape sequence of a terminal", "\x1b[2J", `\x1b[2J`},
		{"delete and not ASCII", "\x7fü", `\x7f\xc3\xbc`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(appendPlain(nil, tc.in)); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestValuesAreCut(t *testing.T) {
	long := strings.Repeat("\x01", maxValue+10)
	if n := len(appendQuoted(nil, long)); n != 6*maxValue+2 {
		t.Errorf("a JSON value of %d bytes", n)
	}
	if n := len(appendPlain(nil, long)); n != 4*maxValue {
		t.Errorf("a text value of %d bytes", n)
	}
	// A cut inside a character leaves valid UTF-8.
	if got := appendQuoted(nil, strings.Repeat("x", maxValue-1)+"ü"); !utf8.Valid(got) || !json.Valid(got) {
		t.Error("the cut value is not valid")
	}
}

func TestAppendSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1: "0.000000", 1500: "0.000001", time.Second: "1.000000", 61*time.Second + 234567*time.Microsecond: "61.234567",
	} {
		if got := string(appendSeconds(nil, d)); got != want {
			t.Errorf("%d ns = %s, want %s", d, got, want)
		}
	}
}

// FuzzLine puts what a client and an origin may send anywhere into a session
// that comes through the door of net/http, which checks less than our own
// parser, and looks at each format's line.
func FuzzLine(f *testing.F) {
	f.Add("GET", "/p?q", "host", "agent", "value")
	f.Add("G\"T", "/\x7f", "h\n\"x", "\xff\xfe", "\r\nforged 200\n")
	f.Add("", "*", "[::1]:80", `\u0000"\`, "\u2028é\x00")
	formats := []string{"json", "common", "combined", `"$http_x" $sent_http_x $path $query $host $request_id $filter`}
	f.Fuzz(func(t *testing.T, method, target, host, agent, value string) {
		for _, format := range formats {
			o := Options{Format: format}
			if format == "json" {
				o.Fields = append(Variables(), "http_x", "sent_http_x")
			}
			checkLine(t, o, method, target, host, agent, value)
		}
	})
}

func checkLine(t *testing.T, o Options, method, target, host, agent, value string) {
	var out buffer
	o.Output = &out
	l := newLog(t, o)
	p := local()
	p.Name, p.LogError = value, func(*cirque.Session, *cirque.Error) {}
	p.Filters = append([]cirque.Filter{l.Filter(), {Name: "set", Response: func(s *cirque.Session) error {
		s.Response().Header.Set("X", value)
		return nil
	}}}, p.Filters...)
	r := &http.Request{
		Method: method, Host: host, URL: &url.URL{Path: target, RawQuery: value}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:     http.Header{"User-Agent": {agent}, "X": {value}, "Referer": {agent}, "X-Request-Id": {value}},
		RemoteAddr: "192.0.2.1:1", RequestURI: target, Body: http.NoBody,
	}
	func() {
		defer func() { _ = recover() }() // the door's way to abort
		p.ServeHTTP(httptest.NewRecorder(), r)
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	line, ok := strings.CutSuffix(out.String(), "\n")
	if !ok {
		t.Fatalf("no line: %q", out.String())
	}
	for i := range len(line) {
		if c := line[i]; c < ' ' || c == 0x7f || (o.Format != "json" && c > '~') {
			t.Fatalf("byte %#x in the line %q", c, line)
		}
	}
	if o.Format == "json" && (!json.Valid([]byte(line)) || !utf8.ValidString(line)) {
		t.Fatalf("not JSON: %q", line)
	}
	if o.Format == "combined" && strings.Count(line, `"`) != 6 {
		t.Fatalf("a value brought a quote: %q", line)
	}
}
