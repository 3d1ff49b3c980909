package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/config"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/route"
)

func newExplain() *cobra.Command {
	var file, listener string
	cmd := &cobra.Command{
		Use:     "explain -c FILE [METHOD] URL",
		Short:   "Print which route, filters and peers a request would get",
		Long:    "Print which route, filters and peers a request would get, from the config file alone: nothing is started or asked.",
		Example: "  cirque explain -c cirque.yaml 'GET http://api.example.com/v1/users'",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := parseQuestion(strings.Join(args, " "))
			if err != nil {
				return err
			}
			c, err := load(cmd, file)
			if err != nil {
				return err
			}
			return explain(cmd.OutOrStdout(), c, file, listener, q)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&listener, "listener", "", "the `name` of the listener that gets the request; otherwise each is explained")
	return cmd
}

// question is the request to explain.
type question struct{ method, host, target string }

// parseQuestion reads "GET http://host/path". The method, the scheme and the
// path may be absent. The target stays as it is written: what a URL parser
// would repair is what one may want to ask about.
func parseQuestion(s string) (question, error) {
	q := question{method: "GET", target: "/"}
	f := strings.Fields(s)
	switch len(f) {
	case 1:
	case 2:
		q.method, f = f[0], f[1:]
	default:
		return q, fmt.Errorf("%q is not METHOD URL", s)
	}
	url, _, _ := strings.Cut(f[0], "#")
	scheme, rest, ok := strings.Cut(url, "://")
	switch {
	case !ok:
		rest = url
	case scheme != "http" && scheme != "https":
		return q, fmt.Errorf("%q: the scheme must be http or https", f[0])
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		q.target, rest = rest[i:], rest[:i]
	}
	if q.target[0] == '?' {
		q.target = "/" + q.target
	}
	if strings.Contains(rest, "@") {
		return q, errors.New("a request has no user name in its host")
	}
	q.host = rest
	return q, nil
}

// explain prints what happens to the request on each listener asked for.
func explain(w io.Writer, c *config.Config, file, listener string, q question) error {
	watch, err := newWatchFor(c, io.Discard, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer watch.close()
	b, err := c.Build(config.Options{Filters: watch.filters})
	if err != nil {
		return err
	}
	var names []string
	found := false
	for i, s := range b.Servers {
		names = append(names, s.Name)
		if listener != "" && listener != s.Name {
			continue
		}
		if found {
			fmt.Fprintln(w)
		}
		found = true
		fmt.Fprintf(w, "request   %s %s%s\n", q.method, q.host, q.target)
		fmt.Fprintf(w, "listener  %s (%s)\n", s.Name, s.Address)
		answer{w, c, b, file}.print(i, q)
	}
	if !found {
		return fmt.Errorf("there is no listener %q; there are: %s", listener, strings.Join(names, ", "))
	}
	return nil
}

// answer prints what happens to a request.
type answer struct {
	w    io.Writer
	c    *config.Config
	b    *config.Built
	file string
}

func (a answer) print(listener int, q question) {
	srv := a.b.Servers[listener]
	var r message.Request
	r.SetTarget(q.target)
	if p := r.PathProblem(); p != message.PathOK && !slices.Contains(srv.AllowPaths, p) {
		fmt.Fprintf(a.w, "refused   400: %s\n", p)
		return
	}
	m, ok := a.b.Index.Match(srv.Name, q.method, q.host, q.target)
	if !ok {
		fmt.Fprintf(a.w, "route     none: 404\n")
		a.printFilters(srv.Proxy)
		return
	}
	rt := a.c.Routes[m.Rule]
	fmt.Fprintf(a.w, "route     %s (%s:%d)\n", rt.Name, a.file, rt.Line)
	if p := r.Path(); p != strings.SplitN(q.target, "?", 2)[0] {
		fmt.Fprintf(a.w, "  path    %s, in normal form\n", p)
	}
	fmt.Fprintf(a.w, "  because %s\n", because(m))
	a.printFilters(m.Proxy)
	if q.method == "CONNECT" && !rt.Settings.AllowConnect {
		fmt.Fprintf(a.w, "refused   405: the route does not allow CONNECT\n")
		return
	}
	fmt.Fprintf(a.w, "upstream  %s\n", rt.Upstream)
	for _, u := range a.c.Upstreams {
		if u.Name == rt.Upstream {
			for _, p := range u.Peers {
				fmt.Fprintf(a.w, "  peer    %s, weight %d\n", p.Address, p.Weight)
			}
		}
	}
}

func (a answer) printFilters(p *cirque.Proxy) {
	names := make([]string, len(p.Filters))
	for i := range p.Filters {
		names[i] = p.Filters[i].Name
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	fmt.Fprintf(a.w, "filters   %s\n", strings.Join(names, ", "))
}

// because says which parts of a match won.
func because(m route.Match) string {
	var parts []string
	if m.Host != "" {
		parts = append(parts, "host "+m.Host)
	}
	if m.Kind != route.AnyPath {
		parts = append(parts, fmt.Sprintf("%s path %s", m.Kind, m.Path))
	}
	if m.Method != "" {
		parts = append(parts, "method "+m.Method)
	}
	if len(parts) == 0 {
		return "no other route matches"
	}
	return strings.Join(parts, ", ")
}
