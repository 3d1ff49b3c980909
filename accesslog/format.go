package accesslog

import (
	"fmt"
	"slices"
	"strings"
)

// format is a compiled format. Immutable.
type format struct {
	json bool
	ops  []op
	tail string // what follows the last variable, with the line's end
}

// op is a piece of fixed text and the variable after it.
type op struct {
	before string
	v      *variable
}

// named are the formats that have a name of their own.
var named = map[string]string{
	"common": `$client - - [$time_common] "$method $target $protocol" $status $sent`,
	"combined": `$client - - [$time_common] "$method $target $protocol" $status $sent` +
		` "$referer" "$user_agent"`,
}

// compile makes a format of what the options say.
func compile(text string, fields []string) (*format, error) {
	switch {
	case text == "" || text == "json":
		return compileJSON(fields)
	case len(fields) > 0:
		return nil, fmt.Errorf("accesslog: Fields are for the format %q alone", "json")
	case named[text] != "":
		return compileText(named[text])
	case !strings.Contains(text, "$"):
		return nil, fmt.Errorf("accesslog: unknown format %q; did you mean %q?", text, nearest(text, []string{"json", "common", "combined"}))
	}
	return compileText(text)
}

func compileJSON(fields []string) (*format, error) {
	if len(fields) == 0 {
		fields = DefaultFields()
	}
	f := &format{json: true, tail: "}\n"}
	seen := map[string]bool{}
	for i, name := range fields {
		v, err := find(name)
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("accesslog: the field %q is there twice", name)
		}
		seen[name] = true
		before := `,"` + name + `":`
		if i == 0 {
			before = `{"` + name + `":`
		}
		f.ops = append(f.ops, op{before, v})
	}
	return f, nil
}

func compileText(text string) (*format, error) {
	f := &format{}
	var before strings.Builder
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c < ' ' || c == 0x7f:
			return nil, fmt.Errorf("accesslog: the format has a control character at byte %d", i)
		case c != '$':
			before.WriteByte(c)
			i++
			continue
		case strings.HasPrefix(text[i:], "$$"):
			before.WriteByte('$')
			i += 2
			continue
		}
		name, n := cutName(text[i+1:])
		if name == "" {
			return nil, fmt.Errorf("accesslog: the $ at byte %d has no name after it; $$ is a dollar", i)
		}
		v, err := find(name)
		if err != nil {
			return nil, err
		}
		f.ops = append(f.ops, op{before.String(), v})
		before.Reset()
		i += 1 + n
	}
	f.tail = before.String() + "\n"
	return f, nil
}

// cutName returns the name at the front of what follows a dollar, and how many
// bytes it takes.
func cutName(s string) (name string, n int) {
	if rest, ok := strings.CutPrefix(s, "{"); ok {
		name, _, ok := strings.Cut(rest, "}")
		if !ok {
			return "", 0
		}
		return name, len(name) + 2
	}
	for n < len(s) && isNameByte(s[n]) {
		n++
	}
	return s[:n], n
}

func isNameByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// find returns the variable with the name.
func find(name string) (*variable, error) {
	for i := range variables {
		if variables[i].name == name {
			return &variables[i], nil
		}
	}
	for i := 0; i < len(name); i++ {
		if !isNameByte(name[i]) {
			return nil, fmt.Errorf("accesslog: %q is no name of a variable", name)
		}
	}
	if field, ok := strings.CutPrefix(name, "sent_http_"); ok && field != "" {
		return fieldVariable(name, strings.ReplaceAll(field, "_", "-"), true), nil
	}
	if field, ok := strings.CutPrefix(name, "http_"); ok && field != "" {
		return fieldVariable(name, strings.ReplaceAll(field, "_", "-"), false), nil
	}
	return nil, fmt.Errorf("accesslog: unknown variable %q; did you mean %q?", name, nearest(name, Variables()))
}

// nearest returns the known name that takes the fewest edits to get from name.
func nearest(name string, known []string) string {
	return slices.MinFunc(known, func(a, b string) int { return edits(name, a) - edits(name, b) })
}

// edits returns how many letters must be put in, taken out or changed to make b
// of a.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
