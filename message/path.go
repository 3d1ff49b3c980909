package message

import "github.com/cirqueproxy/cirque/internal/ascii"

// PathProblem is what makes it unsafe to decide by the path of a request: the
// origin may read it as another one than we do.
type PathProblem uint8

// The problems.
const (
	PathOK              PathProblem = iota
	PathAboveRoot                   // ".." climbs above the root
	PathNUL                         // an encoded NUL
	PathBadEscape                   // a '%' without two hexadecimal digits
	PathHiddenSeparator             // an encoded slash, or a backslash, encoded or not
)

// String says it in words.
func (p PathProblem) String() string {
	return [...]string{
		"", "the path climbs above the root", "the path holds an encoded NUL",
		"the path holds a broken escape", "the path hides a separator",
	}[p]
}

// Path returns the path of the target in the form to decide by: escapes of
// unreserved characters decoded, dot segments resolved, doubled slashes merged.
// Other escapes stay, with their digits in upper case. What goes to the origin
// is Target, not this. It is "" for "*" and CONNECT.
//
// RFC 3986, section 6.2.2 names the steps.
func (r *Request) Path() string {
	v := r.PathView()
	if r.pathText == "" && len(v) > 0 {
		if string(v) == r.targetText {
			r.pathText = r.targetText
		} else {
			r.pathText = string(v)
		}
	}
	return r.pathText
}

// PathView is Path, lent.
func (r *Request) PathView() []byte {
	if !r.parsed {
		r.parsePath()
	}
	return r.path
}

// PathProblem returns what is wrong with the path, PathOK if nothing is.
func (r *Request) PathProblem() PathProblem {
	if !r.parsed {
		r.parsePath()
	}
	return r.problem
}

// Query returns what follows the first '?' of the target, as it came.
func (r *Request) Query() string { return string(r.QueryView()) }

// QueryView is Query, lent. It is nil when there is no '?'.
func (r *Request) QueryView() []byte {
	if !r.parsed {
		r.parsePath()
	}
	if r.query > len(r.target) {
		return nil
	}
	return r.target[r.query:]
}

// HasPathPrefix reports whether Path begins with the segments of prefix: "/api"
// and "/api/" match "/api" and "/api/x", not "/apis".
func (r *Request) HasPathPrefix(prefix string) bool {
	for len(prefix) > 0 && prefix[len(prefix)-1] == '/' {
		prefix = prefix[:len(prefix)-1]
	}
	p := r.PathView()
	if len(p) == 0 || len(p) < len(prefix) || string(p[:len(prefix)]) != prefix {
		return false
	}
	return len(p) == len(prefix) || p[len(prefix)] == '/'
}

// parsePath makes the normalized copy.
func (r *Request) parsePath() {
	r.parsed, r.problem, r.pathText = true, PathOK, ""
	r.path = r.path[:0]
	r.query = len(r.target) + 1
	raw := r.target
	for i, c := range raw {
		if c == '?' {
			raw, r.query = raw[:i], i+1
			break
		}
	}
	if len(raw) == 0 || raw[0] != '/' {
		return
	}
	r.decodePath(raw)
	r.path, r.problem = resolveDots(r.path, r.problem)
}

// decodePath appends raw to path, escapes of unreserved characters decoded.
func (r *Request) decodePath(raw []byte) {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '\\':
			r.note(PathHiddenSeparator)
		case c != '%':
		case i+2 >= len(raw) || !ascii.IsHex(raw[i+1]) || !ascii.IsHex(raw[i+2]):
			r.note(PathBadEscape)
		default:
			d := ascii.Unhex(raw[i+1])<<4 | ascii.Unhex(raw[i+2])
			i += 2
			switch {
			case unreserved(d):
				r.path = append(r.path, d)
				continue
			case d == 0:
				r.note(PathNUL)
			case d == '/' || d == '\\':
				r.note(PathHiddenSeparator)
			}
			const digits = "0123456789ABCDEF"
			r.path = append(r.path, '%', digits[d>>4], digits[d&15])
			continue
		}
		r.path = append(r.path, c)
	}
}

// note keeps the gravest problem, which is the smallest.
func (r *Request) note(p PathProblem) {
	if r.problem == PathOK || p < r.problem {
		r.problem = p
	}
}

// unreserved: RFC 3986, section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// resolveDots resolves dot segments and merges slashes in place: what is
// written is never ahead of what is read.
//
// RFC 3986, section 5.2.4, but that climbing above the root is noted.
func resolveDots(p []byte, problem PathProblem) ([]byte, PathProblem) {
	w := 0
	for i := 0; i < len(p); {
		// p[i] is a slash: take the segment behind it.
		end := i + 1
		for end < len(p) && p[end] != '/' {
			end++
		}
		seg := p[i+1 : end]
		atEnd := end == len(p)
		switch {
		case len(seg) == 0 && !atEnd: // a doubled slash
		case string(seg) == "." && !atEnd:
		case string(seg) == "..":
			if w == 0 {
				problem = PathAboveRoot
			}
			for w > 0 {
				if w--; p[w] == '/' {
					break
				}
			}
			if atEnd {
				p[w] = '/'
				w++
			}
		case string(seg) == ".":
			p[w] = '/'
			w++
		default:
			w += copy(p[w:], p[i:end])
		}
		i = end
	}
	return p[:w], problem
}
