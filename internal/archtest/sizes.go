package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
)

// The budgets. A look is due at the first figure; the second is a wall.
const (
	lookFuncLines, maxFuncLines = 40, 100
	maxSwitchLines              = 150 // of a function that is one flat switch
	lookFileLines, maxFileLines = 500, 900
	lookPkgLines, maxPkgLines   = 3000, 6000
	lookParams, maxParams       = 4, 6
	lookExported, maxExported   = 60, 80 // names in the root
)

// Func is one function's size.
type Func struct {
	Pos    token.Position
	Name   string
	Lines  int // from its first line to its closing brace
	Params int
	Test   bool
	flat   bool // hardly more than one switch without loops in it
}

// Funcs returns the functions of the tree, the longest first.
func (t *Tree) Funcs() []Func {
	var all []Func
	for _, f := range t.Files {
		for _, d := range f.AST.Decls {
			fd, ok := d.(*ast.FuncDecl)
			if !ok || fd.Body == nil {
				continue
			}
			all = append(all, Func{
				Pos: t.Fset.Position(fd.Pos()), Name: funcName(fd), Test: f.Test,
				Lines: t.lines(fd), Params: fd.Type.Params.NumFields(), flat: t.isFlat(fd),
			})
		}
	}
	slices.SortStableFunc(all, func(a, b Func) int { return b.Lines - a.Lines })
	return all
}

func (t *Tree) lines(n ast.Node) int {
	return t.Fset.Position(n.End()).Line - t.Fset.Position(n.Pos()).Line + 1
}

// isFlat reports whether four fifths of a function are one switch whose cases
// hold neither a loop nor a switch: a table in the form of code.
func (t *Tree) isFlat(fd *ast.FuncDecl) bool {
	for _, stmt := range fd.Body.List {
		if loop, ok := stmt.(*ast.ForStmt); ok && len(loop.Body.List) == 1 {
			stmt = loop.Body.List[0]
		}
		sw, ok := stmt.(*ast.SwitchStmt)
		if !ok || t.lines(sw)*5 < t.lines(fd)*4 {
			continue
		}
		nested := false
		ast.Inspect(sw.Body, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
				nested = true
			}
			return !nested
		})
		return !nested
	}
	return false
}

// funcName is name, or receiver.name.
func funcName(fd *ast.FuncDecl) string {
	if fd.Recv == nil || len(fd.Recv.List) == 0 {
		return fd.Name.Name
	}
	return receiver(fd) + "." + fd.Name.Name
}

// receiver returns the name of the type that a method belongs to.
func receiver(fd *ast.FuncDecl) string {
	e := fd.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// PackageLines returns the lines of each package that are not tests.
func (t *Tree) PackageLines() map[string]int {
	lines := map[string]int{}
	for _, f := range t.Files {
		if !f.Test {
			lines[packageName(f.Dir)] += f.Lines
		}
	}
	return lines
}

// checkSizes returns what is over the walls.
func (t *Tree) checkSizes() []string {
	var wrong []string
	for _, f := range t.Funcs() {
		limit := maxFuncLines
		if f.flat {
			limit = maxSwitchLines
		}
		if f.Lines > limit {
			wrong = append(wrong, fmt.Sprintf("%s: %s has %d lines, at most %d", f.Pos, f.Name, f.Lines, limit))
		}
		if f.Params > maxParams && !f.Test {
			wrong = append(wrong, fmt.Sprintf("%s: %s has %d parameters, at most %d", f.Pos, f.Name, f.Params, maxParams))
		}
	}
	for _, f := range t.Files {
		if f.Lines > maxFileLines {
			wrong = append(wrong, fmt.Sprintf("%s has %d lines, at most %d", f.Path, f.Lines, maxFileLines))
		}
	}
	for pkg, n := range t.PackageLines() {
		if n > maxPkgLines {
			wrong = append(wrong, fmt.Sprintf("%s has %d lines, at most %d", pkg, n, maxPkgLines))
		}
	}
	if n := len(t.exportedNames(".")); n > maxExported {
		wrong = append(wrong, fmt.Sprintf("the root exports %d names, at most %d", n, maxExported))
	}
	return wrong
}
