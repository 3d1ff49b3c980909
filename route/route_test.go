package route

import (
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque"
	"github.com/google/go-cmp/cmp"
)

func proxy(name string) *cirque.Proxy { return &cirque.Proxy{Name: name} }

func TestMatch(t *testing.T) {
	x, err := New(
		Rule{Proxy: proxy("default")},
		Rule{Proxy: proxy("any-get"), Methods: []string{"GET"}},
		Rule{Proxy: proxy("host"), Hosts: []string{"Api.Example.com.", "www.example.com"}},
		Rule{Proxy: proxy("wild"), Hosts: []string{"*.example.com"}},
		Rule{Proxy: proxy("longwild"), Hosts: []string{"*.b.example.com"}},
		Rule{Proxy: proxy("exact"), Hosts: []string{"api.example.com"}, Paths: []string{"/v1"}},
		Rule{Proxy: proxy("prefix"), Hosts: []string{"api.example.com"}, Prefixes: []string{"/v1/"}},
		Rule{Proxy: proxy("deep"), Hosts: []string{"api.example.com"}, Prefixes: []string{"/v1/a/b"}},
		Rule{Proxy: proxy("re1"), Hosts: []string{"api.example.com"}, Regexes: []string{`/x/[0-9]+`}},
		Rule{Proxy: proxy("re2"), Hosts: []string{"api.example.com"}, Regexes: []string{`/x/.*`}},
		Rule{Proxy: proxy("post"), Hosts: []string{"api.example.com"}, Paths: []string{"/form"}, Methods: []string{"POST", "PUT"}},
		Rule{Proxy: proxy("internal"), Hosts: []string{"ops.example.com"}, Listeners: []string{"ops"}},
		Rule{Proxy: proxy("v6"), Hosts: []string{"[::1]"}},
		Rule{Proxy: proxy("root"), Hosts: []string{"root.test"}, Prefixes: []string{"/"}},
		Rule{Proxy: proxy("only"), Hosts: []string{"star.test"}, Regexes: []string{`.*`}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, listener, method, host, target, want string }{
		{"exact host before wildcard", "", "GET", "www.example.com", "/", "host"},
		{"case, port and dot of the host", "", "GET", "WWW.Example.COM.:8080", "/", "host"},
		{"wildcard", "", "GET", "x.example.com", "/", "wild"},
		{"wildcard stands for several labels", "", "GET", "x.y.example.com", "/", "wild"},
		{"longest wildcard", "", "GET", "x.b.example.com", "/", "longwild"},
		{"the longest wildcard's own name is the shorter's", "", "GET", "b.example.com", "/", "wild"},
		{"wildcard does not match its own name", "", "PUT", "example.com", "/", "default"},
		{"wildcard needs a label", "", "PUT", ".example.com", "/", "default"},
		{"no host", "", "PUT", "", "/", "default"},
		{"IPv6 host with port", "", "GET", "[::1]:80", "/", "v6"},
		{"exact path before prefix", "", "GET", "api.example.com", "/v1", "exact"},
		{"query is not compared", "", "GET", "api.example.com", "/v1?a=/b", "exact"},
		{"prefix", "", "GET", "api.example.com", "/v1/x", "prefix"},
		{"prefix with its slash", "", "GET", "api.example.com", "/v1/", "prefix"},
		{"prefix takes whole segments", "", "GET", "api.example.com", "/v10", "host"},
		{"longest prefix", "", "GET", "api.example.com", "/v1/a/b/c", "deep"},
		{"longest prefix takes whole segments", "", "GET", "api.example.com", "/v1/a/bc", "prefix"},
		{"normal form is compared", "", "GET", "api.example.com", "/x/../v1//a/%62", "deep"},
		{"first regex", "", "GET", "api.example.com", "/x/12", "re1"},
		{"second regex", "", "GET", "api.example.com", "/x/12a", "re2"},
		{"regex matches the whole path", "", "GET", "api.example.com", "/a/x/12", "host"},
		{"method", "", "PUT", "api.example.com", "/form", "post"},
		{"another method falls back to a less specific path", "", "GET", "api.example.com", "/form", "host"},
		{"method after host", "", "GET", "nobody.test", "/", "any-get"},
		{"listener", "ops", "GET", "ops.example.com", "/", "internal"},
		{"not on other listeners", "web", "GET", "ops.example.com", "/", "wild"},
		{"rules without listeners hold on all", "ops", "GET", "www.example.com", "/", "host"},
		{"root prefix", "", "PUT", "root.test", "/a", "root"},
		{"the asterisk has no path", "", "OPTIONS", "root.test", "*", "default"},
		{"nor matches a regex", "", "OPTIONS", "star.test", "*", "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, ok := x.Match(tt.listener, tt.method, tt.host, tt.target)
			if !ok {
				t.Fatal("no match")
			}
			if m.Proxy.Name != tt.want {
				t.Errorf("got %s, want %s", m.Proxy.Name, tt.want)
			}
		})
	}
}

func TestNothingMatches(t *testing.T) {
	x, err := New(Rule{Proxy: proxy("a"), Hosts: []string{"a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := x.Match("", "GET", "b.test", "/"); ok {
		t.Errorf("got %+v, want nothing", m)
	}
	if x, err = New(); err != nil {
		t.Fatal(err)
	}
	if m, ok := x.Match("", "GET", "b.test", "/"); ok {
		t.Errorf("empty index: got %+v, want nothing", m)
	}
}

func TestMatchTellsWhichValuesWon(t *testing.T) {
	p := proxy("p")
	x, err := New(Rule{Proxy: proxy("other")},
		Rule{Proxy: p, Hosts: []string{"a.test", "*.B.test"}, Prefixes: []string{"/a", "/b/"}, Methods: []string{"GET"}})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := x.Match("", "GET", "x.b.test", "/b/c")
	want := Match{Proxy: p, Rule: 1, Host: "*.b.test", Kind: Prefix, Path: "/b/", Method: "GET"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestErrors(t *testing.T) {
	p, q := proxy("p"), proxy("q")
	for _, tt := range []struct {
		name  string
		rules []Rule
		want  []string
	}{
		{"no proxy", []Rule{{}}, []string{"rule 0: it has no Proxy"}},
		{"two defaults", []Rule{{Proxy: p}, {Proxy: q}}, []string{`rule 1: it ties with "p": both match everything`}},
		{"default on one listener", []Rule{{Proxy: p}, {Proxy: q, Listeners: []string{"a"}}},
			[]string{`rule 1: it ties with "p": both match everything`}},
		{"same prefix with and without slash", []Rule{
			{Proxy: p, Hosts: []string{"a.test"}, Prefixes: []string{"/x"}, Methods: []string{"GET"}},
			{Proxy: q, Hosts: []string{"A.test."}, Prefixes: []string{"/x/"}, Methods: []string{"GET"}},
		}, []string{`rule 1: it ties with "p": both match GET a.test/x`}},
		{"same regex", []Rule{{Proxy: p, Regexes: []string{"/a.*"}}, {Proxy: q, Regexes: []string{"/a.*"}}},
			[]string{`rule 1: it ties with "p": both match /a.*`}},
		{"one of several hosts, once", []Rule{
			{Proxy: p, Hosts: []string{"a.test", "b.test", "c.test"}},
			{Proxy: q, Hosts: []string{"b.test", "c.test"}},
		}, []string{`rule 1: it ties with "p": both match b.test`}},
		{"twice", []Rule{{Proxy: p, Hosts: []string{"a.test", "A.test"}}}, []string{`rule 0: "A.test" is there twice`}},
		{"empty value", []Rule{{Proxy: p, Listeners: []string{""}}}, []string{`rule 0: a value is empty`}},
		{"two path fields", []Rule{{Proxy: p, Paths: []string{"/a"}, Regexes: []string{"/b"}}},
			[]string{`rule 0: only one of exact path, path prefix and path regex can be given`}},
		{"all at once", []Rule{{Proxy: p, Hosts: []string{"a b", "x:1"}, Paths: []string{"a"}, Methods: []string{"get"}}}, []string{
			`rule 0: host "a b": ' ' cannot be part of a host`,
			`rule 0: host "x:1": a port is not compared; leave it out`,
			`rule 0: path "a": it does not begin with a slash`,
			`rule 0: method "get": the case matters; write GET`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.rules...)
			if err == nil {
				t.Fatal("no error")
			}
			if d := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRefusedValues(t *testing.T) {
	for _, tt := range []struct {
		rule Rule
		want string
	}{
		{Rule{Hosts: []string{"*"}}, "leave the host out"},
		{Rule{Hosts: []string{"a.*.com"}}, "a star can only stand in front"},
		{Rule{Hosts: []string{"*example.com"}}, "a star can only stand in front"},
		{Rule{Hosts: []string{"*."}}, "a label is empty"},
		{Rule{Hosts: []string{"a..b"}}, "a label is empty"},
		{Rule{Hosts: []string{"[::1]:80"}}, "has a port"},
		{Rule{Hosts: []string{"bücher.de"}}, "xn--"},
		{Rule{Hosts: []string{"http://a"}}, "no scheme"},
		{Rule{Hosts: []string{"a<b"}}, "cannot be part of a host"},
		{Rule{Paths: []string{"/a?b"}}, "no query"},
		{Rule{Paths: []string{"/a b"}}, "%20"},
		{Rule{Paths: []string{"/ü"}}, "%C3"},
		{Rule{Paths: []string{"/a/../b"}}, `write "/b"`},
		{Rule{Prefixes: []string{"/a//"}}, `write "/a/"`},
		{Rule{Paths: []string{"/%61"}}, `write "/a"`},
		{Rule{Paths: []string{"/%zz"}}, "broken escape"},
		{Rule{Paths: []string{"/.."}}, "above the root"},
		{Rule{Regexes: []string{"("}}, "missing closing"},
		{Rule{Methods: []string{"G T"}}, "cannot be part of a method"},
		{Rule{Methods: []string{""}}, "empty"},
	} {
		tt.rule.Proxy = proxy("p")
		_, err := New(tt.rule)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.rule, err, tt.want)
		}
	}
}
