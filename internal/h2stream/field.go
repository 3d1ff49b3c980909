package h2stream

import "github.com/cirqueproxy/cirque/internal/ascii"

// ParsePriority parses the value of a Priority field, or of a PRIORITY_UPDATE
// frame. A parameter that is left out, unknown, of another type or out of range
// leaves base as it is there: DefaultPriority for what a client says; the client's
// priority for the field of a response, which may correct it. A field that is no
// dictionary says nothing at all.
//
// RFC 9218, section 4: a dictionary of structured fields; section 8: merging.
func ParsePriority(base Priority, field []byte) Priority {
	s := scanner{rest: field}
	found := base
	s.spaces(" ")
	for !s.bad && len(s.rest) > 0 {
		key := s.key()
		v := value{kind: kindBool, number: 1}
		if s.take('=') {
			v = s.value()
		}
		s.parameters()
		switch {
		// The last member of a name is the one that counts (RFC 9651, section
		// 4.2.2), also when its value does not.
		case string(key) == "u":
			found.Urgency = base.Urgency
			if v.kind == kindInteger && v.number >= 0 && v.number <= 7 {
				found.Urgency = uint8(v.number)
			}
		case string(key) == "i":
			found.Incremental = base.Incremental
			if v.kind == kindBool {
				found.Incremental = v.number == 1
			}
		}
		s.spaces(" \t")
		if len(s.rest) == 0 {
			break
		}
		if !s.take(',') {
			s.bad = true
		}
		if s.spaces(" \t"); len(s.rest) == 0 {
			s.bad = true // a comma at the end
		}
	}
	if s.bad {
		return base
	}
	return found
}

// valueKind is the type of a value of a structured field, as far as it matters
// here.
type valueKind uint8

const (
	kindOther valueKind = iota
	kindInteger
	kindBool
)

type value struct {
	kind   valueKind
	number int64
}

// scanner reads a structured field. Once bad it stays bad.
//
// RFC 9651, section 4.2: how each type is parsed.
type scanner struct {
	rest []byte
	bad  bool
}

func (s *scanner) peek() byte {
	if len(s.rest) == 0 {
		return 0
	}
	return s.rest[0]
}

func (s *scanner) take(b byte) bool {
	if len(s.rest) == 0 || s.rest[0] != b {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// while takes bytes as long as f is true.
func (s *scanner) while(f func(byte) bool) []byte {
	n := 0
	for n < len(s.rest) && f(s.rest[n]) {
		n++
	}
	taken := s.rest[:n]
	s.rest = s.rest[n:]
	return taken
}

func (s *scanner) spaces(which string) {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t' && len(which) == 2) {
		s.rest = s.rest[1:]
	}
}

func isLower(b byte) bool { return b >= 'a' && b <= 'z' }
func isDigit(b byte) bool { return b >= '0' && b <= '9' }
func isAlpha(b byte) bool { return isLower(b | 0x20) }
func isKey(b byte) bool {
	return isLower(b) || isDigit(b) || b == '_' || b == '-' || b == '.' || b == '*'
}
func isToken(b byte) bool  { return b == ':' || b == '/' || ascii.IsTokenByte(b) }
func isBase64(b byte) bool { return isAlpha(b) || isDigit(b) || b == '+' || b == '/' || b == '=' }

func (s *scanner) key() []byte {
	if b := s.peek(); !isLower(b) && b != '*' {
		s.bad = true
		return nil
	}
	return s.while(isKey)
}

// parameters skips the parameters of a value.
func (s *scanner) parameters() {
	for !s.bad && s.take(';') {
		s.spaces(" ")
		s.key()
		if s.take('=') {
			s.item()
		}
	}
}

// value takes an item or an inner list.
func (s *scanner) value() value {
	if !s.take('(') {
		return s.item()
	}
	for !s.bad {
		s.spaces(" ")
		if s.take(')') {
			return value{}
		}
		s.item()
		s.parameters()
		if b := s.peek(); b != ' ' && b != ')' {
			s.bad = true
		}
	}
	return value{}
}

// item takes a bare item.
func (s *scanner) item() value {
	switch b := s.peek(); {
	case s.bad:
	case b == '-' || isDigit(b):
		return s.number()
	case b == '"':
		s.quoted(false)
	case b == '%':
		s.rest = s.rest[1:]
		s.quoted(true)
	case b == ':':
		s.rest = s.rest[1:]
		s.while(isBase64)
		s.bad = !s.take(':')
	case b == '?':
		s.rest = s.rest[1:]
		if s.take('1') {
			return value{kindBool, 1}
		}
		s.bad = !s.take('0')
		return value{kindBool, 0}
	case b == '@':
		s.rest = s.rest[1:]
		if s.number().kind != kindInteger {
			s.bad = true
		}
	case isAlpha(b) || b == '*':
		s.while(isToken)
	default:
		s.bad = true
	}
	return value{}
}

// number takes an integer of at most 15 digits, or a decimal of at most 12 and 3.
func (s *scanner) number() value {
	minus := s.take('-')
	digits := s.while(isDigit)
	if s.take('.') {
		fraction := s.while(isDigit)
		s.bad = s.bad || len(digits) == 0 || len(digits) > 12 || len(fraction) == 0 || len(fraction) > 3
		return value{}
	}
	if len(digits) == 0 || len(digits) > 15 {
		s.bad = true
		return value{}
	}
	var n int64
	for _, d := range digits {
		n = n*10 + int64(d-'0')
	}
	if minus {
		n = -n
	}
	return value{kindInteger, n}
}

// quoted takes a string, or a display string, whose escapes are two lower-case
// hexadecimal digits after a percent sign.
func (s *scanner) quoted(display bool) {
	if !s.take('"') {
		s.bad = true
		return
	}
	for len(s.rest) > 0 {
		b := s.rest[0]
		s.rest = s.rest[1:]
		switch {
		case b == '"':
			return
		case b < 0x20 || b >= 0x7f:
			s.bad = true
			return
		case b == '\\' && !display:
			if !s.take('"') && !s.take('\\') {
				s.bad = true
				return
			}
		case b == '%' && display:
			for range 2 {
				if c := s.peek(); !isDigit(c) && (c < 'a' || c > 'f') {
					s.bad = true
					return
				}
				s.rest = s.rest[1:]
			}
		}
	}
	s.bad = true
}
