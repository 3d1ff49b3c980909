package config

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/accesslog"
)

// The checks of single values. Each returns what is wrong, or "".

func checkListenAddress(s string) string {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return checkSocketPath(s, path)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Sprintf("%q is not host:port, :port or unix:/path%s", s, portHint(s))
	}
	return checkHostPort(s, host, port, 0)
}

func checkPeerAddress(s string) string {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return checkSocketPath(s, path)
	}
	if strings.Contains(s, "://") {
		return fmt.Sprintf("%q is a URL; write host:port", s)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Sprintf("%q is not host:port or unix:/path%s", s, portHint(s))
	}
	if host == "" {
		return fmt.Sprintf("%q has no host", s)
	}
	if wrong := checkHostPort(s, host, port, 1); wrong != "" {
		return wrong
	}
	if err := cirque.NewPeer(s).Validate(); err != nil {
		return err.Error()
	}
	return ""
}

// portHint helps with the most usual slip.
func portHint(s string) string {
	if _, err := strconv.Atoi(s); err == nil {
		return fmt.Sprintf("; did you mean %q?", ":"+s)
	}
	if !strings.Contains(s, ":") {
		return ": the port is missing"
	}
	return ""
}

// maxSocketPath is what the address of a socket has room for on all systems.
const maxSocketPath = 103

func checkSocketPath(s, path string) string {
	switch {
	case path == "":
		return fmt.Sprintf("%q has no path", s)
	case len(path) > maxSocketPath:
		return fmt.Sprintf("the socket's path has %d bytes, more than %d", len(path), maxSocketPath)
	case strings.ContainsRune(path, 0):
		return fmt.Sprintf("%q holds a NUL", s)
	}
	return ""
}

func checkHostPort(s, host, port string, lowest int) string {
	if n, err := strconv.Atoi(port); err != nil || n < lowest || n > 65535 || port[0] == '+' || port[0] == '-' {
		return fmt.Sprintf("%q: the port must be a number between %d and 65535", s, lowest)
	}
	if host == "" {
		return ""
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	if strings.Contains(host, ":") || strings.Trim(host, "0123456789.") == "" {
		return fmt.Sprintf("%q: %q is no IP address", s, host)
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || strings.IndexFunc(label, notInHost) >= 0 || label[0] == '-' {
			return fmt.Sprintf("%q: %q is no host name", s, host)
		}
	}
	return ""
}

func notInHost(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_')
}

func checkPrefix(s string) string {
	if _, err := parsePrefix(s); err != nil {
		return fmt.Sprintf("%q is no address and no prefix such as 10.0.0.0/8", s)
	}
	return ""
}

// parsePrefix reads an address as the prefix that holds only it.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// checkToken: RFC 9110, section 5.6.2.
func checkToken(s string) string {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return fmt.Sprintf("%q: %q cannot be part of a name", s, c)
		}
	}
	return ""
}

// framing are the fields that belong to a connection or frame a message. The
// engine alone sets them; with a wrong one the parties disagree on where a
// message ends.
//
// RFC 9110, section 7.6.1, and RFC 9112, section 6.
var framing = []string{
	"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// checkEdit returns the check of a field's name in an edit.
func checkEdit(request, set bool) func(string) string {
	return func(name string) string {
		lower := strings.ToLower(name)
		switch {
		case name == "":
			return "a field name is empty"
		case checkToken(name) != "":
			return checkToken(name)
		case slices.Contains(framing, lower):
			return fmt.Sprintf("%s belongs to the connection and cannot be changed", name)
		case lower == "host" && !(request && set):
			return "Host can only be set, in a request: each has exactly one"
		}
		return ""
	}
}

// checkFieldValue: RFC 9110, section 5.5.
func checkFieldValue(s string) string {
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Sprintf("the value holds the control character %q", c)
		}
	}
	return ""
}

// fields is a mapping from field names to a value or a list of them.
func fields(checkName func(string) string) kind[[]*Field] {
	value := map[string]any{"type": []string{"string", "number", "boolean"}}
	return notEmpty(kind[[]*Field]{
		text: "a mapping from field names to values",
		schema: map[string]any{"type": "object", "additionalProperties": map[string]any{
			"oneOf": []any{value, map[string]any{"type": "array", "minItems": 1, "items": value}}}},
		read: func(r *reader, n *yaml.Node, dst *[]*Field) {
			seen := map[string]string{}
			var names []string
			values := r.mapping(n, func(name string, at *yaml.Node) bool {
				lower := strings.ToLower(name)
				if wrong := checkName(name); wrong != "" {
					r.fail(at, "%s: %s", r.at(), wrong)
				} else if seen[lower] != "" {
					r.fail(at, "%s: %q is %q again: the case of field names does not matter", r.at(), name, seen[lower])
				}
				seen[lower] = name
				names = append(names, name)
				return true
			})
			if values == nil {
				return
			}
			*dst = nil
			for _, name := range names {
				r.within(name, func() { readFields(r, name, values[name], dst) })
			}
		},
		dump: dumpFields,
	}, "")
}

func readFields(r *reader, name string, n *yaml.Node, dst *[]*Field) {
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		if list = n.Content; len(list) == 0 {
			r.fail(n, "%s: the list is empty", r.at())
		}
	}
	for _, v := range list {
		v = r.resolve(v)
		switch {
		case v == nil:
			return
		case v.Kind != yaml.ScalarNode || v.ShortTag() == "!!null":
			r.fail(v, "%s: want a text, got %s", r.at(), describe(v))
		case checkFieldValue(v.Value) != "":
			r.fail(v, "%s: %s", r.at(), checkFieldValue(v.Value))
		default:
			*dst = append(*dst, &Field{name, v.Value})
		}
	}
}

func dumpFields(v *[]*Field) *yaml.Node {
	if len(*v) == 0 {
		return nil
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i, f := range *v {
		s := scalar("!!str", f.Value)
		switch {
		case i == 0 || (*v)[i-1].Name != f.Name:
			n.Content = append(n.Content, scalar("!!str", f.Name), s)
		default:
			last := n.Content[len(n.Content)-1]
			if last.Kind != yaml.SequenceNode {
				last = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{last}}
				n.Content[len(n.Content)-1] = last
			}
			last.Content = append(last.Content, s)
		}
	}
	return n
}

func checkAccessFormat(s string) string { return checkAccess(accesslog.Options{Format: s}) }
func checkAccessField(s string) string  { return checkAccess(accesslog.Options{Fields: []string{s}}) }

func checkAccess(o accesslog.Options) string {
	o.Output = io.Discard
	l, err := accesslog.New(o)
	if err != nil {
		return err.Error()
	}
	l.Close()
	return ""
}

// hidden is a kind that the dump leaves out.
func hidden[V any](k kind[V]) kind[V] {
	k.dump = func(*V) *yaml.Node { return nil }
	return k
}
