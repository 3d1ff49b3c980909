package accesslog

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// maxValue bounds one value of a line in bytes, before it is escaped: without
// it a client could fill the disk with a few requests whose fields are as long
// as the limit of a head. A longer value is cut.
const maxValue = 16 << 10

// append appends a session's line to dst.
func (f *format) append(dst []byte, n *line) []byte {
	for i := range f.ops {
		o := &f.ops[i]
		dst = append(dst, o.before...)
		if f.json {
			dst = o.v.appendJSON(dst, n)
		} else {
			dst = o.v.appendText(dst, n)
		}
	}
	return append(dst, f.tail...)
}

func (v *variable) appendJSON(dst []byte, n *line) []byte {
	switch {
	case v.num != nil:
		return strconv.AppendInt(dst, v.num(n), 10)
	case v.dur != nil:
		if d := v.dur(n); d > 0 {
			return appendSeconds(dst, d)
		}
		return append(dst, "null"...)
	case v.flag != nil:
		return strconv.AppendBool(dst, v.flag(n))
	case v.raw != nil:
		return append(v.raw(append(dst, '"'), n), '"')
	case v.text != nil:
		return appendQuoted(dst, v.text(n))
	}
	return appendQuoted(dst, v.view(n))
}

func (v *variable) appendText(dst []byte, n *line) []byte {
	switch {
	case v.num != nil:
		return strconv.AppendInt(dst, v.num(n), 10)
	case v.dur != nil:
		if d := v.dur(n); d > 0 {
			return appendSeconds(dst, d)
		}
		return append(dst, '-')
	case v.flag != nil:
		return strconv.AppendBool(dst, v.flag(n))
	case v.raw != nil:
		return v.raw(dst, n)
	case v.text != nil:
		return appendPlain(dst, v.text(n))
	}
	return appendPlain(dst, v.view(n))
}

// appendSeconds appends a positive duration in seconds, to the microsecond.
func appendSeconds(dst []byte, d time.Duration) []byte {
	us := d.Microseconds()
	dst = strconv.AppendInt(dst, us/1e6, 10)
	dst = append(dst, '.')
	for unit := int64(1e5); unit > 0; unit /= 10 {
		dst = append(dst, byte('0'+us/unit%10))
	}
	return dst
}

const hex = "0123456789abcdef"

// appendPlain appends a value of a text format.
func appendPlain[T string | []byte](dst []byte, v T) []byte {
	if len(v) == 0 {
		return append(dst, '-')
	}
	v = v[:min(len(v), maxValue)]
	from := 0
	for i := 0; i < len(v); i++ {
		if c := v[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			dst = append(dst, v[from:i]...)
			dst = append(dst, '\\', 'x', hex[c>>4], hex[c&15])
			from = i + 1
		}
	}
	return append(dst, v[from:]...)
}

// appendQuoted appends a value as a JSON string. Bytes that are not UTF-8
// become the replacement character.
//
// RFC 8259, section 7: quotes, backslashes and control characters are escaped.
func appendQuoted[T string | []byte](dst []byte, v T) []byte {
	v = v[:min(len(v), maxValue)]
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(v); {
		c := v[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			r, n := decodeRune(v[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			size = max(n, 1)
		}
		dst = append(dst, v[from:i]...)
		dst = appendEscaped(dst, c)
		i += size
		from = i
	}
	dst = append(dst, v[from:]...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, c byte) []byte {
	switch {
	case c >= utf8.RuneSelf:
		return append(dst, `\ufffd`...)
	case c == '"', c == '\\':
		return append(dst, '\\', c)
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}

// decodeRune is utf8.DecodeRune for either type, without a copy.
func decodeRune[T string | []byte](v T) (rune, int) {
	var b [utf8.UTFMax]byte
	return utf8.DecodeRune(b[:copy(b[:], v)])
}
