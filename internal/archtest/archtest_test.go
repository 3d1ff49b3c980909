package archtest

import (
	"flag"
	"os"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files and generated documents anew")

// loaded is the module, parsed once for all tests. It is immutable.
var loaded = sync.OnceValues(func() (*Tree, error) { return Load(".") })

func tree(t *testing.T) *Tree {
	t.Helper()
	tr, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.Files) < 20 {
		t.Fatalf("only %d files were found below %s", len(tr.Files), tr.Root)
	}
	return tr
}

func report(t *testing.T, wrong []string) {
	t.Helper()
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestFloors(t *testing.T) {
	tr := tree(t)
	o, err := parseOrder(floors)
	if err != nil {
		t.Fatal(err)
	}
	imports := tr.ownImports()
	report(t, o.checkFloors(imports))
	report(t, checkNever(imports))
	report(t, tr.checkForeign(o))
}

func TestPurePackages(t *testing.T) { report(t, tree(t).checkPure()) }

func TestEverythingIsDocumented(t *testing.T) { report(t, tree(t).checkDocs()) }

func TestSizes(t *testing.T) { report(t, tree(t).checkSizes()) }

func TestNothingIsPutOff(t *testing.T) { report(t, tree(t).checkWords()) }

const apiFile = "internal/archtest/testdata/api.txt"

func TestAPI(t *testing.T) {
	tr := tree(t)
	n := len(tr.exportedNames("."))
	t.Logf("the root exports %d names; look at %d, at most %d", n, lookExported, maxExported)
	golden(t, tr, apiFile, strings.Join(tr.API("."), "\n")+"\n")
}

func TestCompliance(t *testing.T) {
	tr := tree(t)
	c, err := tr.Citations()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, tr, "docs/compliance.md", c.Compliance())
}

const untestedFile = "internal/archtest/testdata/untested.txt"

// TestEachRuleHasATest fails for a section that code cites and no test does,
// but for those on a list that may only shrink: -update takes what is no longer
// needed off the list and never adds to it.
func TestEachRuleHasATest(t *testing.T) {
	tr := tree(t)
	c, err := tr.Citations()
	if err != nil {
		t.Fatal(err)
	}
	text, err := tr.read(untestedFile)
	if err != nil {
		t.Fatal(err)
	}
	var allowed []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			allowed = append(allowed, line)
		}
	}
	wrong, kept := checkUntested(c.Untested(), allowed)
	if !*update || len(kept) == len(allowed) {
		report(t, wrong)
		return
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line[0] == '#' {
			b.WriteString(line)
		}
	}
	for _, name := range kept {
		b.WriteString(name + "\n")
	}
	write(t, tr, untestedFile, b.String())
}

func TestArchitectureNamesEachPackage(t *testing.T) {
	tr := tree(t)
	text, err := tr.read("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	report(t, tr.checkArchitecture(text))
}

func TestFeaturesNameTestsThatExist(t *testing.T) {
	tr := tree(t)
	text, err := tr.read("docs/features.md")
	if err != nil {
		t.Fatal(err)
	}
	report(t, tr.checkFeatures(text))
}

func TestLinksLeadSomewhere(t *testing.T) {
	wrong, err := tree(t).checkLinks()
	if err != nil {
		t.Fatal(err)
	}
	report(t, wrong)
}

// golden compares a file of the module with what it should hold.
func golden(t *testing.T, tr *Tree, file, want string) {
	t.Helper()
	if *update {
		write(t, tr, file, want)
		return
	}
	got, err := tr.read(file)
	if err != nil {
		t.Fatal(err)
	}
	if got == want {
		return
	}
	t.Errorf("%s is stale; make update writes it anew", file)
	logMissing(t, "-", got, want)
	logMissing(t, "+", want, got)
}

// logMissing logs the first lines of a that b does not have.
func logMissing(t *testing.T, mark, a, b string) {
	t.Helper()
	in := lineSet(b)
	shown := 0
	for line := range strings.Lines(a) {
		if in[line] {
			continue
		}
		if shown++; shown > 5 {
			t.Log(mark, "and more")
			return
		}
		t.Log(mark, strings.TrimSpace(line))
	}
}

func lineSet(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		set[line] = true
	}
	return set
}

func write(t *testing.T, tr *Tree, file, text string) {
	t.Helper()
	if err := os.WriteFile(tr.path(file), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}
