package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/balance"
	"github.com/cirqueproxy/cirque/route"
)

// maxFile bounds the file: what is over it is no configuration.
const maxFile = 64 << 20

// Load reads and checks a file, and the files that it names. What is wrong with its content is an error of
// type [Errors], with all that is wrong.
func Load(path string) (*Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: the file has %d bytes, more than %d", path, info.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, data, true)
}

// Parse checks the content of a file, but does not read the files that it
// names. The name of the file is for errors, which are of type [Errors], with
// all that is wrong, and for paths that are not absolute: they begin at its
// directory.
func Parse(name string, data []byte) (*Config, error) { return parse(name, data, false) }

func parse(name string, data []byte, files bool) (*Config, error) {
	r := &reader{file: name, marks: map[any]*yaml.Node{}, broken: map[any]bool{}, cfg: &Config{dir: filepath.Dir(name)}}
	root := r.parseYAML(data)
	if root == nil {
		return nil, r.sorted()
	}
	fileKind.init(r.cfg)
	r.marks[r.cfg] = root
	fileKind.read(r, root, r.cfg)
	r.check()
	if files {
		r.loadTLS()
		r.loadUpstreamTLS()
	}
	if len(r.errs) > 0 {
		return nil, r.sorted()
	}
	return r.cfg, nil
}

// Dump returns the configuration as a file with every value in effect. Reading
// it gives the same configuration.
func Dump(c *Config) []byte {
	data, err := yaml.Dump(fileKind.dump(c))
	if err != nil {
		return []byte("# " + err.Error() + "\n") // not of nodes that this package made
	}
	return data
}

// check looks at what several values have to do with each other.
func (r *reader) check() {
	r.checkAddresses()
	upstreams := namesOf(r.cfg.Upstreams, func(u *Upstream) string { return u.Name })
	listeners := namesOf(r.cfg.Listeners, func(l *Listener) string { return l.Name })
	for i, rt := range r.cfg.Routes {
		rt.Line = r.marks[rt].Line
		if rt.Name == "" {
			rt.Name = rt.Match.name()
		}
		at := fmt.Sprintf("routes.%d", i+1)
		if rt.Upstream != "" && len(upstreams) > 0 && !slices.Contains(upstreams, rt.Upstream) {
			r.failAt(&rt.Upstream, rt, "%s.upstream: there is no upstream %q%s", at, rt.Upstream, didYouMean(rt.Upstream, upstreams))
		}
		r.checkGRPCWeb(rt, at)
		if rt.Match == nil {
			continue
		}
		for _, l := range rt.Match.Listener {
			if *l != "" && len(listeners) > 0 && !slices.Contains(listeners, *l) {
				r.failAt(l, rt.Match, "%s.match.listener: there is no listener %q%s", at, *l, didYouMean(*l, listeners))
			}
		}
	}
	r.checkNames()
	r.checkRoutes()
	for _, l := range r.cfg.Listeners {
		r.checkProtocols(l)
		if l.TLS != nil {
			r.checkTLS(l)
		}
	}
	for _, u := range r.cfg.Upstreams {
		r.checkPeers(u)
		r.checkHTTP2("upstreams."+u.Name+".http2", &u.HTTP2, u)
		r.checkPreconnect(u)
		r.checkUpstreamTLS(u)
	}
}

func namesOf[V any](list []*V, name func(*V) string) []string {
	var out []string
	for _, v := range list {
		out = append(out, name(v))
	}
	return out
}

// checkAddresses reports addresses that are listened on twice.
func (r *reader) checkAddresses() {
	seen := map[string]string{}
	check := func(addr *string, parent any, path string) {
		if *addr == "" || strings.HasSuffix(*addr, ":0") {
			return
		}
		if other := seen[*addr]; other != "" {
			r.failAt(addr, parent, "%s.address: %s listens on %s already", path, other, *addr)
		}
		seen[*addr] = path
	}
	for _, l := range r.cfg.Listeners {
		check(&l.Address, l, "listeners."+l.Name)
	}
	if a := r.cfg.Admin; a != nil {
		check(&a.Address, a, "admin")
	}
}

// checkNames reports routes that are called the same: logs and metrics would not
// tell them apart. Names made from equal matches are left to the error that
// these tie.
func (r *reader) checkNames() {
	seen := map[string]int{}
	for i, rt := range r.cfg.Routes {
		at, twice := seen[rt.Name]
		if !twice {
			seen[rt.Name] = i
			continue
		}
		other := r.cfg.Routes[at]
		switch {
		case r.marks[&rt.Name] != nil:
			r.failAt(&rt.Name, rt, "routes.%d.name: route %d is called %q already", i+1, at+1, rt.Name)
		case r.marks[&other.Name] != nil || !reflect.DeepEqual(rt.rule(nil), other.rule(nil)):
			r.failAt(rt, nil, "routes.%d: without a name it is called %q, as route %d is already", i+1, rt.Name, at+1)
		}
	}
}

// checkRoutes reports what package route says about the matches. One that was
// not read as a whole is looked at alone: whether it ties nobody knows.
func (r *reader) checkRoutes() {
	var whole []route.Rule
	var at []int // index in cfg.Routes, by index in whole
	for i, rt := range r.cfg.Routes {
		rule := rt.rule(&cirque.Proxy{Name: rt.Name})
		if r.broken[&rt.Match] {
			_, err := route.New(rule)
			r.routeErrors(err, []int{i})
			continue
		}
		whole, at = append(whole, rule), append(at, i)
	}
	_, err := route.New(whole...)
	r.routeErrors(err, at)
}

// routeErrors reports route's errors; at[i] is the route that rule i was.
func (r *reader) routeErrors(err error, at []int) {
	errs, _ := err.(route.Errors)
	for _, e := range errs {
		rt := r.cfg.Routes[at[e.Rule]]
		switch {
		case strings.HasSuffix(e.Text, "a value is empty"): // said when it was read
		case e.Other >= 0:
			var p any = rt
			if rt.Match != nil {
				p = rt.Match
			}
			r.failAt(p, rt, "routes.%d: %s (routes.%d, line %d)", at[e.Rule]+1, e.Text,
				at[e.Other]+1, r.cfg.Routes[at[e.Other]].Line)
		default:
			r.failAt(rt.Match.value(e.Field, e.Value), rt, "routes.%d.match: %s", at[e.Rule]+1, e.Text)
		}
	}
}

// value returns where in the tree a value of a rule came from.
func (m *Match) value(f route.Field, i int) any {
	if m == nil {
		return nil
	}
	list := map[route.Field][]*string{
		route.FieldListeners: m.Listener, route.FieldHosts: m.Host, route.FieldMethods: m.Method,
		route.FieldPaths: m.Path, route.FieldPrefixes: m.PathPrefix, route.FieldRegexes: m.PathRegex,
	}[f]
	if i < len(list) {
		return list[i]
	}
	return nil
}

// rule returns the route as package route wants it.
func (rt *Route) rule(p *cirque.Proxy) route.Rule {
	m := rt.Match
	if m == nil {
		return route.Rule{Proxy: p}
	}
	return route.Rule{
		Listeners: texts(m.Listener), Hosts: texts(m.Host), Methods: texts(m.Method),
		Paths: texts(m.Path), Prefixes: texts(m.PathPrefix), Regexes: texts(m.PathRegex), Proxy: p,
	}
}

// name makes a name from a match: it stays the same when other routes come and
// go.
func (m *Match) name() string {
	if m == nil {
		return "default"
	}
	var b strings.Builder
	part := func(before string, v []*string, after string) {
		if len(v) > 0 {
			b.WriteString(before + strings.Join(texts(v), ",") + after)
		}
	}
	part("", m.Listener, ": ")
	part("", m.Method, " ")
	part("", m.Host, "")
	part("", m.Path, "")
	for i, p := range m.PathPrefix {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strings.TrimSuffix(*p, "/") + "/*")
	}
	part("~", m.PathRegex, "")
	return strings.TrimSuffix(strings.TrimSpace(b.String()), ":")
}

// checkPeers reports peers that are listed twice and weights that cannot be
// told apart.
func (r *reader) checkPeers(u *Upstream) {
	seen := map[string]bool{}
	members := make([]balance.Member, len(u.Peers))
	sum := 0
	for i, p := range u.Peers {
		if seen[p.Address] && p.Address != "" {
			r.failAt(&p.Address, p, "upstreams.%s.peers.%d: the peer %s is there already; give it a weight", u.Name, i+1, p.Address)
		}
		seen[p.Address] = true
		members[i] = balance.Member{Peer: cirque.NewPeer(p.Address), Weight: p.Weight}
		sum += p.Weight
	}
	if sum == 0 && len(u.Peers) > 0 {
		r.failAt(&u.Peers, u, "upstreams.%s.peers: all weights are 0: no peer would get a request", u.Name)
	}
	if _, err := balance.Weighted(members...); err != nil {
		r.failAt(&u.Peers, u, "upstreams.%s.peers: %s", u.Name, err)
	}
}

// checkPreconnect reports a number of ready connections that there can never be.
func (r *reader) checkPreconnect(u *Upstream) {
	switch at := "upstreams." + u.Name + ".preconnect"; {
	case u.Preconnect <= 0:
	case !u.KeepAlive:
		r.failAt(&u.Preconnect, u, "%s: without keep_alive no connection is used that was made before", at)
	case u.MaxConnections > 0 && u.Preconnect > u.MaxConnections:
		r.failAt(&u.Preconnect, u, "%s: %d is more than max_connections, %d", at, u.Preconnect, u.MaxConnections)
	}
}

// counted is what a limit is to the framework, for which zero means none.
func counted[N int | int64](n N) int { return int(max(n, 0)) }
