package ascii

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestClasses(t *testing.T) {
	const alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	// RFC 9110, section 5.6.2: tchar.
	token := alnum + "!#$%&'*+-.^_`|~"
	// RFC 3986, section 3.2.2: reg-name.
	host := alnum + "-._~%!$&'()*+,;="
	for i := range 256 {
		c := byte(i)
		if got, want := IsTokenByte(c), strings.IndexByte(token, c) >= 0; got != want {
			t.Errorf("%q in a token: %t", c, got)
		}
		if got, want := IsHostByte(c), strings.IndexByte(host, c) >= 0; got != want {
			t.Errorf("%q in a host: %t", c, got)
		}
		// RFC 9110, section 5.5: no control character in a value but the tab.
		if got, want := IsValue([]byte{c}), c == '\t' || (c >= ' ' && c != 0x7f); got != want {
			t.Errorf("%q in a value: %t", c, got)
		}
		if got, want := IsHex(c), strings.IndexByte("0123456789abcdefABCDEF", c) >= 0; got != want {
			t.Errorf("%q as a digit: %t", c, got)
		}
		want := c
		if c >= 'A' && c <= 'Z' {
			want = c + 32
		}
		if Lower(c) != want {
			t.Errorf("%q in lower case is %q", c, Lower(c))
		}
	}
	for i, c := range "0123456789abcdef" {
		if Unhex(byte(c)) != byte(i) || Unhex(bytes.ToUpper([]byte{byte(c)})[0]) != byte(i) {
			t.Errorf("%q is %d", c, Unhex(byte(c)))
		}
	}
}

// TestWords: what looks at eight bytes at a time says what a plain loop says,
// whatever stands at whatever place beside whatever neighbours.
func TestWords(t *testing.T) {
	odd := []byte{0, 1, '\t', '\n', '\r', 0x1f, ' ', '!', '~', 0x7f, 0x80, 0xa0, 0xff}
	for size := range 20 {
		for _, fill := range []byte{'a', ' ', 0x21, 0x80, 0xff} {
			for at := range size {
				for _, c := range odd {
					for _, next := range odd {
						b := bytes.Repeat([]byte{fill}, size)
						b[at] = c
						if at+1 < size {
							b[at+1] = next
						}
						checkWords(t, b)
					}
				}
			}
		}
	}
}

func checkWords(t *testing.T, b []byte) {
	t.Helper()
	bad := func(c byte) bool { return c != '\t' && (c < ' ' || c == 0x7f) }
	if got, want := IsValue(b), !slices.ContainsFunc(b, bad); got != want || IsValue(string(b)) != want {
		t.Fatalf("%q as a value: %t", b, got)
	}
	want := slices.IndexFunc(b, func(c byte) bool { return c <= ' ' || c == 0x7f })
	if want < 0 {
		want = len(b)
	}
	if got := PlainLen(b); got != want {
		t.Fatalf("%q is plain for %d bytes, want %d", b, got, want)
	}
}

func TestTokens(t *testing.T) {
	for s, want := range map[string]int{"": 0, "a": 1, "abc def": 3, ":": 0, "a\x00": 1, "x-Y_1": 5, "\xe9": 0} {
		if got := TokenLen([]byte(s)); got != want {
			t.Errorf("%q: %d", s, got)
		}
		if IsToken(s) != (want == len(s) && want > 0) || IsToken([]byte(s)) != IsToken(s) {
			t.Errorf("%q is a token: %t", s, IsToken(s))
		}
	}
}

func TestEqualFold(t *testing.T) {
	for _, p := range [][2]string{{"", ""}, {"a", "A"}, {"Content-Length", "cONTENT-lENGTH"}, {"[", "["}} {
		if !EqualFold(p[0], p[1]) || !EqualFold([]byte(p[0]), p[1]) {
			t.Errorf("%q differ", p)
		}
	}
	// Only letters of ASCII have a case: no Kelvin sign, and no bit that is
	// simply turned over.
	for _, p := range [][2]string{{"a", "b"}, {"a", ""}, {"[", "{"}, {"@", "`"}, {"k", "\u212a"}, {"\xc9", "\xe9"}, {"_", "\x7f"}} {
		if EqualFold(p[0], p[1]) {
			t.Errorf("%q are equal", p)
		}
	}
}

func TestLists(t *testing.T) {
	// RFC 9110, section 5.6.3: optional white space is spaces and tabs.
	for in, want := range map[string]string{"": "", " \t": "", " a\t": "a", "a b": "a b", "\va": "\va"} {
		if got := TrimOWS([]byte(in)); string(got) != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	// RFC 9110, section 5.6.1: elements, some of them empty.
	for in, want := range map[string][]string{
		"": nil, "a": {"a"}, " a ,b": {"a", "b"}, ",a,,b": {"", "a", "", "b"}, "a,": {"a"}, ",": {""},
	} {
		var got []string
		for rest := []byte(in); len(rest) > 0; {
			var e []byte
			e, rest = NextElement(rest)
			got = append(got, string(e))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for token, want := range map[string]bool{"close": true, "KEEP-alive": true, "x": false, "keep": false} {
		if HasToken([]byte("Close , ,keep-Alive"), token) != want {
			t.Errorf("%q: %t", token, !want)
		}
	}
}

func TestParseLength(t *testing.T) {
	// RFC 9110, section 8.6: digits only, no overflow.
	for s, want := range map[string]int64{
		"0": 0, "7": 7, "0007": 7, "999999999999999999": 999999999999999999,
		"": -1, "-1": -1, "+1": -1, "1 ": -1, " 1": -1, "0x1": -1, "1.0": -1, "1e3": -1, "1,1": -1, "9999999999999999999": -1,
		"\xd9\xa1": -1, "1_0": -1,
	} {
		if got := ParseLength([]byte(s)); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
