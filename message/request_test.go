package message

import (
	"strings"
	"testing"
)

func requestTo(target string) *Request {
	r := &Request{}
	r.SetMethod("GET")
	r.LoadTarget([]byte(target))
	return r
}

func TestPath(t *testing.T) {
	tests := []struct {
		name, target, path string
		problem            PathProblem
	}{
		{"root", "/", "/", PathOK},
		{"plain", "/a/b", "/a/b", PathOK},
		{"slash at the end", "/a/", "/a/", PathOK},
		{"query", "/a?b/../c", "/a", PathOK},
		{"empty query", "/a?", "/a", PathOK},
		{"asterisk", "*", "", PathOK},
		{"authority", "a.test:443", "", PathOK},
		// RFC 3986, section 6.2.2: escapes in upper case, those of unreserved
		// characters decoded; section 2.3 says which these are.
		{"unreserved", "/%41%7a%30%2D%5f%7E", "/Az0-_~", PathOK},
		{"reserved", "/%3a%3F%20%c3%A9", "/%3A%3F%20%C3%A9", PathOK},
		{"percent", "/%2541", "/%2541", PathOK},
		{"other bytes", "/<\xff\"", "/<\xff\"", PathOK},
		// RFC 3986, section 5.2.4: dot segments.
		{"dot", "/a/./b", "/a/b", PathOK},
		{"dot first", "/./a", "/a", PathOK},
		{"dot last", "/a/.", "/a/", PathOK},
		{"dot alone", "/.", "/", PathOK},
		{"two dots", "/a/../b", "/b", PathOK},
		{"two dots last", "/a/b/..", "/a/", PathOK},
		{"two dots to the root", "/a/..", "/", PathOK},
		{"two dots and slash", "/a/../", "/", PathOK},
		{"encoded dots", "/a/%2e%2E/b", "/b", PathOK},
		{"half encoded dots", "/a/.%2e/b", "/b", PathOK},
		{"three dots", "/a/.../b", "/a/.../b", PathOK},
		{"dots in names", "/a./.b/..c/d..", "/a./.b/..c/d..", PathOK},
		{"doubled slashes", "//a///b//", "/a/b/", PathOK},
		{"only slashes", "////", "/", PathOK},
		{"doubled slash and dots", "/a//../b", "/b", PathOK},
		{"slash after dots", "/a/..//b", "/b", PathOK},
		{"above", "/..", "/", PathAboveRoot},
		{"above and down", "/../a", "/a", PathAboveRoot},
		{"above later", "/a/../../b", "/b", PathAboveRoot},
		{"above through slashes", "//../a", "/a", PathAboveRoot},
		{"above encoded", "/%2e%2e/a", "/a", PathAboveRoot},
		{"encoded NUL", "/a%00b", "/a%00b", PathNUL},
		{"encoded slash", "/a%2fb", "/a%2Fb", PathHiddenSeparator},
		{"backslash", `/a\b`, `/a\b`, PathHiddenSeparator},
		{"encoded backslash", "/a%5cb", "/a%5Cb", PathHiddenSeparator},
		{"dots and encoded slash", "/a/..%2fb", "/a/..%2Fb", PathHiddenSeparator},
		{"broken escape", "/a%zz", "/a%zz", PathBadEscape},
		{"escape cut short", "/a%4", "/a%4", PathBadEscape},
		{"percent last", "/a%", "/a%", PathBadEscape},
		{"the gravest counts", "/a%2f/../../%00", "/%00", PathAboveRoot},
		{"in a query nothing counts", "/a?%2f%00%zz/../..", "/a", PathOK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := requestTo(tt.target)
			if r.Path() != tt.path || string(r.PathView()) != tt.path || r.PathProblem() != tt.problem {
				t.Errorf("got %q %v, want %q %v", r.Path(), r.PathProblem(), tt.path, tt.problem)
			}
			if r.Target() != tt.target {
				t.Errorf("the target became %q", r.Target())
			}
		})
	}
}

func TestPathProblemString(t *testing.T) {
	seen := map[string]bool{}
	for p := PathOK; p <= PathHiddenSeparator; p++ {
		if s := p.String(); seen[s] || (s == "") != (p == PathOK) {
			t.Errorf("%d says %q", p, s)
		} else {
			seen[s] = true
		}
	}
}

func TestQuery(t *testing.T) {
	for target, want := range map[string]string{"/a": "", "/a?": "", "/a?b=c?d": "b=c?d", "/?%zz": "%zz", "*": ""} {
		r := requestTo(target)
		if r.Query() != want {
			t.Errorf("%s: %q", target, r.Query())
		}
		if (r.QueryView() == nil) != !strings.Contains(target, "?") {
			t.Errorf("%s: view %q", target, r.QueryView())
		}
	}
}

func TestHasPathPrefix(t *testing.T) {
	tests := []struct {
		target, prefix string
		want           bool
	}{
		{"/api", "/api", true},
		{"/api", "/api/", true},
		{"/api/", "/api", true},
		{"/api/x", "/api", true},
		{"/api/x", "/api/", true},
		{"/api/x/y", "/api/x", true},
		{"/api?x", "/api", true},
		{"/apis", "/api", false},
		{"/ap", "/api", false},
		{"/", "/api", false},
		{"/x/api", "/api", false},
		{"/API", "/api", false},
		{"/x", "/", true},
		{"/x", "", true},
		{"/", "/", true},
		// What counts is the normalized path.
		{"//api/./x", "/api", true},
		{"/x/../api/y", "/api", true},
		{"/%61pi/x", "/api", true},
		{"/api/../secret", "/api", false},
	}
	for _, tt := range tests {
		if got := requestTo(tt.target).HasPathPrefix(tt.prefix); got != tt.want {
			t.Errorf("%q has prefix %q: %t", tt.target, tt.prefix, got)
		}
	}
}

func TestPathFollowsTarget(t *testing.T) {
	r := requestTo("/a/../b?c")
	kept := r.Path()
	r.SetTarget("/x//y?z")
	if kept != "/b" || r.Path() != "/x/y" || r.Query() != "z" || r.Target() != "/x//y?z" {
		t.Errorf("%q %q %q %q", kept, r.Path(), r.Query(), r.Target())
	}
	r.LoadTarget([]byte("/.."))
	if r.PathProblem() != PathAboveRoot {
		t.Errorf("problem %v", r.PathProblem())
	}
	r.Reset()
	if r.Path() != "" || r.Query() != "" || r.Target() != "" || r.PathProblem() != PathOK {
		t.Errorf("after Reset: %q %q %q", r.Path(), r.Query(), r.Target())
	}
}

func TestHost(t *testing.T) {
	for authority, want := range map[string]string{
		"": "", "a": "a", "A.Test": "a.test", "a.test:80": "a.test", "a.test.": "a.test", "a.test.:80": "a.test",
		".": ".", "[::1]": "[::1]", "[2001:DB8::A]:443": "[2001:db8::a]", "1.2.3.4:5": "1.2.3.4", "a.test:": "a.test",
	} {
		r := &Request{}
		if authority != "" {
			r.SetAuthority(authority)
		}
		if r.Host() != want || string(r.HostView()) != want || r.Authority() != authority || string(r.AuthorityView()) != authority {
			t.Errorf("%q: host %q, authority %q", authority, r.Host(), r.Authority())
		}
	}
	r := &Request{}
	r.Header.Add("host", "a.test")
	kept := r.Host()
	r.Header.Set("Host", "B.test")
	if kept != "a.test" || r.Host() != "b.test" {
		t.Errorf("after an edit: %q %q", kept, r.Host())
	}
	r.Header.Del("Host")
	if r.Host() != "" {
		t.Errorf("after removal: %q", r.Host())
	}
}

func TestRequestCopyFrom(t *testing.T) {
	o := requestTo("/a/../b?q")
	o.SetMethodBytes([]byte("Own"))
	o.SetScheme("https")
	o.SetLength(5)
	o.SetAuthority("a.test:1")
	o.Trailer.Add("X", "1")
	r := requestTo("/other")
	_, _ = r.Path(), r.Host()
	r.CopyFrom(o)
	check := func(name string, r *Request) {
		t.Helper()
		if r.Method() != "Own" || r.Scheme() != "https" || r.Length() != 5 || r.Host() != "a.test" || r.Path() != "/b" ||
			r.Query() != "q" || r.Target() != "/a/../b?q" || r.Trailer.Get("x") != "1" {
			t.Errorf("%s: %s %s %d %s %s %s %s", name, r.Method(), r.Scheme(), r.Length(), r.Host(), r.Path(), r.Target(), r.Trailer.Get("x"))
		}
	}
	check("copy", r)
	o.Reset()
	o.SetTarget("/changed")
	o.SetAuthority("changed")
	check("copy after a change of the original", r)
	if o.Method() != "" || o.Scheme() != "http" || o.Length() != 0 || o.Trailer.Len() != 0 {
		t.Error("Reset leaves something")
	}
}

func TestInvalidHead(t *testing.T) {
	tests := []struct{ method, target, want string }{
		{"GET", "/", ""}, {"GET", "/a?b", ""}, {"OPTIONS", "*", ""}, {"CONNECT", "a:1", ""}, {"M-x", "/\xff", ""},
		{"", "/", "method"}, {"GE T", "/", "method"}, {"GET\r\n", "/", "method"},
		{"GET", "", "target"}, {"GET", "a", "target"}, {"GET", "/ b", "target"}, {"GET", "/\r\nX: 1", "target"},
		{"GET", "/#a", "target"}, {"GET", "http://a/", "target"}, {"GET", "/\x7f", "target"},
	}
	for _, tt := range tests {
		r := &Request{}
		r.SetMethod(tt.method)
		r.SetTarget(tt.target)
		if got := r.InvalidHead(); got != tt.want {
			t.Errorf("%q %q: %q", tt.method, tt.target, got)
		}
	}
}

func TestSetLength(t *testing.T) {
	var r Request
	var p Response
	for n, want := range map[int64]int64{-9: -1, -1: -1, 0: 0, 7: 7} {
		r.SetLength(n)
		p.SetLength(n)
		if r.Length() != want || p.Length() != want {
			t.Errorf("%d: %d %d", n, r.Length(), p.Length())
		}
	}
}

func TestResponseReason(t *testing.T) {
	// RFC 9110, section 16.2: registered codes have a usual phrase.
	r := Response{Status: 404}
	check := func(want string) {
		t.Helper()
		if r.Reason() != want || string(r.AppendReason([]byte("x "))) != "x "+want {
			t.Errorf("got %q, want %q", r.Reason(), want)
		}
	}
	check("Not Found")
	r.Status = 799
	check("")
	r.SetReason("My\r\nOwn\x00\x7f")
	check("My  Own  ")
	kept := r.Reason()
	r.LoadReason([]byte("Other one"))
	check("Other one")
	r.LoadReason(nil)
	check("")
	r.SetReason("")
	r.Status = 200
	check("OK")
	if kept != "My  Own  " {
		t.Errorf("what was returned became %q", kept)
	}
	for _, status := range []int{-1, 0, 99, 512, 1000} {
		if StatusText(status) != "" {
			t.Errorf("%d is %q", status, StatusText(status))
		}
	}
}

func TestResponseCopyFrom(t *testing.T) {
	var o, r Response
	o.Status = 200
	o.LoadReason([]byte("Fine"))
	o.SetLength(3)
	o.Header.Add("X", "1")
	o.Trailer.Add("Y", "2")
	r.CopyFrom(&o)
	o.Reset()
	o.LoadReason([]byte("Else"))
	if r.Status != 200 || r.Reason() != "Fine" || r.Length() != 3 || r.Header.Get("x") != "1" || r.Trailer.Get("y") != "2" {
		t.Errorf("%d %q %d", r.Status, r.Reason(), r.Length())
	}
	r.Reset()
	if r.Status != 0 || r.Reason() != "" || r.Length() != 0 || r.Header.Len() != 0 || r.Trailer.Len() != 0 {
		t.Error("Reset leaves something")
	}
}

func TestPathAllocs(t *testing.T) {
	r := requestTo("/a/%41//../b?c")
	r.SetAuthority("A.test:80")
	target := []byte("/a/%41//../b?c")
	if n := testing.AllocsPerRun(100, func() {
		r.LoadTarget(target)
		if len(r.PathView()) == 0 || !r.HasPathPrefix("/a") || len(r.HostView()) == 0 || len(r.QueryView()) == 0 {
			t.Fatal("nothing there")
		}
	}); n != 0 {
		t.Errorf("%v allocations to look at a request", n)
	}
}

// FuzzTarget: what is decided by is a path in one form only.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/./b/../c//d?e", "/%2e%2E/%41%2f%00%", `/\..\a`, "*", "/a/%%34", "/..;/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		r := requestTo(target)
		path := r.Path()
		if r.Target() != target {
			t.Fatalf("the target became %q", r.Target())
		}
		raw, query, _ := strings.Cut(target, "?")
		if r.Query() != query {
			t.Fatalf("query %q, want %q", r.Query(), query)
		}
		if !strings.HasPrefix(raw, "/") {
			if path != "" {
				t.Fatalf("%q has the path %q", target, path)
			}
			return
		}
		if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") || strings.Contains(path, "?") {
			t.Fatalf("%q has the path %q", target, path)
		}
		for seg := range strings.SplitSeq(path, "/") {
			if seg == "." || seg == ".." {
				t.Fatalf("%q has the path %q", target, path)
			}
		}
		if len(path) > len(raw) {
			t.Fatalf("the path %q is longer than the target %q", path, target)
		}
		again := requestTo(path)
		if r.PathProblem() == PathOK && (again.Path() != path || again.PathProblem() != PathOK) {
			t.Fatalf("%q is %q, and that is %q (%v)", target, path, again.Path(), again.PathProblem())
		}
		if !r.HasPathPrefix(path) {
			t.Fatalf("%q does not have itself as prefix", path)
		}
	})
}
