// Package route finds the Proxy of a request among thousands: it turns rules
// over listener, host, path and method into an [Index] whose cost per request
// does not grow with their number. It knows nothing of files.
//
// The most specific rule that matches wins, whatever the order of the rules:
//
//  1. an exact host, then the longest wildcard (*.example.com), then any host;
//  2. an exact path, then the longest prefix, then the regular expressions in
//     the order of the rules, then any path;
//  3. a method, then any method.
//
// Where the best host has no rule for the path, the next best host is asked,
// and so on. Listeners limit a rule; they do not make it more specific. Two
// rules that tie are an error of [New].
package route

import (
	"regexp"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/message"
)

// Rule says which requests a Proxy gets. An empty field matches everything; a
// Rule with all of them empty is the one for what nothing else matches. Within
// a field any of the values may match.
type Rule struct {
	// Listeners are the names of the listeners that the rule is limited to; see
	// cirque.Session.Listener.
	Listeners []string
	// Hosts are names without port: "api.example.com", or "*.example.com" for all
	// names below example.com, not itself. Case does not matter.
	Hosts []string
	// Paths are whole paths. At most one of Paths, Prefixes and Regexes is set.
	// All three are compared with the normal form of a request's path, which is
	// what cirque's message.Request.Path returns.
	Paths []string
	// Prefixes match whole segments: "/api" and "/api/" both match "/api" and
	// "/api/x", not "/apis".
	Prefixes []string
	// Regexes are regular expressions in Go's syntax that match the whole path.
	Regexes []string
	// Methods are compared with their case.
	Methods []string

	// Proxy serves the requests. It is required.
	Proxy *cirque.Proxy
}

// Kind is how a rule's path was compared.
type Kind uint8

// The kinds, the most specific first.
const (
	Exact Kind = iota
	Prefix
	Regex
	AnyPath
)

// String returns "exact", "prefix", "regex" or "any".
func (k Kind) String() string { return [...]string{"exact", "prefix", "regex", "any"}[k] }

// Match is a rule that won, and which of its values did.
type Match struct {
	Proxy  *cirque.Proxy
	Rule   int    // its index among New's arguments
	Host   string // "" for any host
	Kind   Kind   // of Path
	Path   string // "" for any path
	Method string // "" for any method
}

// Index finds the rule of a request. It is immutable and safe for concurrent
// use.
type Index struct {
	listeners map[string]*table // those that rules name
	others    *table            // for all other listeners
}

// table holds the rules of one listener.
type table struct {
	exact    map[string]*paths
	wildcard map[string]*paths // by what follows the star: ".example.com"
	// longest is the length of wildcard's longest key. A host of 64 KiB full of
	// dots would otherwise cost a lookup per dot, each over the rest of it.
	longest int
	any     *paths
}

// paths holds the rules of one host pattern.
type paths struct {
	exact  map[string]*methods
	prefix map[string]*methods // without the slash at the end
	// longest is the length of prefix's longest key, against paths that are full
	// of slashes.
	longest int
	regexes []*regex
	any     *methods
}

type regex struct {
	re      *regexp.Regexp
	text    string
	methods *methods
}

// methods holds the rules of one host and path pattern.
type methods struct {
	named []*Match // few: a list beats a map
	any   *Match
}

// Route returns the Proxy for the session's request, nil if no rule matches.
// It is made to be a Server's Route function. It does not allocate.
func (x *Index) Route(s *cirque.Session) *cirque.Proxy {
	r := s.Request()
	if m := x.table(s.Listener()).find(r.HostView(), r.PathView(), r.Method()); m != nil {
		return m.Proxy
	}
	return nil
}

// Match returns the rule that a request for target would get, and whether
// there is one. Host may have a port, target a query.
func (x *Index) Match(listener, method, host, target string) (Match, bool) {
	var r message.Request
	r.SetMethod(method)
	r.SetAuthority(host)
	r.SetTarget(target)
	if m := x.table(listener).find(r.HostView(), r.PathView(), method); m != nil {
		return *m, true
	}
	return Match{}, false
}

func (x *Index) table(listener string) *table {
	if t := x.listeners[listener]; t != nil {
		return t
	}
	return x.others
}

func (t *table) find(host, path []byte, method string) *Match {
	if p := t.exact[string(host)]; p != nil {
		if m := p.find(path, method); m != nil {
			return m
		}
	}
	if t.longest > 0 {
		if m := t.findWildcard(host, path, method); m != nil {
			return m
		}
	}
	return t.any.find(path, method)
}

// findWildcard asks the longest wildcard first. At least one byte stands for
// the star.
func (t *table) findWildcard(host, path []byte, method string) *Match {
	for i := max(1, len(host)-t.longest); i < len(host); i++ {
		if host[i] != '.' {
			continue
		}
		if p := t.wildcard[string(host[i:])]; p != nil {
			if m := p.find(path, method); m != nil {
				return m
			}
		}
	}
	return nil
}

func (p *paths) find(path []byte, method string) *Match {
	if p == nil {
		return nil
	}
	if m := p.exact[string(path)].find(method); m != nil {
		return m
	}
	if len(p.prefix) > 0 {
		if m := p.findPrefix(path, method); m != nil {
			return m
		}
	}
	if len(path) > 0 { // "*" and CONNECT have no path
		for _, e := range p.regexes {
			if e.re.Match(path) {
				if m := e.methods.find(method); m != nil {
					return m
				}
			}
		}
	}
	return p.any.find(method)
}

// findPrefix asks the longest prefix first: the path itself, then what stands
// before each of its slashes.
func (p *paths) findPrefix(path []byte, method string) *Match {
	for i := min(len(path), p.longest); i >= 0; i-- {
		// A prefix ends where a segment does; the empty one needs a path.
		if i == len(path) && i > 0 || i < len(path) && path[i] == '/' {
			if m := p.prefix[string(path[:i])].find(method); m != nil {
				return m
			}
		}
	}
	return nil
}

func (m *methods) find(method string) *Match {
	if m == nil {
		return nil
	}
	for _, e := range m.named {
		if e.Method == method {
			return e
		}
	}
	return m.any
}
