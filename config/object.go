package config

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// info is a row of the table of keys, as the documents show it.
type info struct {
	name, doc string
	def       string // what holds where the key is absent, to people
	required  bool
	text      string // kind of value, to people
	schema    map[string]any
	keys      []info
	suffix    string
}

// key is a row of the table of keys: a key of the mapping that a T is read
// from.
type key[T any] struct {
	info
	read func(r *reader, n *yaml.Node, dst *T)
	init func(dst *T)
	dump func(src *T) *yaml.Node
}

// at is a key whose value is the part of a T that get returns. Def is its
// default as it stands in a file; "" leaves the zero value, which means that it
// is not set.
func at[T, V any](name string, k kind[V], get func(*T) *V, def, doc string) key[T] {
	node := scalar(k.tag, def)
	return key[T]{
		info: info{name: name, doc: doc, def: def, text: k.text, schema: k.schema, keys: k.keys, suffix: k.suffix},
		read: func(r *reader, n *yaml.Node, dst *T) {
			r.marks[get(dst)] = n
			before := len(r.errs)
			k.read(r, n, get(dst))
			if len(r.errs) > before {
				r.broken[get(dst)] = true
			}
		},
		init: func(dst *T) {
			switch {
			case def != "":
				k.read(&reader{}, node, get(dst))
			case k.init != nil:
				k.init(get(dst))
			}
		},
		dump: func(src *T) *yaml.Node { return k.dump(get(src)) },
	}
}

// must makes a key one that cannot be left out.
func (k key[T]) must() key[T] {
	k.required = true
	return k
}

// unset says to people what holds where the key is absent and has no default of
// its own.
func (k key[T]) unset(text string) key[T] {
	k.def = text
	return k
}

// lift makes keys of a part keys of the whole.
func lift[T, P any](part func(*T) *P, keys []key[P]) []key[T] {
	var out []key[T]
	for _, k := range keys {
		out = append(out, key[T]{
			info: k.info,
			read: func(r *reader, n *yaml.Node, dst *T) { k.read(r, n, part(dst)) },
			init: func(dst *T) { k.init(part(dst)) },
			dump: func(src *T) *yaml.Node { return k.dump(part(src)) },
		})
	}
	return out
}

// object is a mapping with the given keys. What is absent keeps the value that
// dst had.
func object[T any](keys ...key[T]) kind[T] {
	k := kind[T]{
		text: "a mapping",
		init: func(dst *T) {
			for _, k := range keys {
				k.init(dst)
			}
		},
		read: func(r *reader, n *yaml.Node, dst *T) { readObject(r, n, keys, dst) },
		dump: func(v *T) *yaml.Node {
			n := &yaml.Node{Kind: yaml.MappingNode}
			for _, k := range keys {
				if d := k.dump(v); d != nil {
					n.Content = append(n.Content, scalar("!!str", k.name), d)
				}
			}
			if len(n.Content) == 0 {
				return nil
			}
			return n
		},
	}
	props, required := map[string]any{}, []string{}
	for _, key := range keys {
		k.keys = append(k.keys, key.info)
		props[key.name] = described(key.info)
		if key.required {
			required = append(required, key.name)
		}
	}
	k.schema = map[string]any{"type": "object", "additionalProperties": false, "properties": props}
	if len(required) > 0 {
		k.schema["required"] = required
	}
	return k
}

// described returns the schema of a key with its meaning and default.
func described(i info) map[string]any {
	s := map[string]any{"description": i.doc}
	for k, v := range i.schema {
		s[k] = v
	}
	if i.def != "" {
		s["description"] = i.doc + " Default: " + i.def + "."
	}
	return s
}

func readObject[T any](r *reader, n *yaml.Node, keys []key[T], dst *T) {
	values := r.mapping(n, func(name string, at *yaml.Node) bool {
		known := make([]string, len(keys))
		for i, k := range keys {
			if k.name == name {
				return true
			}
			known[i] = k.name
		}
		r.fail(at, "%s: unknown key %q%s", r.at(), name, didYouMean(name, known))
		return false
	})
	if values == nil {
		return
	}
	for _, k := range keys {
		v := values[k.name]
		switch {
		case v != nil:
			r.within(k.name, func() { k.read(r, v, dst) })
		case k.required:
			r.fail(n, "%s: the key %q is missing", r.at(), k.name)
		}
	}
}

// mapping returns the values of a mapping by key. Accept reports whether it
// wants a key, and what is wrong with it. It returns nil after reporting that n
// is no mapping.
func (r *reader) mapping(n *yaml.Node, accept func(name string, at *yaml.Node) bool) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s: want a mapping, got %s", r.at(), describe(n))
		return nil
	}
	values := map[string]*yaml.Node{}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], r.resolve(n.Content[i+1])
		if v == nil {
			return nil
		}
		switch {
		case k.ShortTag() == "!!merge":
			r.fail(k, "%s: merge keys are not read; use an alias for a whole value, or defaults", r.at())
		case k.Kind != yaml.ScalarNode:
			r.fail(k, "%s: a key must be a text, not %s", r.at(), describe(k))
		case lines[k.Value] > 0:
			r.fail(k, "%s: the key %q is there already, on line %d", r.at(), k.Value, lines[k.Value])
		default:
			lines[k.Value] = k.Line
			if accept(k.Value, k) {
				values[k.Value] = v
			}
		}
	}
	return values
}

// notEmpty refuses an empty mapping where it would mean nothing, or all.
func notEmpty[V any](k kind[V], hint string) kind[V] {
	read := k.read
	k.read = func(r *reader, n *yaml.Node, dst *V) {
		if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
			r.fail(n, "%s: the mapping is empty%s", r.at(), hint)
			return
		}
		read(r, n, dst)
	}
	schema := map[string]any{"minProperties": 1}
	for key, v := range k.schema {
		schema[key] = v
	}
	k.schema = schema
	return k
}

// optional is a value that may be absent: nil then.
func optional[V any](k kind[V]) kind[*V] {
	return kind[*V]{
		text: k.text, schema: k.schema, keys: k.keys, suffix: k.suffix,
		read: func(r *reader, n *yaml.Node, dst **V) {
			*dst = new(V)
			if k.init != nil {
				k.init(*dst)
			}
			r.marks[*dst] = n
			k.read(r, n, *dst)
		},
		dump: func(v **V) *yaml.Node {
			if *v == nil {
				return nil
			}
			return k.dump(*v)
		},
	}
}

// list is a list of at least one value. Init, if not nil, sets the defaults of
// an element.
func list[V any](k kind[V], init func(r *reader, dst *V)) kind[[]*V] {
	return kind[[]*V]{
		text:   "a list",
		schema: map[string]any{"type": "array", "minItems": 1, "items": k.schema},
		keys:   k.keys, suffix: "[]" + k.suffix,
		read: func(r *reader, n *yaml.Node, dst *[]*V) { readList(r, n, k, init, dst) },
		dump: func(v *[]*V) *yaml.Node {
			if len(*v) == 0 {
				return nil
			}
			n := &yaml.Node{Kind: yaml.SequenceNode}
			for _, e := range *v {
				d := k.dump(e)
				if d == nil {
					d = &yaml.Node{Kind: yaml.MappingNode}
				}
				n.Content = append(n.Content, d)
			}
			return n
		},
	}
}

func readList[V any](r *reader, n *yaml.Node, k kind[V], init func(r *reader, dst *V), dst *[]*V) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "%s: want a list, got %s", r.at(), describe(n))
		return
	}
	if len(n.Content) == 0 {
		r.fail(n, "%s: the list is empty", r.at())
	}
	*dst = nil
	for i, c := range n.Content {
		v := new(V)
		switch {
		case init != nil:
			init(r, v)
		case k.init != nil:
			k.init(v)
		}
		if c = r.resolve(c); c == nil {
			return
		}
		r.marks[v] = c
		r.within(strconv.Itoa(i+1), func() { k.read(r, c, v) })
		*dst = append(*dst, v)
	}
}

// oneOrMore is a text or a list of texts.
func oneOrMore(k kind[string]) kind[[]*string] {
	l := list(k, nil)
	many := l
	many.text = k.text + ", or a list of them"
	many.schema = map[string]any{"oneOf": []any{k.schema, l.schema}}
	many.suffix = ""
	many.read = func(r *reader, n *yaml.Node, dst *[]*string) {
		if n.Kind == yaml.SequenceNode {
			l.read(r, n, dst)
			return
		}
		v := new(string)
		r.marks[v] = n
		k.read(r, n, v)
		*dst = []*string{v}
	}
	many.dump = func(v *[]*string) *yaml.Node {
		if len(*v) == 1 {
			return k.dump((*v)[0])
		}
		return l.dump(v)
	}
	return many
}

// texts returns the values of a oneOrMore.
func texts(v []*string) []string {
	var out []string
	for _, s := range v {
		out = append(out, *s)
	}
	return out
}

const namePattern = `^[A-Za-z0-9][A-Za-z0-9._-]*$`

var nameRE = regexp.MustCompile(namePattern)

// checkRouteName says what is wrong with a name that only logs and metrics show.
func checkRouteName(s string) string {
	if len(s) > 200 {
		return "the name has more than 200 bytes"
	}
	if strings.IndexFunc(s, unicode.IsControl) >= 0 || !utf8.ValidString(s) {
		return strconv.Quote(s) + " holds a control character"
	}
	return ""
}

// checkName says what is wrong with a name that others refer to.
func checkName(s string) string {
	if !nameRE.MatchString(s) {
		return strconv.Quote(s) + " is no name: it may hold letters, digits, '.', '-' and '_', and begins with a letter or digit"
	}
	return ""
}

// named is a mapping from names to values of one kind, in the order of the
// file.
func named[V any](k kind[V], name func(*V) *string) kind[[]*V] {
	return notEmpty(kind[[]*V]{
		text: "a mapping from names",
		schema: map[string]any{"type": "object", "additionalProperties": k.schema,
			"propertyNames": map[string]any{"pattern": namePattern}},
		keys: k.keys, suffix: ".NAME" + k.suffix,
		read: func(r *reader, n *yaml.Node, dst *[]*V) {
			var names []string
			values := r.mapping(n, func(name string, at *yaml.Node) bool {
				if wrong := checkName(name); wrong != "" {
					r.fail(at, "%s: %s", r.at(), wrong)
				}
				names = append(names, name)
				return true
			})
			if values == nil {
				return
			}
			*dst = nil
			for _, s := range names {
				v := new(V)
				if k.init != nil {
					k.init(v)
				}
				*name(v) = s
				r.marks[v] = values[s]
				r.within(s, func() { k.read(r, values[s], v) })
				*dst = append(*dst, v)
			}
		},
		dump: func(v *[]*V) *yaml.Node {
			n := &yaml.Node{Kind: yaml.MappingNode}
			for _, e := range *v {
				n.Content = append(n.Content, scalar("!!str", *name(e)), k.dump(e))
			}
			if len(n.Content) == 0 {
				return nil
			}
			return n
		},
	}, "")
}

// short is an object that may be given as one text.
func short[T any](k kind[T], s kind[string], get func(*T) *string) kind[T] {
	whole := k
	whole.text = s.text + ", or a mapping"
	whole.schema = map[string]any{"oneOf": []any{s.schema, k.schema}}
	whole.read = func(r *reader, n *yaml.Node, dst *T) {
		if n.Kind != yaml.ScalarNode {
			k.read(r, n, dst)
			return
		}
		r.marks[get(dst)] = n
		s.read(r, n, get(dst))
	}
	return whole
}
