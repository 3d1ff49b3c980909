package route

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cirqueproxy/cirque/message"
)

// Field names the field of a Rule that an Error is about.
type Field string

// The fields. FieldRule is the rule as a whole.
const (
	FieldRule      Field = ""
	FieldListeners Field = "Listeners"
	FieldHosts     Field = "Hosts"
	FieldPaths     Field = "Paths"
	FieldPrefixes  Field = "Prefixes"
	FieldRegexes   Field = "Regexes"
	FieldMethods   Field = "Methods"
)

// Error is one thing that is wrong with one rule.
type Error struct {
	Rule  int    // index among New's arguments
	Field Field  // which field
	Value int    // index in the field
	Other int    // for a tie: the index of the rule before; otherwise -1
	Text  string // without the rule's number
}

// Error returns the text with the rule's number.
func (e *Error) Error() string { return fmt.Sprintf("rule %d: %s", e.Rule, e.Text) }

// Errors is all that is wrong, in the order of the rules.
type Errors []*Error

// Error returns one line per error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// New returns the index of rules. If anything is wrong with them its error is
// of type [Errors], with all that is.
func New(rules ...Rule) (*Index, error) {
	b := builder{rules: rules, index: &Index{listeners: map[string]*table{}, others: newTable()}}
	for i := range rules {
		for _, l := range rules[i].Listeners {
			b.index.listeners[l] = newTable()
		}
	}
	for i := range rules {
		b.add(i)
	}
	if len(b.errs) > 0 {
		return nil, b.errs
	}
	return b.index, nil
}

func newTable() *table {
	return &table{exact: map[string]*paths{}, wildcard: map[string]*paths{}}
}

func newPaths() *paths {
	return &paths{exact: map[string]*methods{}, prefix: map[string]*methods{}}
}

type builder struct {
	rules []Rule
	index *Index
	errs  Errors
}

func (b *builder) fail(rule int, f Field, value int, format string, args ...any) {
	b.errs = append(b.errs, &Error{rule, f, value, -1, fmt.Sprintf(format, args...)})
}

// pattern is one value of a path field.
type pattern struct {
	kind  Kind
	text  string
	re    *regexp.Regexp
	value int
}

func (b *builder) add(i int) {
	r := &b.rules[i]
	before := len(b.errs)
	if r.Proxy == nil {
		b.fail(i, FieldRule, 0, "it has no Proxy")
	}
	hosts := b.values(i, FieldHosts, r.Hosts, cleanHost)
	patterns := b.patterns(i)
	methods := b.values(i, FieldMethods, r.Methods, cleanMethod)
	b.values(i, FieldListeners, r.Listeners, func(s string) (string, error) { return s, nil })
	if len(b.errs) > before {
		return
	}
	tied := map[int]bool{} // one error for each pair of rules
	for _, t := range b.tables(r) {
		for _, h := range hosts {
			ps := t.paths(h)
			for _, p := range patterns {
				ms := ps.methods(p)
				for _, m := range methods {
					won := ms.add(&Match{r.Proxy, i, h, p.kind, p.text, m})
					if won != nil && !tied[won.Rule] {
						tied[won.Rule] = true
						b.tie(i, won)
					}
				}
			}
		}
	}
}

// tie reports that rule i has a value that an earlier rule has.
func (b *builder) tie(i int, won *Match) {
	what := "everything"
	if s := strings.TrimSpace(won.Method + " " + won.Host + won.Path); s != "" {
		what = s
	}
	name := fmt.Sprintf("rule %d", won.Rule)
	if n := b.rules[won.Rule].Proxy.Name; n != "" {
		name = fmt.Sprintf("%q", n)
	}
	b.errs = append(b.errs, &Error{i, FieldRule, 0, won.Rule,
		fmt.Sprintf("it ties with %s: both match %s", name, what)})
}

// tables returns those that a rule goes into.
func (b *builder) tables(r *Rule) []*table {
	var ts []*table
	for _, l := range r.Listeners {
		ts = append(ts, b.index.listeners[l])
	}
	if len(r.Listeners) == 0 {
		for _, t := range b.index.listeners {
			ts = append(ts, t)
		}
		ts = append(ts, b.index.others)
	}
	return ts
}

// values returns the clean form of a field's values, and one empty value for an
// empty field.
func (b *builder) values(i int, f Field, in []string, clean func(string) (string, error)) []string {
	if len(in) == 0 {
		return []string{""}
	}
	out := make([]string, 0, len(in))
	for n, v := range in {
		c, err := clean(v)
		switch {
		case err != nil:
			b.fail(i, f, n, "%v", err)
		case c == "":
			b.fail(i, f, n, "a value is empty")
		case slices.Contains(out, c):
			b.fail(i, f, n, "%q is there twice", v)
		default:
			out = append(out, c)
		}
	}
	return out
}

// patterns returns the values of the path fields.
func (b *builder) patterns(i int) []pattern {
	r := &b.rules[i]
	set := 0
	var out []pattern
	add := func(k Kind, f Field, in []string, clean func(string) (string, error)) {
		if len(in) == 0 {
			return
		}
		if set++; set == 2 {
			b.fail(i, f, 0, "only one of exact path, path prefix and path regex can be given")
		}
		for n, v := range b.values(i, f, in, clean) {
			out = append(out, pattern{kind: k, text: v, value: n})
		}
	}
	add(Exact, FieldPaths, r.Paths, cleanPath)
	add(Prefix, FieldPrefixes, r.Prefixes, cleanPath)
	add(Regex, FieldRegexes, r.Regexes, cleanRegex)
	if set == 0 {
		return []pattern{{kind: AnyPath}}
	}
	for n, p := range out {
		if p.kind == Regex {
			out[n].re = regexp.MustCompile(anchored(p.text)) // cleanRegex compiled it once
		}
	}
	return out
}

func anchored(expr string) string { return "^(?:" + expr + ")$" }

func (t *table) paths(host string) *paths {
	m := t.exact
	switch {
	case host == "":
		if t.any == nil {
			t.any = newPaths()
		}
		return t.any
	case host[0] == '*':
		m, host = t.wildcard, host[1:]
		t.longest = max(t.longest, len(host))
	}
	if m[host] == nil {
		m[host] = newPaths()
	}
	return m[host]
}

func (p *paths) methods(pt pattern) *methods {
	m, key := p.exact, pt.text
	switch pt.kind {
	case AnyPath:
		if p.any == nil {
			p.any = &methods{}
		}
		return p.any
	case Regex:
		for _, e := range p.regexes {
			if e.text == pt.text {
				return e.methods
			}
		}
		e := &regex{pt.re, pt.text, &methods{}}
		p.regexes = append(p.regexes, e)
		return e.methods
	case Prefix:
		m, key = p.prefix, strings.TrimSuffix(key, "/")
		p.longest = max(p.longest, len(key))
	}
	if m[key] == nil {
		m[key] = &methods{}
	}
	return m[key]
}

// add returns nil, or the match that is there already.
func (m *methods) add(e *Match) *Match {
	if e.Method == "" {
		if m.any != nil {
			return m.any
		}
		m.any = e
		return nil
	}
	for _, o := range m.named {
		if o.Method == e.Method {
			return o
		}
	}
	m.named = append(m.named, e)
	return nil
}

// cleanHost returns a host in the form in which requests have it.
func cleanHost(h string) (string, error) {
	name, wild := strings.CutPrefix(h, "*.")
	switch {
	case h == "*":
		return "", fmt.Errorf("host %q: leave the host out to match any", h)
	case strings.Contains(name, "/"):
		return "", fmt.Errorf("host %q: a host has no scheme and no path", h)
	case strings.Contains(name, "*"):
		return "", fmt.Errorf("host %q: a star can only stand in front, as in *.example.com", h)
	case strings.HasPrefix(name, "["):
		if !strings.HasSuffix(name, "]") {
			return "", fmt.Errorf("host %q: it ends without a bracket, or has a port", h)
		}
	case strings.Contains(name, ":"):
		return "", fmt.Errorf("host %q: a port is not compared; leave it out", h)
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if name == "" || strings.HasPrefix(name, ".") || strings.Contains(name, "..") {
		return "", fmt.Errorf("host %q: a label is empty", h)
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 0x80:
			return "", fmt.Errorf("host %q: write it in its ASCII form (xn--...)", h)
		case c <= ' ' || c == 0x7f || strings.IndexByte(`/\?#@"<>%,;`, c) >= 0:
			return "", fmt.Errorf("host %q: %q cannot be part of a host", h, c)
		}
	}
	if wild {
		return "*." + name, nil
	}
	return name, nil
}

// cleanPath refuses paths that no request can have, since requests are compared
// in normal form.
func cleanPath(p string) (string, error) {
	if !strings.HasPrefix(p, "/") {
		return "", fmt.Errorf("path %q: it does not begin with a slash", p)
	}
	if strings.ContainsAny(p, "?#") {
		return "", fmt.Errorf("path %q: only the path is compared, no query and no fragment", p)
	}
	for i := range len(p) {
		if c := p[i]; c <= ' ' || c >= 0x7f {
			return "", fmt.Errorf("path %q: write %q in its escaped form, %%%02X", p, c, c)
		}
	}
	var r message.Request
	r.SetTarget(p)
	switch normal := r.Path(); {
	case r.PathProblem() != message.PathOK && r.PathProblem() != message.PathHiddenSeparator:
		return "", fmt.Errorf("path %q: %s", p, r.PathProblem())
	case normal != p:
		return "", fmt.Errorf("path %q: no request has it, since they are compared in normal form; write %q", p, normal)
	}
	return p, nil
}

func cleanRegex(expr string) (string, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return "", fmt.Errorf("path regex %q: %s", expr, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	if _, err := regexp.Compile(anchored(expr)); err != nil {
		return "", fmt.Errorf("path regex %q: %w", expr, err)
	}
	return expr, nil
}

// cleanMethod refuses what is no method.
//
// RFC 9110, section 9.1: a method is a token, and its case matters.
func cleanMethod(m string) (string, error) {
	for _, c := range []byte(m) {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return "", fmt.Errorf("method %q: %q cannot be part of a method", m, c)
		}
	}
	if up := strings.ToUpper(m); up != m && slices.Contains(usual, up) {
		return "", fmt.Errorf("method %q: the case matters; write %s", m, up)
	}
	return m, nil
}

var usual = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
