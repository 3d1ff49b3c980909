package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Error is one thing that is wrong with the file.
type Error struct {
	File      string
	Line, Col int // both from 1; Col counts characters
	Text      string
}

// Error returns "file:line:col: text".
func (e *Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Text) }

// Errors is all that is wrong with the file, in its order.
type Errors []*Error

// Error returns one line per error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// maxNodes bounds the nodes that are read, each alias counted as often as it is
// used. A file of a few lines can otherwise stand for billions of nodes, by
// aliases to lists of aliases.
const maxNodes = 1 << 20

// reader collects what is read and what is wrong with it.
type reader struct {
	file  string
	errs  Errors
	nodes int
	path  []string // of keys, to what is being read
	cfg   *Config

	// By pointers into cfg.
	marks  map[any]*yaml.Node // where the value was read
	broken map[any]bool       // something in it is wrong
}

// parseYAML returns the root of the file's only document, or nil after an
// error.
func (r *reader) parseYAML(data []byte) *yaml.Node {
	var doc yaml.Node
	err := yaml.Load(data, &doc)
	if err == nil && doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		return doc.Content[0]
	}
	r.yamlError(data, err)
	return nil
}

// yamlError reports what the YAML library did not accept. It gives no place for
// some errors; these are found here.
func (r *reader) yamlError(data []byte, err error) {
	line, col, text := 1, 1, "the file holds no configuration"
	var le *yaml.LoadError
	if errors.As(err, &le) {
		text = strings.TrimPrefix(le.Message, "yaml: ")
		if le.ContextMsg != "" {
			text = le.ContextMsg + ": " + text
		}
		switch {
		case le.Mark.Line > 0:
			line, col = le.Mark.Line, max(le.Mark.Column, 1)
		case strings.Contains(text, "no documents"):
			text = "the file holds no configuration"
		case strings.Contains(text, "multiple"):
			line, text = secondDocument(data), "the file holds more than one document"
		default:
			line, col = firstControl(data)
		}
	} else if err != nil {
		text = err.Error()
	}
	r.errs = append(r.errs, &Error{r.file, line, col, text})
}

// secondDocument returns the line of the second document's "---".
func secondDocument(data []byte) int {
	seen := false
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if seen && strings.HasPrefix(line, "---") {
			return n
		}
		seen = seen || line != "" && line[0] != '#' && line[0] != '%'
	}
	return 1
}

// firstControl returns the place of the first character that no YAML file may
// hold.
func firstControl(data []byte) (line, col int) {
	line, col = 1, 1
	for _, c := range string(data) {
		switch {
		case c == '\n':
			line, col = line+1, 0
		case c < ' ' && c != '\t' && c != '\r', c == 0x7f, c == '\uFFFD':
			return line, col
		}
		col++
	}
	return 1, 1
}

// fail reports what is wrong at n.
func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, &Error{r.file, max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
}

// failAt reports what is wrong with the value behind p, which was read or is a
// default of the value behind parent.
func (r *reader) failAt(p, parent any, format string, args ...any) {
	n := r.marks[p]
	if n == nil {
		n = r.marks[parent]
	}
	if n == nil {
		n = &yaml.Node{Line: 1, Column: 1}
	}
	r.fail(n, format, args...)
}

// sorted returns the errors in the order of the file.
func (r *reader) sorted() Errors {
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return slices.CompactFunc(r.errs, func(a, b *Error) bool { return *a == *b })
}

// resolve follows an alias and counts nodes. It returns nil when there are too
// many.
func (r *reader) resolve(n *yaml.Node) *yaml.Node {
	if r.nodes++; r.nodes >= maxNodes {
		if r.nodes == maxNodes {
			r.fail(n, "the file stands for more than %d values", maxNodes)
		}
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// at returns where in the file the reader is: "routes.2.match", or "the file".
func (r *reader) at() string {
	if len(r.path) == 0 {
		return "the file"
	}
	return strings.Join(r.path, ".")
}

// within reads something below the present place.
func (r *reader) within(name string, read func()) {
	r.path = append(r.path, name)
	read()
	r.path = r.path[:len(r.path)-1]
}

// describe says what a node is, to people.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!str":
		return fmt.Sprintf("the text %q", n.Value)
	}
	return n.Value
}

// nearest returns the name that a misspelt one may have been meant to be, or
// "".
func nearest(name string, known []string) string {
	best, at := "", 1+max(1, len(name)/3)
	for _, k := range known {
		a, b := strings.ToLower(name), strings.ToLower(k)
		d := distance(a, b)
		if min(len(a), len(b)) > 2 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
			d = min(d, 1) // warning for warn
		}
		if d < at {
			best, at = k, d
		}
	}
	return best
}

// didYouMean is nearest as the end of a sentence.
func didYouMean(name string, known []string) string {
	if n := nearest(name, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

// distance counts the letters to add, drop, change or swap to get from a to b.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 1 << 20 // nobody types that, and the table below is quadratic
	}
	prev2, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}
