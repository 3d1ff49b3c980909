package route

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cirqueproxy/cirque"
)

// model is the obvious way: look at all rules, keep the most specific that
// matches.
type model []Rule

type rank struct{ host, hostLen, kind, pathLen, regex, method int }

func (a rank) compare(b rank) int {
	return cmp.Or(a.host-b.host, a.hostLen-b.hostLen, a.kind-b.kind, a.pathLen-b.pathLen, a.regex-b.regex, a.method-b.method)
}

func (m model) match(listener, method, host, path string) *cirque.Proxy {
	var best rank
	var won *cirque.Proxy
	for _, r := range m {
		if k, ok := m.rank(r, listener, method, host, path); ok && (won == nil || k.compare(best) > 0) {
			best, won = k, r.Proxy
		}
	}
	return won
}

// rank returns how specific the match is; greater is more specific.
func (m model) rank(r Rule, listener, method, host, path string) (rank, bool) {
	var k rank
	if len(r.Listeners) > 0 && !slices.Contains(r.Listeners, listener) {
		return k, false
	}
	if len(r.Hosts) > 0 {
		for _, h := range r.Hosts {
			if suffix, wild := strings.CutPrefix(h, "*"); wild && strings.HasSuffix(host, suffix) && host != suffix && k.host < 2 {
				k.host, k.hostLen = 1, max(k.hostLen, len(suffix))
			} else if h == host {
				k.host, k.hostLen = 2, 0
			}
		}
		if k.host == 0 {
			return k, false
		}
	}
	for _, p := range r.Paths {
		if p == path {
			k.kind = 3
		}
	}
	for _, p := range r.Prefixes {
		if strings.HasPrefix(path+"/", strings.TrimSuffix(p, "/")+"/") && path != "" {
			k.kind, k.pathLen = 2, max(k.pathLen, 1+len(strings.TrimSuffix(p, "/")))
		}
	}
	for _, p := range r.Regexes {
		if path != "" && regexp.MustCompile("^(?:"+p+")$").MatchString(path) {
			if at := -m.firstWith(r, p); k.kind == 0 || at > k.regex {
				k.kind, k.regex = 1, at
			}
		}
	}
	if k.kind == 0 && len(r.Paths)+len(r.Prefixes)+len(r.Regexes) > 0 {
		return k, false
	}
	if len(r.Methods) > 0 {
		k.method = 1
		if !slices.Contains(r.Methods, method) {
			return k, false
		}
	}
	return k, true
}

// firstWith is where in the file a regular expression stands first. The tests
// give it one listener at most and hosts that do not overlap with others', so
// that the place is the same for all.
func (m model) firstWith(r Rule, expr string) int {
	for i, o := range m {
		if at := slices.Index(o.Regexes, expr); at >= 0 && slices.Equal(o.Hosts, r.Hosts) && slices.Equal(o.Listeners, r.Listeners) {
			return 100*i + at
		}
	}
	return 0
}

func subset(t *rapid.T, label string, from ...string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, 2, rapid.ID[string]).Draw(t, label)
}

func drawRule(t *rapid.T, i int) Rule {
	r := Rule{Proxy: proxy(fmt.Sprint("p", i))}
	r.Hosts = subset(t, "hosts", "a.b.c", "b.c", "*.b.c", "*.c", "*.a.b.c", "x")
	r.Methods = subset(t, "methods", "GET", "POST")
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		r.Paths = subset(t, "paths", "/", "/a", "/a/", "/a/b", "/ab")
	case 1:
		r.Prefixes = subset(t, "prefixes", "/", "/a", "/a/b", "/a/b/c", "/ab")
	case 2:
		// A regular expression's place in the file counts within its host and
		// listener: with one host the model needs no more than that.
		r.Regexes = subset(t, "regexes", "/a.*", "/.*", "/a/b", "/[ab]+")
		r.Hosts = r.Hosts[:min(1, len(r.Hosts))]
		return r
	}
	r.Listeners = subset(t, "listeners", "l1", "l2")
	return r
}

// TestModel compares the index with the model on random rules and requests.
func TestModel(t *testing.T) {
	compared := 0
	rapid.Check(t, func(t *rapid.T) {
		var rules []Rule
		var x *Index
		for i := range rapid.IntRange(0, 12).Draw(t, "rules") {
			more := append(slices.Clip(rules), drawRule(t, i))
			next, err := New(more...)
			if err != nil {
				continue // a tie: the rule is left out
			}
			rules, x = more, next
		}
		if x == nil {
			return
		}
		for range 20 {
			listener := rapid.SampledFrom([]string{"l1", "l2", "l3"}).Draw(t, "listener")
			method := rapid.SampledFrom([]string{"GET", "POST", "PUT"}).Draw(t, "method")
			host := rapid.SampledFrom([]string{"a.b.c", "b.c", "c", "x", "q.a.b.c", "q.b.c", "q", ""}).Draw(t, "host")
			path := rapid.SampledFrom([]string{"/", "/a", "/a/", "/ab", "/a/b", "/a/b/c/d", "/a/bc", "/z"}).Draw(t, "path")
			var got *cirque.Proxy
			if m, ok := x.Match(listener, method, host, path); ok {
				got = m.Proxy
			}
			if want := model(rules).match(listener, method, host, path); got != want {
				t.Fatalf("%s %s %s%s: index says %v, model says %v", listener, method, host, path, name(got), name(want))
			}
			compared++
		}
	})
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

// TestTies proves with the model's eyes that New refuses two rules exactly when
// there is a request that both match equally well.
func TestTies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := model{drawRule(t, 0), drawRule(t, 1)}
		_, err := New(rules...)
		tie := false
		for _, l := range []string{"l1", "l2", "l3"} {
			for _, m := range []string{"GET", "POST", "PUT"} {
				for _, h := range []string{"a.b.c", "b.c", "x", "q.a.b.c", "q.b.c", "q.c", "q"} {
					for _, p := range []string{"/", "/a", "/a/", "/ab", "/a/b", "/a/b/c", "/ba", "/zz"} {
						a, ok1 := rules.rank(rules[0], l, m, h, p)
						b, ok2 := rules.rank(rules[1], l, m, h, p)
						tie = tie || ok1 && ok2 && a == b
					}
				}
			}
		}
		if tie && err == nil {
			t.Fatalf("a tie was not found in %+v", rules)
		}
	})
}

func name(p *cirque.Proxy) string {
	if p == nil {
		return "nothing"
	}
	return p.Name
}
