package h1

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// decoded is what became of a chunked body.
type decoded struct {
	payload string
	trailer string
	rest    string // what follows the body
	done    bool
	err     error
}

// decodeAll gives the pieces to a decoder as a connection would: what was not
// consumed comes again in front of the next piece.
func decodeAll(pieces ...[]byte) decoded {
	var c ChunkDecoder
	var trailer message.Header
	var d decoded
	var held []byte
	for _, p := range pieces {
		held = append(held, p...)
		if d.done || d.err != nil {
			continue
		}
		n, consumed, done, err := c.Decode(held, &trailer)
		d.payload += string(held[:n])
		held = slices.Clone(held[consumed:])
		d.done, d.err = done, err
	}
	if d.done {
		d.rest = string(held)
	}
	for name, value := range trailer.All() {
		d.trailer += name + "=" + value + ";"
	}
	return d
}

var chunkTests = []struct {
	name, in string
	want     decoded
}{
	// RFC 9112, section 7.1: sizes, data, the last chunk.
	{"empty body", "0\r\n\r\nrest", decoded{"", "", "rest", true, nil}},
	{"two chunks", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", decoded{"hello world", "", "", true, nil}},
	{"hexadecimal", "A\r\n0123456789\r\n0b\r\n0123456789a\r\n00\r\n\r\n", decoded{"01234567890123456789a", "", "", true, nil}},
	{"not yet", "5\r\nhel", decoded{"hel", "", "", false, nil}},
	{"not yet at the last chunk", "0\r\n", decoded{"", "", "", false, nil}},
	{"fifteen digits", "00000000000000a\r\n0123456789\r\n0\r\n\r\n", decoded{"0123456789", "", "", true, nil}},
	{"sixteen digits", "000000000000000a\r\n0123456789\r\n0\r\n\r\n", decoded{"", "", "", false, errChunkSize}},
	{"no digit", "\r\n", decoded{"", "", "", false, errChunkSize}},
	{"no digit before extension", ";a\r\n", decoded{"", "", "", false, errChunkSize}},
	{"sign", "+1\r\n", decoded{"", "", "", false, errChunkSize}},
	{"prefix", "0x1\r\n", decoded{"", "", "", false, errChunkSize}},
	{"space first", " 1\r\n", decoded{"", "", "", false, errChunkSize}},
	{"space last", "1 \r\n", decoded{"", "", "", false, errChunkSize}},
	{"LF", "1\n", decoded{"", "", "", false, errChunkSize}},
	{"CR alone", "1\rx", decoded{"", "", "", false, errChunkSize}},
	{"data too long", "1\r\nab\r\n", decoded{"a", "", "", false, errChunkEnd}},
	{"data ends with LF", "1\r\na\n", decoded{"a", "", "", false, errChunkEnd}},
	{"data ends with CR", "1\r\na\rx", decoded{"a", "", "", false, errChunkEnd}},
	// RFC 9112, section 7.1.1: extensions.
	{"extension", "1;a=\"b c\";d\r\nx\r\n0 ;e\r\n\r\n", decoded{"x", "", "", true, nil}},
	{"extension after spaces", "1 \t;a\r\nx\r\n0\r\n\r\n", decoded{"x", "", "", true, nil}},
	{"extension with LF", "1;a\nb\r\n", decoded{"", "", "", false, errChunkExt}},
	{"extension with CR", "1;a\rb\r\n", decoded{"", "", "", false, errChunkSize}},
	{"extension with NUL", "1;a\x00\r\n", decoded{"", "", "", false, errChunkExt}},
	{"extension as long as may be", "1;" + strings.Repeat("a", maxExtension) + "\r\nx\r\n0\r\n\r\n", decoded{"x", "", "", true, nil}},
	{"extension too long", "1;" + strings.Repeat("a", maxExtension+1) + "\r\n", decoded{"", "", "", false, errChunkExt}},
	{"spaces without end", "1" + strings.Repeat(" ", maxExtension+2), decoded{"", "", "", false, errChunkExt}},
	// RFC 9112, section 7.1.2; RFC 9110, section 6.5.1: trailer sections.
	{"trailer", "0\r\nA: 1\r\nb:\t2 \r\nContent-Length: 5\r\nHost: x\r\n\r\nrest", decoded{"", "A=1;b=2;", "rest", true, nil}},
	{"trailer not whole", "0\r\nA: 1\r\n", decoded{"", "A=1;", "", false, nil}},
	{"trailer with LF", "0\r\nA: 1\n", decoded{"", "", "", false, errTrailerField}},
	{"trailer ends with LF", "0\r\n\n", decoded{"", "", "", false, errTrailerField}},
	{"trailer without colon", "0\r\nA\r\n", decoded{"", "", "", false, errTrailerField}},
	{"trailer with space before colon", "0\r\nA : 1\r\n", decoded{"", "", "", false, errTrailerField}},
	{"trailer folded", "0\r\nA: 1\r\n 2\r\n", decoded{"", "A=1;", "", false, errTrailerField}},
	{"trailer with CR", "0\r\nA: 1\r2\r\n", decoded{"", "", "", false, errTrailerField}},
	{"trailer too long", "0\r\nA: " + strings.Repeat("a", maxTrailer), decoded{"", "", "", false, errTrailerSize}},
}

func TestChunkDecoder(t *testing.T) {
	for _, tt := range chunkTests {
		t.Run(tt.name, func(t *testing.T) {
			if got := decodeAll([]byte(tt.in)); got != tt.want {
				t.Fatalf("got %+v, want %+v", got, tt.want)
			}
			for i := range min(len(tt.in), 100) {
				if got := decodeAll([]byte(tt.in[:i]), []byte(tt.in[i:])); got != tt.want {
					t.Fatalf("cut at %d: got %+v, want %+v", i, got, tt.want)
				}
			}
			if len(tt.in) > 1000 {
				return
			}
			var single [][]byte
			for i := range len(tt.in) {
				single = append(single, []byte{tt.in[i]})
			}
			if got := decodeAll(single...); got != tt.want {
				t.Fatalf("byte by byte: got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestChunkDecoderTrailerFields(t *testing.T) {
	const section = "0\r\n%s\r\n"
	if d := decodeAll(fmt.Appendf(nil, section, strings.Repeat("A: 1\r\n", maxTrailerFields))); !d.done || d.err != nil {
		t.Errorf("as many as may be: %+v", d.err)
	}
	d := decodeAll(fmt.Appendf(nil, section, strings.Repeat("A: 1\r\n", maxTrailerFields+1)))
	var e *Error
	if !errors.As(d.err, &e) || e.Reason != reason.TrailerTooLarge || e.Status != 431 {
		t.Errorf("one more: %+v", d.err)
	}
}

// TestChunkDecoderExtensionBudget: an honest sender of many chunks with short
// extensions is served, however many; one of mere extensions is not.
func TestChunkDecoderExtensionBudget(t *testing.T) {
	chunk := "40;e=0123456789\r\n" + strings.Repeat("x", 64) + "\r\n"
	if d := decodeAll([]byte(strings.Repeat(chunk, 4*maxExtension/16) + "0\r\n\r\n")); d.err != nil || !d.done {
		t.Errorf("many chunks: %v", d.err)
	}
	chunk = "1;e=0123456789\r\nx\r\n"
	if d := decodeAll([]byte(strings.Repeat(chunk, maxExtension) + "0\r\n\r\n")); d.err != errChunkExt {
		t.Errorf("mere extensions: %v", d.err)
	}
}

// TestChunkDecoderSkip: data that is moved past the decoder counts as decoded.
func TestChunkDecoderSkip(t *testing.T) {
	var c ChunkDecoder
	if _, consumed, _, err := c.Decode([]byte("a\r\n"), nil); consumed != 3 || err != nil || c.ChunkLeft() != 10 {
		t.Fatalf("%d %v, %d left", consumed, err, c.ChunkLeft())
	}
	c.Skip(4)
	if c.ChunkLeft() != 6 {
		t.Errorf("%d left", c.ChunkLeft())
	}
	c.Skip(6)
	if c.ChunkLeft() != 0 {
		t.Errorf("%d left", c.ChunkLeft())
	}
	if n, _, done, err := c.Decode([]byte("\r\n0\r\n\r\n"), nil); n != 0 || !done || err != nil {
		t.Errorf("%d %t %v", n, done, err)
	}
	c.Reset()
	if n, _, done, err := c.Decode([]byte("1\r\nx\r\n0\r\n\r\n"), nil); n != 1 || !done || err != nil {
		t.Errorf("after Reset: %d %t %v", n, done, err)
	}
}

// TestChunkDecoderErrorIsFinal: what follows an error is not looked at.
func TestChunkDecoderErrorIsFinal(t *testing.T) {
	var c ChunkDecoder
	if _, _, _, err := c.Decode([]byte("x"), nil); err != errChunkSize {
		t.Fatal(err)
	}
	if n, consumed, done, err := c.Decode([]byte("1\r\na\r\n0\r\n\r\n"), nil); n != 0 || consumed != 0 || done || err != errChunkSize {
		t.Errorf("%d %d %t %v", n, consumed, done, err)
	}
}
