package message

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// list returns all fields as "name=value".
func list(h *Header) []string {
	all := []string{}
	for name, value := range h.All() {
		all = append(all, name+"="+value)
	}
	return all
}

func headerOf(fields ...string) *Header {
	h := &Header{}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		h.Add(name, value)
	}
	return h
}

func TestHeaderEdits(t *testing.T) {
	tests := []struct {
		name string
		edit func(h *Header)
		want []string
	}{
		{"nothing", func(h *Header) {}, []string{"Host=a", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4"}},
		{"add known", func(h *Header) { h.Add("accept", "5") }, []string{"Host=a", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4", "accept=5"}},
		{"add other", func(h *Header) { h.AddBytes("x-B", []byte("5")) }, []string{"Host=a", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4", "x-B=5"}},
		{"add by ID", func(h *Header) { h.AddID(IDAccept, []byte("5")) }, []string{"Host=a", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4", "Accept=5"}},
		{"set keeps place and spelling", func(h *Header) { h.Set("X-A", "5") }, []string{"Host=a", "x-A=5", "Accept=2", "ACCEPT=4"}},
		{"set known", func(h *Header) { h.SetBytes("accept", []byte("5")) }, []string{"Host=a", "x-A=1", "Accept=5", "X-a=3"}},
		{"set by ID", func(h *Header) { h.SetID(IDAccept, []byte("5")) }, []string{"Host=a", "x-A=1", "Accept=5", "X-a=3"}},
		{"set absent", func(h *Header) { h.Set("etag", "5") }, []string{"Host=a", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4", "etag=5"}},
		{"set to nothing", func(h *Header) { h.Set("Host", "") }, []string{"Host=", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4"}},
		{"del", func(h *Header) { h.Del("X-A") }, []string{"Host=a", "Accept=2", "ACCEPT=4"}},
		{"del known", func(h *Header) { h.Del("aCCEPT") }, []string{"Host=a", "x-A=1", "X-a=3"}},
		{"del by ID", func(h *Header) { h.DelID(IDAccept) }, []string{"Host=a", "x-A=1", "X-a=3"}},
		{"del absent", func(h *Header) { h.Del("X-B"); h.DelID(IDETag) }, []string{"Host=a", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4"}},
		{"del and add", func(h *Header) { h.Del("Host"); h.Add("host", "b") }, []string{"x-A=1", "Accept=2", "X-a=3", "ACCEPT=4", "host=b"}},
		{"del field", func(h *Header) { h.DelField(2) }, []string{"Host=a", "x-A=1", "X-a=3", "ACCEPT=4"}},
		{"set to its own value", func(h *Header) { h.SetBytes("x-a", h.View("accept")) }, []string{"Host=a", "x-A=2", "Accept=2", "ACCEPT=4"}},
		{"reset", func(h *Header) { h.Reset() }, []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := headerOf("Host=a", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4")
			tt.edit(h)
			if got := list(h); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestHeaderGet(t *testing.T) {
	h := headerOf("Host=a", "x-A=1", "Accept=2", "X-a=3", "ACCEPT=4", "Empty=")
	if h.Get("host") != "a" || h.Get("X-A") != "1" || h.Get("accept") != "2" || h.Get("empty") != "" || h.Get("x-b") != "" || h.Get("") != "" {
		t.Error("Get")
	}
	if string(h.View("HOST")) != "a" || h.View("x-b") != nil || h.View("empty") == nil || h.ViewID(IDETag) != nil || string(h.ViewID(IDAccept)) != "2" {
		t.Error("View")
	}
	if !h.Has("X-a") || !h.Has("empty") || h.Has("x-b") || !h.HasID(IDHost) || h.HasID(IDETag) || h.CountID(IDAccept) != 2 || h.CountID(IDETag) != 0 {
		t.Error("Has")
	}
	if v := h.Values("x-a"); !slices.Equal(v, []string{"1", "3"}) {
		t.Error(v)
	}
	if v := h.Values("Accept"); !slices.Equal(v, []string{"2", "4"}) {
		t.Error(v)
	}
	if v := h.Values("x-b"); v != nil {
		t.Error(v)
	}
}

func TestHeaderHasToken(t *testing.T) {
	h := headerOf("Connection=a, Keep-Alive ,,b", "connection=close")
	for token, want := range map[string]bool{"keep-alive": true, "CLOSE": true, "b": true, "keep": false, "alive": false, "a, b": false} {
		if h.HasToken(IDConnection, token) != want {
			t.Errorf("%q: %t", token, !want)
		}
	}
	if h.HasToken(IDTE, "a") {
		t.Error("an absent field has a token")
	}
}

func TestHeaderInvalid(t *testing.T) {
	// RFC 9110, section 5.5: what must not be in a value.
	valid := [][2]string{{"X", ""}, {"X", "a\tb"}, {"X", "caf\xe9"}, {"x!#$%&'*+-.^_`|~1", "a"}, {"Host", "a"}}
	for _, f := range valid {
		h := headerOf("A=b")
		h.Add(f[0], f[1])
		if name, bad := h.Invalid(); bad {
			t.Errorf("%q is refused for %q", f, name)
		}
	}
	invalid := [][2]string{{"X", "a\rb"}, {"X", "a\nb"}, {"X", "a\x00b"}, {"X", "a\x1fb"}, {"X", "a\x7fb"}, {"", "a"}, {"X Y", "a"}, {"X:", "a"}, {"X\r\n", "a"}, {"\xe9", "a"}, {"Host", "a\nb"}}
	for _, f := range invalid {
		h := headerOf("A=b")
		h.Add(f[0], f[1])
		name, bad := h.Invalid()
		if !bad || (name != f[0] && f[0] != "") {
			t.Errorf("%q is not refused: %q", f, name)
		}
		h = headerOf("A=b", f[0]+"=fine")
		h.Set(f[0], f[1])
		if _, bad := h.Invalid(); !bad {
			t.Errorf("%q is not refused when set", f)
		}
		var c Header
		c.CopyFrom(h)
		if _, bad := c.Invalid(); !bad {
			t.Errorf("%q is not refused in a copy", f)
		}
		h.Del(f[0])
		if f[0] != "" {
			if _, bad := h.Invalid(); bad {
				t.Errorf("%q is refused after it was removed", f)
			}
		}
	}
}

func TestHeaderLoad(t *testing.T) {
	h := headerOf("Old=1")
	head := []byte("Host: a\r\nx-B: c\r\n")
	copied := h.Load(head)
	if &copied[0] == &head[0] {
		t.Error("Load lends the caller's bytes")
	}
	if id := h.AddSpan(0, 4, 6, 7); id != IDHost {
		t.Errorf("ID %d", id)
	}
	if id := h.AddSpan(9, 12, 14, 15); id != IDOther {
		t.Errorf("ID %d", id)
	}
	h.AddParsed([]byte("ETag"), []byte("d"))
	for i := range head {
		head[i] = 'x'
	}
	if got := list(h); !slices.Equal(got, []string{"Host=a", "x-B=c", "ETag=d"}) {
		t.Errorf("got %q", got)
	}
	if _, bad := h.Invalid(); bad {
		t.Error("parsed fields are checked again")
	}
}

// TestHeaderStringsStay: what a method returned as a string is never changed by
// what happens to the Header, and neither is what it lent by an edit.
func TestHeaderStringsStay(t *testing.T) {
	h := &Header{}
	head := "First: one\r\n"
	h.Load([]byte(head))
	h.AddSpan(0, 5, 7, 10)
	kept := h.Get("first")
	var name string
	for name = range h.All() {
	}
	lent := h.View("First")
	for i := range 100 {
		h.Add(fmt.Sprint("X-", i), strings.Repeat("y", i))
		h.Set("First", fmt.Sprint(i))
	}
	if kept != "one" || name != "First" || string(lent) != "one" {
		t.Errorf("after edits: %q %q %q", kept, name, lent)
	}
	late := h.Get("X-99")
	h.Load([]byte(strings.Repeat("z", 5000)))
	if kept != "one" || name != "First" || late != strings.Repeat("y", 99) {
		t.Errorf("after another head: %q %q %q", kept, name, late)
	}
}

func TestHeaderGetAllocatesOnce(t *testing.T) {
	h := &Header{}
	h.Load([]byte("Aa: 1111\r\nBb: 2222\r\n"))
	h.AddSpan(0, 2, 4, 8)
	h.AddSpan(10, 12, 14, 18)
	if a, b := h.Get("aa"), h.Get("bb"); uintptr(unsafe.Pointer(unsafe.StringData(b)))-uintptr(unsafe.Pointer(unsafe.StringData(a))) != 10 {
		t.Error("two strings of one head are two allocations")
	}
}

func TestHeaderCopyFrom(t *testing.T) {
	o := headerOf("Host=a", "X=1", "Host=b")
	h := headerOf("Y=2", "ETag=3")
	h.CopyFrom(o)
	if got := list(h); !slices.Equal(got, []string{"Host=a", "X=1", "Host=b"}) || h.HasID(IDETag) || h.knownCount() != o.knownCount() {
		t.Errorf("got %q", got)
	}
	h.Set("X", "changed")
	h.Del("Host")
	o.Add("Z", "9")
	if got := list(o); !slices.Equal(got, []string{"Host=a", "X=1", "Host=b", "Z=9"}) {
		t.Errorf("the original is %q", got)
	}
	if got := list(h); !slices.Equal(got, []string{"X=changed"}) {
		t.Errorf("the copy is %q", got)
	}
}

func TestHeaderKeepsLittle(t *testing.T) {
	h := &Header{}
	h.Load(make([]byte, 1<<20))
	for range 1000 {
		h.AddID(IDHost, nil)
	}
	h.Reset()
	if cap(h.buf) > maxKept || cap(h.fields) > 128 {
		t.Errorf("an empty Header holds %d bytes and %d fields", cap(h.buf), cap(h.fields))
	}
}

func TestLookup(t *testing.T) {
	for id := IDOther + 1; id < idCount; id++ {
		name := id.String()
		if name == "" {
			t.Errorf("ID %d has no name", id)
		}
		for _, s := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := Lookup([]byte(s)); got != id {
				t.Errorf("%q is %d, want %d", s, got, id)
			}
		}
		for _, s := range []string{name + "x", name[1:], "x" + name} {
			if got := Lookup([]byte(s)); got == id {
				t.Errorf("%q is %s", s, got)
			}
		}
	}
	for _, s := range []string{"", "x", "x-unknown", strings.Repeat("a", 25), strings.Repeat("a", 33), "H\xcfst"} {
		if Lookup([]byte(s)) != IDOther || lookup(s) != IDOther {
			t.Errorf("%q is known", s)
		}
	}
	if IDOther.String() != "" || ID(255).String() != "" {
		t.Error("what is not known has a name")
	}
}

func TestInTrailer(t *testing.T) {
	// RFC 9110, section 6.5.1.
	for _, name := range []string{"Content-Length", "transfer-encoding", "HOST", "Authorization", "Set-Cookie", "Content-Type", "Connection", "X-Forwarded-For", "Trailer", "Expect", "Content-Encoding"} {
		if Lookup([]byte(name)).InTrailer() {
			t.Errorf("%s may come in a trailer section", name)
		}
	}
	for _, name := range []string{"X-Sum", "ETag", "Server-Timing", "Grpc-Status"} {
		if !Lookup([]byte(name)).InTrailer() {
			t.Errorf("%s may not come in a trailer section", name)
		}
	}
}

// TestSetOfRepeatedKnownField: Set removes the later fields of the name, and
// the first one is found afterwards.
func TestSetOfRepeatedKnownField(t *testing.T) {
	h := headerOf("Via=1", "Via=2", "X=3")
	h.SetID(IDVia, []byte("4"))
	if h.Get("Via") != "4" || !h.HasID(IDVia) || h.CountID(IDVia) != 1 {
		t.Errorf("Via is %q", h.Get("Via"))
	}
	h.SetID(IDVia, []byte("5"))
	if h.Len() != 2 {
		t.Errorf("fields %q", list(h))
	}
}

// model is a Header as slowly and plainly as it can be.
type model []struct{ name, value string }

func (m model) list() []string {
	all := []string{}
	for _, f := range m {
		all = append(all, f.name+"="+f.value)
	}
	return all
}

func (m *model) del(name string) {
	*m = slices.DeleteFunc(*m, func(f struct{ name, value string }) bool { return strings.EqualFold(f.name, name) })
}

func (m *model) add(name, value string) {
	*m = append(*m, struct{ name, value string }{name, value})
}

func (m *model) set(name, value string) {
	for i, f := range *m {
		if !strings.EqualFold(f.name, name) {
			continue
		}
		rest := slices.Clone((*m)[i+1:])
		(*m)[i].value = value
		tail := model(rest)
		tail.del(name)
		*m = append((*m)[:i+1], tail...)
		return
	}
	m.add(name, value)
}

func (m model) values(name string) []string {
	var all []string
	for _, f := range m {
		if strings.EqualFold(f.name, name) {
			all = append(all, f.value)
		}
	}
	return all
}

// TestHeaderModel compares random edits with the model.
func TestHeaderModel(t *testing.T) {
	names := rapid.SampledFrom([]string{"Host", "host", "HOST", "Accept", "accept", "ETag", "X-A", "x-a", "X-B", "Set-Cookie", "set-cookie", "TE", "X-Long-Name-That-Is-Longer-Than-All-Known"})
	values := rapid.SampledFrom([]string{"", "1", "two", "a, b", strings.Repeat("z", 300)})
	ids := rapid.SampledFrom([]ID{IDHost, IDAccept, IDETag, IDSetCookie, IDTE})
	rapid.Check(t, func(rt *rapid.T) {
		h, m := &Header{}, model{}
		kept := map[string]string{} // strings that were returned, and what they were
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				name, value := names.Draw(rt, "name"), values.Draw(rt, "value")
				h.Add(name, value)
				m.add(name, value)
			},
			"set": func(rt *rapid.T) {
				name, value := names.Draw(rt, "name"), values.Draw(rt, "value")
				h.Set(name, value)
				m.set(name, value)
			},
			"del": func(rt *rapid.T) {
				name := names.Draw(rt, "name")
				h.Del(name)
				m.del(name)
			},
			"by ID": func(rt *rapid.T) {
				id, value := ids.Draw(rt, "id"), values.Draw(rt, "value")
				switch rapid.IntRange(0, 2).Draw(rt, "how") {
				case 0:
					h.AddID(id, []byte(value))
					m.add(id.String(), value)
				case 1:
					h.SetID(id, []byte(value))
					m.set(id.String(), value)
				case 2:
					h.DelID(id)
					m.del(id.String())
				}
			},
			"del field": func(rt *rapid.T) {
				if len(m) == 0 {
					return
				}
				i := rapid.IntRange(0, len(m)-1).Draw(rt, "i")
				h.DelField(i)
				m = slices.Delete(m, i, i+1)
			},
			"copy": func(rt *rapid.T) {
				c := headerOf("Old=1", "Accept=2")
				c.CopyFrom(h)
				h.Add("X-After", "copy")
				h = c
			},
			"load": func(rt *rapid.T) {
				h.Load([]byte("HoSt: loaded\r\n"))
				h.AddSpan(0, 4, 6, 12)
				m = model{}
				m.add("HoSt", "loaded")
			},
			"": func(rt *rapid.T) {
				if got := list(h); !slices.Equal(got, m.list()) {
					rt.Fatalf("got %q, want %q", got, m.list())
				}
				name := names.Draw(rt, "look")
				want := m.values(name)
				if got := h.Values(name); !slices.Equal(got, want) {
					rt.Fatalf("%s: got %q, want %q", name, got, want)
				}
				first := ""
				if len(want) > 0 {
					first = want[0]
				}
				if h.Get(name) != first || string(h.View(name)) != first || h.Has(name) != (len(want) > 0) || (h.View(name) == nil) != (len(want) == 0) {
					rt.Fatalf("%s: %q %q %t, want %q", name, h.Get(name), h.View(name), h.Has(name), want)
				}
				if id := lookup(name); id != IDOther && h.CountID(id) != len(want) {
					rt.Fatalf("%s: counts %d, want %d", name, h.CountID(id), len(want))
				}
				got := h.Get(name)
				kept[strings.Clone(got)] = got
				for want, is := range kept {
					if is != want {
						rt.Fatalf("a string that was returned changed from %q to %q", want, is)
					}
				}
			},
		})
	})
}
