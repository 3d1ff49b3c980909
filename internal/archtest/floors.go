package archtest

import (
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"
)

// floors is the house, from the ground up. "a, b < c" means that c may import a
// and b, and what they stand on. Names in capitals are no packages: each is a
// floor's ceiling, and stands for all below it. What is not said is forbidden.
const floors = `
	# Floor 0: what knows nothing of HTTP messages. The checks of test builds
	# are below the buffers, which use them.
	internal/invariant < internal/buf;
	internal/ascii, internal/buf, internal/memnet, internal/trim < FLOOR0;

	# Beside them: certificates for the tests of every floor.
	internal/testcert < FLOOR0;

	# Floor 1: the message, without a version of the protocol, and the closed
	# list of why things end. Both are public: what is built on the framework
	# needs their values.
	FLOOR0 < message, reason < FLOOR1;

	# Floor 2: codecs and rules, pure. What HTTP/2's streams may do stands on its frames.
	FLOOR1 < internal/h1, internal/h2frame, internal/grpc, internal/hop < FLOOR2;
	internal/h2frame < internal/h2stream < FLOOR2;

	# Floor 3: the connection.
	FLOOR2 < internal/wire < FLOOR3;

	# Floor 4: the two contracts that the engine is written against, and how a
	# message lies on a connection, whichever end we are. The contracts lend the
	# connection out for bodies that the kernel moves: they know internal/wire.
	# Listeners stand beside them: sockets, before anything of HTTP.
	FLOOR3 < internal/exchange, internal/h1io, internal/h2, listen < FLOOR4;

	# Floor 5: the two sides. They never meet below the root.
	FLOOR4 < internal/downstream, internal/upstream, internal/tunnel, internal/nethttp < FLOOR5;

	# Floor 6: the framework.
	FLOOR5 < cirque < FLOOR6;

	# Floor 7: what is built on the framework, side by side.
	FLOOR6 < route, balance, accesslog, metrics, grpcweb, cirquetest, filewatch < FLOOR7;

	# Floor 8: the configuration, and what shows a running server.
	FLOOR7 < config, admin < FLOOR8;

	# Floor 9: flags and wiring.
	FLOOR8 < cmd/cirque;

	# Beside the house: the rules themselves, and the bench, which meets proxies
	# over the network only.
	internal/archtest < internal/archtest/size;
	bench;
`

// never is what must not become true, whatever the floors say, and why.
var never = []struct {
	from, to string // a path, or a prefix that ends with /...
	why      string
}{
	{"internal/h1", "internal/h2/...", "a codec that knows the other one ends as one codec with two sets of rules"},
	{"internal/h1", "internal/h2frame", "see internal/h2"},
	{"internal/h1", "internal/h2stream", "see internal/h2"},
	{"internal/downstream", "internal/upstream", "the forward loop is the one place where the two sides meet; a shortcut between them is a second loop"},
	{"internal/upstream", "internal/downstream", "see the other direction"},
	{"internal/...", rootName, "below the root nobody sees a Session"},
	{"message", rootName, "below the root nobody sees a Session"},
	{"reason", rootName, "below the root nobody sees a Session"},
	{rootName, "internal/h1io", "how messages lie on a connection is the affair of the two sides"},
}

// onThePublicAPI are the packages that prove that the public API is enough:
// what they need and cannot get is missing in the API, for users too.
// cirquetest alone is exempt: it is the test bed, and lends internal/memnet out.
var onThePublicAPI = []string{"route", "balance", "accesslog", "metrics", "grpcweb", "config", "admin", "cmd/cirque"}

// pure are the packages that take values and return values, so that their tests
// need no network, no clock and no goroutine.
var pure = []string{"internal/ascii", "message", "reason", "internal/h1", "internal/h2frame", "internal/h2stream", "internal/grpc"}

// impure are the imports that no pure package has.
var impure = []string{"net", "net/http", "os", "sync", "sync/atomic", "context", "syscall"}

// clockReads are the functions of package time that no pure package calls. Its
// types are values like others.
var clockReads = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// foreign are the modules that the framework and what is below it may import.
// Each user of the framework gets them too.
var foreign = []string{"golang.org/x/sys/unix", "golang.org/x/net/http2/hpack"}

// order is a strict partial order over package names.
type order map[string]map[string]bool // below[a][b]: b is below a

// parseOrder reads a text like floors.
func parseOrder(text string) (order, error) {
	o := order{}
	var clean strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		clean.WriteString(line + " ")
	}
	rules := strings.Split(clean.String(), ";")
	if last := rules[len(rules)-1]; strings.TrimSpace(last) != "" {
		return nil, fmt.Errorf("no semicolon after %q", strings.TrimSpace(last))
	}
	for _, rule := range rules[:len(rules)-1] {
		var lower []string
		for _, list := range strings.Split(rule, "<") {
			var names []string
			for _, name := range strings.Split(list, ",") {
				if name = strings.TrimSpace(name); name == "" || strings.Contains(name, " ") {
					return nil, fmt.Errorf("cannot read %q", strings.TrimSpace(rule))
				}
				names = append(names, name)
				o.put(name, lower)
			}
			lower = names
		}
	}
	for name := range o {
		if o[name][name] {
			return nil, fmt.Errorf("%s is below itself", name)
		}
	}
	return o, nil
}

// put says that each of lower, and all that is below it, is below name and all
// that is above name.
func (o order) put(name string, lower []string) {
	if o[name] == nil {
		o[name] = map[string]bool{}
	}
	for above := range o {
		if above != name && !o[above][name] {
			continue
		}
		for _, l := range lower {
			o[above][l] = true
			maps.Copy(o[above], o[l])
		}
	}
}

// checkFloors returns what breaks the order: imports is what each package
// imports of the module, with the file that does.
func (o order) checkFloors(imports map[string]map[string]string) []string {
	var wrong []string
	for pkg, imps := range imports {
		if o[pkg] == nil {
			wrong = append(wrong, pkg+" is on no floor: add it to floors.go, with a reason")
			continue
		}
		for imp, file := range imps {
			if !o[pkg][imp] {
				wrong = append(wrong, fmt.Sprintf("%s: %s imports %s, which is not below it", file, pkg, imp))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// ownImports returns, by package, what it imports of the module.
func (t *Tree) ownImports() map[string]map[string]string {
	all := map[string]map[string]string{}
	for _, dir := range t.Dirs() {
		imps := t.imports(dir)
		maps.DeleteFunc(imps, func(imp, _ string) bool { return !t.isOurs(imp) })
		all[packageName(dir)] = imps
	}
	return all
}

// covers reports whether a name or a "prefix/..." stands for a package.
func covers(pattern, pkg string) bool {
	if p, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == p || strings.HasPrefix(pkg, p+"/")
	}
	return pkg == pattern
}

// checkNever returns the imports that are forbidden by name.
func checkNever(imports map[string]map[string]string) []string {
	var wrong []string
	for pkg, imps := range imports {
		for imp, file := range imps {
			for _, n := range never {
				if covers(n.from, pkg) && covers(n.to, imp) {
					wrong = append(wrong, fmt.Sprintf("%s: %s must never import %s: %s", file, pkg, imp, n.why))
				}
			}
			if slices.Contains(onThePublicAPI, pkg) && covers("internal/...", imp) {
				wrong = append(wrong, fmt.Sprintf("%s: %s must do with the public API, it imports %s", file, pkg, imp))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// checkPure returns what makes a pure package impure.
func (t *Tree) checkPure() []string {
	var wrong []string
	for _, pkg := range pure {
		for imp, file := range t.imports(pkg) {
			if slices.Contains(impure, imp) {
				wrong = append(wrong, fmt.Sprintf("%s: %s is pure, it imports %s", file, pkg, imp))
			}
		}
	}
	for _, f := range t.Files {
		if f.Test || !slices.Contains(pure, f.Dir) {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if isSelector(n, []string{"time"}, clockReads) {
				wrong = append(wrong, fmt.Sprintf("%s: %s is pure, it reads the clock", t.Fset.Position(n.Pos()), f.Dir))
			}
			return true
		})
	}
	slices.Sort(wrong)
	return wrong
}

// checkForeign returns the imports from other modules that the framework must
// not bring to its users.
func (t *Tree) checkForeign(o order) []string {
	var wrong []string
	for _, dir := range t.Dirs() {
		if pkg := packageName(dir); pkg != rootName && !o[rootName][pkg] {
			continue
		}
		for imp, file := range t.imports(dir) {
			if !isStandard(imp) && !slices.Contains(foreign, imp) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: each user of the framework would get it too", file, imp))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// isSelector reports whether n is x.name with x and name out of the lists.
func isSelector(n ast.Node, xs, names []string) bool {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && slices.Contains(xs, x.Name) && slices.Contains(names, sel.Sel.Name)
}
