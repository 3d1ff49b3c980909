package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// module is the path of the module whose rules these are.
const module = "github.com/cirqueproxy/cirque"

// rootName stands for the root package in the texts of this package.
const rootName = "cirque"

// Tree is the source of the module, whatever the build constraints of its
// files: a rule holds on every system. Immutable after Load.
type Tree struct {
	Root  string // absolute
	Fset  *token.FileSet
	Files []*File // sorted by path
	// Nested are the directories of modules inside this one, which have rules
	// of their own.
	Nested []string
}

// File is one Go file.
type File struct {
	Path  string // slash-separated, from the module's root
	Dir   string // of Path; "." for the root
	Test  bool   // named _test.go
	Lines int
	AST   *ast.File
}

// FindRoot returns the directory of go.mod, from dir upwards.
func FindRoot(dir string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		if b, err := os.ReadFile(filepath.Join(d, "go.mod")); err == nil && bytes.HasPrefix(b, []byte("module "+module+"\n")) {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod of %s above %s", module, dir)
		}
	}
}

// Load parses the Go files of the module that dir is in.
func Load(dir string) (*Tree, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := FindRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{Root: root, Fset: token.NewFileSet()}
	err = fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && p != "." && (name == "testdata" || name == "node_modules" || name[0] == '.' || name[0] == '_'):
			return fs.SkipDir
		case d.IsDir() && p != "." && t.exists(path.Join(p, "go.mod")):
			t.Nested = append(t.Nested, p)
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		return t.parse(p)
	})
	return t, err
}

func (t *Tree) parse(p string) error {
	src, err := os.ReadFile(filepath.Join(t.Root, p))
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(t.Fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.Files = append(t.Files, &File{
		Path: p, Dir: path.Dir(p), Test: strings.HasSuffix(p, "_test.go"),
		Lines: bytes.Count(src, []byte("\n")), AST: f,
	})
	return nil
}

func (t *Tree) exists(p string) bool {
	_, err := os.Stat(filepath.Join(t.Root, p))
	return err == nil
}

// read returns the text of a file of the module.
func (t *Tree) read(p string) (string, error) {
	b, err := os.ReadFile(filepath.Join(t.Root, p))
	return string(b), err
}

// Dirs returns the directories with Go code that is not a test.
func (t *Tree) Dirs() []string {
	var dirs []string
	for _, f := range t.Files {
		if !f.Test && !slices.Contains(dirs, f.Dir) {
			dirs = append(dirs, f.Dir)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// packageName is how the texts of this package call the package in dir.
func packageName(dir string) string {
	if dir == "." {
		return rootName
	}
	return dir
}

// imports returns what the code in dir that is not a test imports, each with
// the file that does. Packages of the module are called as the texts do.
func (t *Tree) imports(dir string) map[string]string {
	got := map[string]string{}
	for _, f := range t.Files {
		if f.Dir != dir || f.Test {
			continue
		}
		for _, spec := range f.AST.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			if p == module {
				p = rootName
			}
			got[strings.TrimPrefix(p, module+"/")] = f.Path
		}
	}
	return got
}

// isOurs reports whether an import as imports returns it is of this module.
func (t *Tree) isOurs(imp string) bool {
	return imp == rootName || t.exists(imp)
}

// isStandard reports whether an import is of the standard library.
func isStandard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}
