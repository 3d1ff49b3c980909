package archtest

import (
	"bytes"
	"go/ast"
	"go/printer"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// API returns what the package in dir exports, one line each, sorted: names,
// and for types their exported fields and methods.
func (t *Tree) API(dir string) []string {
	var api []string
	for _, f := range t.Files {
		if f.Dir != dir || f.Test {
			continue
		}
		for _, d := range f.AST.Decls {
			api = append(api, t.exported(d)...)
		}
	}
	slices.Sort(api)
	return slices.Compact(api) // a file per system says the same twice
}

// exportedNames returns the exported names of package scope.
func (t *Tree) exportedNames(dir string) []string {
	var names []string
	for _, line := range t.API(dir) {
		switch kind, rest, _ := strings.Cut(line, " "); kind {
		case "const", "var", "type":
			names = append(names, strings.Fields(rest)[0])
		case "func":
			names = append(names, rest[:strings.IndexAny(rest, "[(")])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (t *Tree) exported(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		return t.exportedFunc(d)
	case *ast.GenDecl:
		var api []string
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				api = append(api, t.exportedValue(d.Tok, spec)...)
			case *ast.TypeSpec:
				if spec.Name.IsExported() {
					api = append(api, t.exportedType(spec)...)
				}
			}
		}
		return api
	}
	return nil
}

func (t *Tree) exportedFunc(d *ast.FuncDecl) []string {
	if !d.Name.IsExported() {
		return nil
	}
	sig := strings.TrimPrefix(t.print(d.Type), "func")
	if d.Recv == nil {
		return []string{"func " + d.Name.Name + sig}
	}
	if !ast.IsExported(receiver(d)) {
		return nil
	}
	return []string{"method (" + t.print(d.Recv.List[0].Type) + ") " + d.Name.Name + sig}
}

func (t *Tree) exportedValue(tok token.Token, spec *ast.ValueSpec) []string {
	var api []string
	for _, name := range spec.Names {
		if name.IsExported() {
			line := tok.String() + " " + name.Name
			if spec.Type != nil {
				line += " " + t.print(spec.Type)
			}
			api = append(api, line)
		}
	}
	return api
}

func (t *Tree) exportedType(spec *ast.TypeSpec) []string {
	name := spec.Name.Name
	head := "type " + name
	if spec.TypeParams != nil {
		var params []string
		for _, p := range spec.TypeParams.List {
			for _, n := range p.Names {
				params = append(params, n.Name+" "+t.print(p.Type))
			}
		}
		head += " [" + strings.Join(params, ", ") + "]"
	}
	if spec.Assign != token.NoPos {
		head += " ="
	}
	var fields *ast.FieldList
	switch x := spec.Type.(type) {
	case *ast.StructType:
		head, fields = head+" struct", x.Fields
	case *ast.InterfaceType:
		head, fields = head+" interface", x.Methods
	default:
		return []string{head + " " + t.print(spec.Type)}
	}
	api := []string{head}
	for _, f := range fields.List {
		if len(f.Names) == 0 {
			api = append(api, "field "+name+" embeds "+t.print(f.Type))
		}
		for _, n := range f.Names {
			if n.IsExported() {
				api = append(api, "field "+name+"."+n.Name+" "+t.print(f.Type))
			}
		}
	}
	return api
}

var space = regexp.MustCompile(`\s+`)

// print returns an expression as one line of source.
func (t *Tree) print(n ast.Node) string {
	var b bytes.Buffer
	_ = printer.Fprint(&b, t.Fset, n)
	return space.ReplaceAllString(b.String(), " ")
}

// checkDocs returns the packages without a package comment and the exported
// names without a comment of their own or of their group.
func (t *Tree) checkDocs() []string {
	var wrong []string
	documented := map[string]bool{}
	for _, f := range t.Files {
		if f.Test {
			continue
		}
		documented[f.Dir] = documented[f.Dir] || f.AST.Doc != nil
		for _, d := range f.AST.Decls {
			for _, n := range undocumented(d) {
				wrong = append(wrong, t.Fset.Position(n.Pos()).String()+": "+n.Name+" has no comment")
			}
		}
	}
	for _, dir := range t.Dirs() {
		if !documented[dir] {
			wrong = append(wrong, dir+": the package has no comment")
		}
	}
	return wrong
}

func undocumented(d ast.Decl) []*ast.Ident {
	var names []*ast.Ident
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d))) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Doc == nil && spec.Comment == nil && spec.Name.IsExported() {
					names = append(names, spec.Name)
				}
			case *ast.ValueSpec:
				if spec.Doc == nil && spec.Comment == nil && spec.Names[0].IsExported() {
					names = append(names, spec.Names[0])
				}
			}
		}
	}
	return names
}
