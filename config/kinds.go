package config

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Off is the value in the tree of a limit that is turned off.
const Off = -1

// kind is a kind of value: how it is read, written and described.
type kind[V any] struct {
	// read sets dst from n, which is never an alias, or reports what is wrong.
	read func(r *reader, n *yaml.Node, dst *V)
	// init, if not nil, sets the defaults inside dst.
	init func(dst *V)
	// dump returns v as YAML; nil if it is not set.
	dump   func(v *V) *yaml.Node
	schema map[string]any
	text   string // to people
	tag    string // of a scalar
	// keys are those of the mapping, or of the list's or mapping's elements.
	keys   []info
	suffix string // of the path to these keys: "[]" or ".NAME"
}

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// scalarKind is a kind of value that is one scalar. Parse returns what is wrong
// with its text, "" if nothing is.
func scalarKind[V any](text string, tags []string, parse func(s string, dst *V) string, dump func(V) *yaml.Node, schema map[string]any) kind[V] {
	return kind[V]{
		text: text, schema: schema, tag: tags[0],
		dump: func(v *V) *yaml.Node { return dump(*v) },
		read: func(r *reader, n *yaml.Node, dst *V) {
			if n.Kind != yaml.ScalarNode || !slices.Contains(tags, n.ShortTag()) {
				r.fail(n, "%s: want %s, got %s", r.at(), text, describe(n))
				return
			}
			if wrong := parse(n.Value, dst); wrong != "" {
				r.fail(n, "%s: %s", r.at(), wrong)
			}
		},
	}
}

var (
	strTag     = []string{"!!str"}
	numberTags = []string{"!!str", "!!int", "!!float"}
)

// text is a text that is not empty and that check, if not nil, accepts.
func text(what string, check func(string) string) kind[string] {
	return textSchema(what, check, map[string]any{"type": "string", "minLength": 1})
}

// dumpText writes a text that is not set as nothing.
func dumpText(v string) *yaml.Node {
	if v == "" {
		return nil
	}
	return scalar("!!str", v)
}

func textSchema(what string, check func(string) string, schema map[string]any) kind[string] {
	return scalarKind(what, strTag, func(s string, dst *string) string {
		if s == "" {
			return "it is empty"
		}
		*dst = s
		if check != nil {
			return check(s)
		}
		return ""
	}, dumpText, schema)
}

// boolean is true or false.
var boolean = scalarKind("true or false", []string{"!!bool"}, func(s string, dst *bool) string {
	switch s {
	case "true", "false":
		*dst = s == "true"
		return ""
	}
	return "want true or false, got " + strconv.Quote(s)
}, func(v bool) *yaml.Node { return scalar("!!bool", strconv.FormatBool(v)) }, map[string]any{"type": "boolean"})

// oneOf is one of a few words.
func oneOf(words ...string) kind[string] {
	what := "one of " + strings.Join(words, ", ")
	k := textSchema(what, func(s string) string {
		if !slices.Contains(words, s) {
			return "want " + what + ", got " + strconv.Quote(s) + didYouMean(s, words)
		}
		return ""
	}, map[string]any{"enum": words})
	return k
}

// canBeOff says whether off is a value.
type canBeOff bool

const (
	orOff canBeOff = true
	noOff canBeOff = false
)

func (o canBeOff) text(what string) string {
	if o {
		return what + ", or off"
	}
	return what
}

// zeroHint is the end of a sentence about a zero.
func (o canBeOff) zeroHint() string {
	if o {
		return "; write off for no limit"
	}
	return ""
}

// duration is a time like 10s.
func duration(off canBeOff) kind[time.Duration] {
	pattern := `([0-9]+(\.[0-9]+)?(ms|s|m|h))+`
	if off {
		pattern = "off|" + pattern
	}
	return scalarKind(off.text("a duration such as 10s"), numberTags, func(s string, dst *time.Duration) string {
		if off && s == "off" {
			*dst = Off
			return ""
		}
		d, wrong := parseDuration(s, off)
		*dst = d
		return wrong
	}, func(v time.Duration) *yaml.Node {
		switch {
		case v == 0:
			return nil
		case v < 0:
			return scalar("!!str", "off")
		}
		return scalar("!!str", formatDuration(v))
	}, map[string]any{"type": "string", "pattern": "^(" + pattern + ")$"})
}

func parseDuration(s string, off canBeOff) (time.Duration, string) {
	d, err := time.ParseDuration(s)
	_, plain := strconv.ParseFloat(s, 64)
	switch {
	case err == nil && d == 0 || plain == nil && strings.Trim(s, "+-0.") == "":
		return 0, "0 is not a duration" + off.zeroHint()
	case plain == nil:
		return 0, strconv.Quote(s) + " has no unit; write " + s + "s for seconds"
	case s == "off":
		return 0, "this cannot be off"
	case err != nil || s[0] == '+' || s[0] == '.' || strings.Contains(s, "ns") || strings.Contains(s, "us") || strings.Contains(s, "µs") || strings.Contains(s, "μs"):
		return 0, "want a duration such as 10s, 1m30s or 500ms, got " + strconv.Quote(s)
	case d < 0:
		return 0, "a duration cannot be negative" + off.zeroHint()
	}
	return d, ""
}

// formatDuration is d.String without parts that are zero: 1m, not 1m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// units are those of sizes, the one to prefer first.
var units = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// size is a number of bytes like 64KiB.
func size(off canBeOff) kind[int64] {
	pattern := `[0-9]+(GiB|MiB|KiB|GB|MB|kB|B)`
	if off {
		pattern = "off|" + pattern
	}
	return scalarKind(off.text("a size such as 64KiB"), numberTags, func(s string, dst *int64) string {
		if off && s == "off" {
			*dst = Off
			return ""
		}
		n, wrong := parseSize(s, off)
		*dst = n
		return wrong
	}, func(v int64) *yaml.Node {
		if v < 0 {
			return scalar("!!str", "off")
		}
		return scalar("!!str", formatSize(v))
	}, map[string]any{"type": "string", "pattern": "^(" + pattern + ")$"})
}

func parseSize(s string, off canBeOff) (int64, string) {
	digits := strings.TrimLeft(s, "0123456789")
	number, unit := s[:len(s)-len(digits)], digits
	n, err := strconv.ParseInt(number, 10, 64)
	if number != "" && unit == "" && n != 0 {
		return 0, strconv.Quote(s) + " has no unit; write " + s + "B for bytes, or a size such as 64KiB"
	}
	if s == "off" {
		return 0, "this cannot be off"
	}
	if strings.HasPrefix(s, "-") {
		return 0, "a size cannot be negative" + off.zeroHint()
	}
	for _, u := range units {
		if u.name != unit && (unit != "" || n != 0) {
			continue
		}
		switch {
		case number == "":
		case err != nil || n > (1<<62)/u.bytes:
			return 0, strconv.Quote(s) + " is too large"
		case n == 0:
			return 0, "0 is not a size" + off.zeroHint()
		default:
			return n * u.bytes, ""
		}
		break
	}
	return 0, "want a size such as 64KiB, 10MB or 512B, got " + strconv.Quote(s)
}

func formatSize(n int64) string {
	for _, u := range units[:3] {
		if n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// count is a whole number of at least lowest.
func count(lowest, highest int, off canBeOff) kind[int] {
	number := map[string]any{"type": "integer", "minimum": lowest, "maximum": highest}
	schema := number
	if off {
		schema = map[string]any{"oneOf": []any{number, map[string]any{"const": "off"}}}
	}
	what := off.text("a whole number")
	return scalarKind(what, numberTags, func(s string, dst *int) string {
		if off && s == "off" {
			*dst = Off
			return ""
		}
		n, err := strconv.Atoi(s)
		switch {
		case err != nil || s[0] == '+':
			return "want " + what + ", got " + strconv.Quote(s)
		case n == 0 && lowest > 0:
			return "0 is too small" + off.zeroHint()
		case n < lowest || n > highest:
			return strconv.Itoa(n) + " is not between " + strconv.Itoa(lowest) + " and " + strconv.Itoa(highest)
		}
		*dst = n
		return ""
	}, func(v int) *yaml.Node {
		if v < 0 {
			return scalar("!!str", "off")
		}
		return scalar("!!int", strconv.Itoa(v))
	}, schema)
}
