package archtest

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Words that are no record of anything: what is left to do is an issue.
// (Written in two parts, so that this file does not hold them.)
var leftovers = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b`)

// checkWords returns where code puts off, skips a test, or sleeps to wait.
func (t *Tree) checkWords() []string {
	var wrong []string
	at := func(pos token.Pos, what string) {
		wrong = append(wrong, fmt.Sprintf("%s: %s", t.Fset.Position(pos), what))
	}
	for _, f := range t.Files {
		for _, g := range f.AST.Comments {
			if w := leftovers.FindString(commentText(g)); w != "" {
				at(g.Pos(), w+" belongs into an issue or a decision record")
			}
		}
		if !f.Test {
			continue
		}
		// The files of the simulation run in the bubble that sim_test.go makes.
		fake := f.importsPath("testing/synctest") || strings.Contains(t.Fset.Position(f.AST.Pos()).Filename, "sim_")
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if isSelector(n, []string{"t", "b", "f", "tb"}, []string{"Skip", "Skipf", "SkipNow"}) {
				at(n.Pos(), "a test that is skipped proves nothing")
			}
			// Under synctest sleeping is how time is made to pass.
			if !fake && isSelector(n, []string{"time"}, []string{"Sleep"}) {
				at(n.Pos(), "a test waits for what it wants to see, it does not sleep")
			}
			return true
		})
	}
	return wrong
}

func (f *File) importsPath(p string) bool {
	return slices.ContainsFunc(f.AST.Imports, func(s *ast.ImportSpec) bool {
		got, _ := strconv.Unquote(s.Path.Value)
		return got == p
	})
}

// checkArchitecture returns the packages and nested modules that a text does
// not name.
func (t *Tree) checkArchitecture(text string) []string {
	var wrong []string
	for _, dir := range slices.Concat(t.Dirs(), t.Nested) {
		if !strings.Contains(text, "`"+packageName(dir)+"`") {
			wrong = append(wrong, "ARCHITECTURE.md does not name `"+packageName(dir)+"`")
		}
	}
	return wrong
}

var (
	link      = regexp.MustCompile(`\]\(([^)#\s]+)`)
	codeBlock = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
)

// checkLinks returns the links between the documents that lead nowhere.
func (t *Tree) checkLinks() ([]string, error) {
	var wrong []string
	err := fs.WalkDir(os.DirFS(t.Root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && p != "." && (d.Name()[0] == '.' || slices.Contains([]string{"node_modules", "target", "testdata"}, d.Name())) {
			return cmp.Or(err, fs.SkipDir)
		}
		if d.IsDir() || path.Ext(p) != ".md" {
			return nil
		}
		text, err := t.read(p)
		for _, m := range link.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
			if !strings.Contains(m[1], ":") && !t.exists(path.Join(path.Dir(p), m[1])) {
				wrong = append(wrong, fmt.Sprintf("%s: there is no %s", p, m[1]))
			}
		}
		return err
	})
	return wrong, err
}

// featureStates are what a row of docs/features.md may say of itself.
var featureStates = []string{"done", "partly", "built, no test yet", "not yet"}

var (
	featureID = regexp.MustCompile(`^[A-Z]\d+$`)
	inTicks   = regexp.MustCompile("`([^`]+)`")
	testName  = regexp.MustCompile(`^((?:[\w/]+\.)?(?:Test|Fuzz|Example|Benchmark)\w*)(?:/.*)?$`)
)

// checkFeatures returns what is wrong with the rows of docs/features.md:
// | id | what | state | proved by |. A proof is a test, as `TestX` in the root or
// `dir.TestX`, or a file of test data, each in backquotes. TestX/case names a
// case of a test; only the test is looked for.
func (t *Tree) checkFeatures(text string) []string {
	var wrong []string
	tests := t.testNames()
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 3 || !featureID.MatchString(strings.TrimSpace(cells[1])) {
			continue
		}
		id := strings.TrimSpace(cells[1])
		bad := func(format string, args ...any) {
			wrong = append(wrong, id+": "+fmt.Sprintf(format, args...))
		}
		if len(cells) != 6 {
			bad("%d columns, want 4", len(cells)-2)
			continue
		}
		if seen[id] {
			bad("there are two rows")
		}
		seen[id] = true
		state, proof := strings.TrimSpace(cells[3]), strings.TrimSpace(cells[4])
		if !slices.Contains(featureStates, state) {
			bad("the state is %q, want one of %q", state, featureStates)
		}
		named := inTicks.FindAllStringSubmatch(proof, -1)
		if state == "done" && len(named) == 0 {
			bad("it is done, and no test is named")
		}
		for _, m := range named {
			if !t.hasProof(m[1], tests) {
				bad("there is no test %s", m[1])
			}
		}
	}
	if len(seen) == 0 {
		wrong = append(wrong, "docs/features.md has no rows")
	}
	return wrong
}

// hasProof reports whether what a row names is there.
func (t *Tree) hasProof(name string, tests map[string]bool) bool {
	if strings.Contains(name, "testdata/") {
		return t.exists(name)
	}
	m := testName.FindStringSubmatch(name)
	return m != nil && tests[m[1]]
}

// testNames returns the tests of the tree as docs/features.md names them.
func (t *Tree) testNames() map[string]bool {
	names := map[string]bool{}
	for _, f := range t.Files {
		if !f.Test {
			continue
		}
		for _, d := range f.AST.Decls {
			fd, ok := d.(*ast.FuncDecl)
			if !ok || fd.Recv != nil || !isTestName(fd.Name.Name) {
				continue
			}
			if f.Dir == "." {
				names[fd.Name.Name] = true
			} else {
				names[f.Dir+"."+fd.Name.Name] = true
			}
		}
	}
	return names
}
