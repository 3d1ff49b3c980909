package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque/message"
)

// thousands returns an index of 10,000 rules: 1,000 hosts with 10 paths each.
func thousands(tb testing.TB) *Index {
	rules := []Rule{{Proxy: proxy("default")}, {Proxy: proxy("wild"), Hosts: []string{"*.wild.test"}}}
	for h := range 1000 {
		for p := range 10 {
			r := Rule{Proxy: proxy("p"), Hosts: []string{fmt.Sprintf("h%d.example.com", h)}}
			if p%2 == 0 {
				r.Paths = []string{fmt.Sprintf("/exact/%d", p)}
			} else {
				r.Prefixes = []string{fmt.Sprintf("/prefix/%d", p)}
			}
			rules = append(rules, r)
		}
	}
	x, err := New(rules...)
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

var lookups = []struct{ name, host, target string }{
	{"exact", "h500.example.com", "/exact/4"},
	{"prefix", "h500.example.com", "/prefix/3/and/some/more/of/it"},
	{"wildcard", "a.b.wild.test", "/x"},
	{"default", "nobody.test", "/a/b/c"},
}

func BenchmarkMatch10000(b *testing.B) {
	x := thousands(b)
	for _, l := range lookups {
		b.Run(l.name, func(b *testing.B) {
			var r message.Request
			r.SetMethod("GET")
			r.SetAuthority(l.host)
			r.SetTarget(l.target)
			host, path := r.HostView(), r.PathView()
			b.ReportAllocs()
			for b.Loop() {
				if x.table("web").find(host, path, "GET") == nil {
					b.Fatal("no match")
				}
			}
		})
	}
}

// BenchmarkMatchHostile is a request that is made of separators.
func BenchmarkMatchHostile(b *testing.B) {
	x := thousands(b)
	host, path := []byte(strings.Repeat("a.", 16<<10)), []byte(strings.Repeat("/a", 8<<10))
	for b.Loop() {
		x.table("web").find(host, path, "GET")
	}
}

func TestAllocsMatch(t *testing.T) {
	x := thousands(t)
	for _, l := range lookups {
		t.Run(l.name, func(t *testing.T) {
			var r message.Request
			r.SetMethod("GET")
			r.SetAuthority(l.host)
			r.SetTarget(l.target)
			n := testing.AllocsPerRun(100, func() {
				x.table("web").find(r.HostView(), r.PathView(), r.Method())
			})
			if n != 0 {
				t.Errorf("%v allocations per match, want 0", n)
			}
		})
	}
}
