package archtest

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// shown is how many of the largest are printed.
const shown = 10

// PrintSizes writes how large things are, the largest first. A mark stands
// beside what is over the first figure of its budget.
func (t *Tree) PrintSizes(w io.Writer) {
	var code, tests []Func
	for _, f := range t.Funcs() {
		if f.Test {
			tests = append(tests, f)
		} else {
			code = append(code, f)
		}
	}
	fmt.Fprintf(w, "functions      %s\n", quantiles(code))
	fmt.Fprintf(w, "test functions %s\n", quantiles(tests))

	fmt.Fprintf(w, "\nlongest functions (look at %d, at most %d)\n", lookFuncLines, maxFuncLines)
	for _, f := range code[:min(shown, len(code))] {
		row(w, f.Lines, lookFuncLines, fmt.Sprintf("%s  %s:%d", f.Name, f.Pos.Filename, f.Pos.Line))
	}
	fmt.Fprintf(w, "\nmost parameters (look at %d, at most %d)\n", lookParams, maxParams)
	slices.SortStableFunc(code, func(a, b Func) int { return b.Params - a.Params })
	for _, f := range code[:min(shown, len(code))] {
		if f.Params >= lookParams {
			row(w, f.Params, lookParams, fmt.Sprintf("%s  %s:%d", f.Name, f.Pos.Filename, f.Pos.Line))
		}
	}
	files := map[string]int{}
	for _, f := range t.Files {
		files[f.Path] = f.Lines
	}
	fmt.Fprintf(w, "\nlongest files (look at %d, at most %d)\n", lookFileLines, maxFileLines)
	largest(w, files, lookFileLines)
	fmt.Fprintf(w, "\nlargest packages, without tests (look at %d, at most %d)\n", lookPkgLines, maxPkgLines)
	largest(w, t.PackageLines(), lookPkgLines)
	t.printTotals(w)
}

func (t *Tree) printTotals(w io.Writer) {
	code, tests := 0, 0
	for _, f := range t.Files {
		if f.Test {
			tests += f.Lines
		} else {
			code += f.Lines
		}
	}
	fmt.Fprintf(w, "\nlines          %d of code, %d of tests (%.2f)\n", code, tests, float64(tests)/float64(max(code, 1)))
	names := t.exportedNames(".")
	fmt.Fprintf(w, "root exports   %d names (look at %d, at most %d)\n", len(names), lookExported, maxExported)
	fmt.Fprintf(w, "  %s\n", strings.Join(names, " "))
}

func quantiles(sorted []Func) string {
	n := len(sorted)
	if n == 0 {
		return "none"
	}
	at := func(percent int) int { return sorted[n-1-(n-1)*percent/100].Lines }
	return fmt.Sprintf("%d, length p50 %d, p90 %d, longest %d lines", n, at(50), at(90), sorted[0].Lines)
}

func largest(w io.Writer, sizes map[string]int, look int) {
	names := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int {
		return cmp.Or(sizes[b]-sizes[a], strings.Compare(a, b))
	})
	for _, name := range names[:min(shown, len(names))] {
		row(w, sizes[name], look, name)
	}
}

func row(w io.Writer, n, look int, what string) {
	mark := " "
	if n > look {
		mark = "!"
	}
	fmt.Fprintf(w, "%s %5d  %s\n", mark, n, what)
}
