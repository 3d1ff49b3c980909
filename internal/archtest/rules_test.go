package archtest

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// These tests prove that the rules can be broken.

func TestParseOrder(t *testing.T) {
	for _, c := range []struct {
		name, text string
		err        string
		below      [][2]string // first is below second
		not        [][2]string
	}{
		{name: "one line", text: "a < b < c;", below: [][2]string{{"a", "b"}, {"a", "c"}, {"b", "c"}}, not: [][2]string{{"c", "a"}, {"b", "a"}}},
		{name: "lists", text: "a, b < c, d;", below: [][2]string{{"a", "c"}, {"b", "d"}}, not: [][2]string{{"a", "b"}, {"c", "d"}}},
		{name: "later rules reach through", text: "b < c; a < b;", below: [][2]string{{"a", "c"}}},
		{name: "ceilings", text: "a, b < F; F < c;", below: [][2]string{{"a", "c"}, {"b", "c"}}},
		{name: "comments", text: "# x < y;\na < b; # b < a;\n", below: [][2]string{{"a", "b"}}, not: [][2]string{{"b", "a"}, {"x", "y"}}},
		{name: "cycle", text: "a < b; b < c; c < a;", err: "below itself"},
		{name: "no semicolon", text: "a < b", err: "no semicolon"},
		{name: "no comma", text: "a b < c;", err: "cannot read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := parseOrder(c.text)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want an error with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range c.below {
				if !o[p[1]][p[0]] {
					t.Errorf("%s is not below %s", p[0], p[1])
				}
			}
			for _, p := range c.not {
				if o[p[1]][p[0]] {
					t.Errorf("%s is below %s", p[0], p[1])
				}
			}
		})
	}
}

func TestImportsThatBreakTheRules(t *testing.T) {
	o, err := parseOrder(floors)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"cirque", "internal/upstream", true},
		{"balance", "cirque", true},
		{"balance", "reason", true},
		{"cirquetest", "internal/memnet", true},
		{"internal/exchange", "internal/wire", true},
		{"internal/downstream", "internal/upstream", false},
		{"internal/upstream", "internal/downstream", false},
		{"internal/upstream", "cirque", false},
		{"message", "reason", false},
		{"internal/h1", "internal/h2/hpack", false},
		{"internal/wire", "internal/exchange", false},
		{"internal/archtest/size", "internal/archtest", true},
		{"balance", "route", false},
		{"balance", "internal/buf", false},
		{"cirque", "internal/h1io", false},
		{"somewhere", "message", false},
	} {
		imports := map[string]map[string]string{c.from: {c.to: "x.go"}}
		wrong := append(o.checkFloors(imports), checkNever(imports)...)
		if (len(wrong) == 0) != c.ok {
			t.Errorf("%s imports %s: got %q, want ok=%v", c.from, c.to, wrong, c.ok)
		}
	}
}

func TestCited(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"plain", "// RFC 9112, section 6.3: one length.", "RFC 9112, section 6.3"},
		{"over two lines", "// RFC 9112, section\n\t// 6.1: no coding in 1.0", "RFC 9112, section 6.1"},
		{"several of one RFC", "RFC 9112, section 5: a; section 5.1: b; section 5.2: c", "RFC 9112, section 5 RFC 9112, section 5.1 RFC 9112, section 5.2"},
		{"two RFCs", "RFC 9110, section 7.6.1; RFC 9112, section 9.6.", "RFC 9110, section 7.6.1 RFC 9112, section 9.6"},
		{"joined by and", "RFC 9110, sections 5.1 and 5.5", "RFC 9110, section 5.1 RFC 9110, section 5.5"},
		{"no section", "the errors of RFC 9209", ""},
		{"no RFC", "see section 3.1", ""},
		{"end of a sentence", "(RFC 9110, section 8.6).", "RFC 9110, section 8.6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range Cited(c.text) {
				got = append(got, s.String())
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCheckUntested(t *testing.T) {
	wrong, kept := checkUntested([]Section{{9112, "6.3"}, {9112, "7.1"}}, []string{"RFC 9112, section 6.3", "RFC 9110, section 5.5"})
	if len(wrong) != 2 || !strings.Contains(wrong[0], "7.1") || !strings.Contains(wrong[1], "5.5") {
		t.Errorf("wrong: %q", wrong)
	}
	if !slices.Equal(kept, []string{"RFC 9112, section 6.3"}) {
		t.Errorf("kept: %q", kept)
	}
}

// fake returns a tree of one module with the files.
func fake(t *testing.T, files map[string]string) *Tree {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module " + module + "\n"
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestRulesOnAFakeModule(t *testing.T) {
	long := "func long() {\n" + strings.Repeat("\tlong()\n", maxFuncLines) + "}\n"
	flat := "func flat(i int) {\n\tswitch i {\n" + strings.Repeat("\tcase 1:\n", 60) + strings.Repeat("\t\tflat(i)\n", 60) + "\t}\n}\n"
	tr := fake(t, map[string]string{
		"a.go":                      "package cirque\n\n// A is documented.\nfunc A() {}\n\nfunc B() {}\n",
		"message/m.go":              "// Package message is documented.\npackage message\n\nimport (\n\t\"sync\"\n\t\"time\"\n)\n\nvar mu sync.Mutex\nvar now = time.Now()\n",
		"internal/long/l.go":        "// Package long is.\npackage long\n\n" + long + flat + "func many(a, b, c, d, e, f, g int) {}\n",
		"internal/h1/h_test.go":     "package h1\n\nimport (\n\t\"testing\"\n\t\"time\"\n)\n\n// TO" + "DO: more. RFC 9112, section 2.2: lines.\nfunc TestX(t *testing.T) { t.Skip(); time.Sleep(1) }\n",
		"internal/h1/s_test.go":     "package h1\n\nimport (\n\t\"testing\"\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nfunc TestFake(t *testing.T) { synctest.Test(t, func(*testing.T) { time.Sleep(1) }) }\n",
		"internal/h1/h.go":          "// Package h1 is. RFC 9112, section 2.2: lines; section 6.3: ends. RFC 2606, section 2: names.\npackage h1\n\nimport _ \"example.com/x\"\n",
		"docs/d.md":                 "[a](../a.go) [b](b.md#part) [c](https://example.com/) [d](#part) `m[a](b)`\n```\nm[a](b)\n```\n",
		"nested/go.mod":             "module nested\n",
		"nested/n.go":               "package main\n",
		"internal/h1/testdata/x.go": "not Go at all",
	})
	o, err := parseOrder(floors)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tr.Citations()
	if err != nil {
		t.Fatal(err)
	}
	var untested []string
	for _, s := range c.Untested() {
		untested = append(untested, s.String())
	}
	links, err := tr.checkLinks()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		rule string
		got  []string
		want []string // a part of each line
	}{
		{"docs", tr.checkDocs(), []string{"a.go:6:6: B", ".: the package"}},
		{"pure", tr.checkPure(), []string{"imports sync", "reads the clock"}},
		{"sizes", tr.checkSizes(), []string{"long has 102 lines", "many has 7 parameters"}},
		{"words", tr.checkWords(), []string{"belongs into an issue", "skipped", "sleep"}},
		{"foreign", tr.checkForeign(o), []string{"example.com/x"}},
		{"floors", o.checkFloors(tr.ownImports()), []string{"internal/long is on no floor"}},
		{"links", links, []string{"docs/d.md: there is no b.md"}},
		{"untested", untested, []string{"6.3"}},
		{"architecture", tr.checkArchitecture("`cirque` `message` `internal/h1`"), []string{"internal/long", "nested"}},
		{"features", tr.checkFeatures("| H1 | x | done | `internal/h1.TestX/case` |\n| H2 | x | done | - |\n| H3 | x | maybe | - |\n| H4 | x | done | `TestY` |\n| H4 | x | done | `testdata/none.txt` |\n"),
			[]string{"H2: it is done", `H3: the state is "maybe"`, "H4: there is no test TestY", "H4: there are two rows", "H4: there is no test testdata"}},
	} {
		t.Run(k.rule, func(t *testing.T) {
			if len(k.got) != len(k.want) {
				t.Fatalf("got %q, want %q", k.got, k.want)
			}
			for i := range k.want {
				if !strings.Contains(k.got[i], k.want[i]) {
					t.Errorf("got %q, want %q", k.got[i], k.want[i])
				}
			}
		})
	}
}

func TestExportedLines(t *testing.T) {
	src := `package p
// T is.
type T[P any] struct { A, b int; C func(x int) error }
type u struct{ X int }
type I interface { M(a,
	b int) }
func (t *T[P]) Do(n int) {}
func (t *T[P]) hidden() {}
func (u) Shown() {}
func F[Q any](q Q) (int, error) { return 0, nil }
const K, l = 1, 2
var V error
type R = u
`
	tr := &Tree{Fset: token.NewFileSet()}
	f, err := parser.ParseFile(tr.Fset, "p.go", src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	tr.Files = []*File{{Path: "p.go", Dir: ".", AST: f}}
	want := []string{
		"const K", "field I.M func(a, b int)", "field T.A int", "field T.C func(x int) error",
		"func F[Q any](q Q) (int, error)", "method (*T[P]) Do(n int)",
		"type I interface", "type R = u", "type T [P any] struct", "var V error",
	}
	if got := tr.API("."); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := tr.exportedNames("."); !slices.Equal(got, []string{"F", "I", "K", "R", "T", "V"}) {
		t.Errorf("names: %q", got)
	}
}
