package h2stream

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The grammar of dictionaries (RFC 9651, section 4.2) as regular expressions: the
// slow and obvious way to read them.
const (
	reKey     = `[a-z*][a-z0-9_.*-]*`
	reNumber  = `-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})`
	reString  = `"(?:[ !#-\[\]-~]|\\["\\])*"`
	reToken   = "[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"
	reDisplay = `%"(?:[ !#$&-~]|%[0-9a-f]{2})*"`
	reItem    = `(?:` + reNumber + `|` + reString + `|` + reToken + `|:[A-Za-z0-9+/=]*:|\?[01]|@-?[0-9]{1,15}|` + reDisplay + `)`
	reParams  = `(?:; *` + reKey + `(?:=` + reItem + `)?)*`
	reList    = `\( *(?:` + reItem + reParams + `(?: +` + reItem + reParams + `)* *)?\)`
	reMember  = `(` + reKey + `)(?:=(` + reItem + `|` + reList + `))?` + reParams
)

var (
	member     = regexp.MustCompile(`^` + reMember)
	dictionary = regexp.MustCompile(`^ *(?:` + reMember + `(?:[ \t]*,[ \t]*` + reMember + `)*[ \t]*)?$`)
	comma      = regexp.MustCompile(`^[ \t]*,[ \t]*`)
)

// slowPriority is ParsePriority by the grammar.
func slowPriority(base Priority, field string) Priority {
	if !dictionary.MatchString(field) {
		return base
	}
	members := map[string]string{}
	rest := strings.TrimLeft(field, " ")
	for {
		m := member.FindStringSubmatchIndex(rest)
		if m == nil {
			break
		}
		value := "?1"
		if m[4] >= 0 {
			value = rest[m[4]:m[5]]
		}
		members[rest[m[2]:m[3]]] = value
		rest = rest[m[1]:]
		rest = rest[len(comma.FindString(rest)):]
	}
	found := base
	if u, err := strconv.Atoi(members["u"]); err == nil && u >= 0 && u <= 7 {
		found.Urgency = uint8(u)
	}
	switch members["i"] {
	case "?0":
		found.Incremental = false
	case "?1":
		found.Incremental = true
	}
	return found
}

// FuzzParsePriority: the scanner and the grammar agree, and what a response says
// of itself is upon what the request said.
func FuzzParsePriority(f *testing.F) {
	f.Add("u=1, i")
	f.Add(`a=1.5, b=tok/en:x, c="s\"\\", d=:aGk=:, e=?0;x;y=2, f=@1659578233, g=%"f%c3%bc", h=("a" b;q=1), *x, u=4`)
	f.Fuzz(func(t *testing.T, field string) {
		for _, base := range []Priority{{3, false}, {5, true}} {
			got, want := ParsePriority(base, []byte(field)), slowPriority(base, field)
			if got != want {
				t.Fatalf("%q upon %+v: %+v, by the grammar %+v", field, base, got, want)
			}
			if got.Urgency > 7 {
				t.Fatalf("%q: urgency %d", field, got.Urgency)
			}
		}
	})
}
