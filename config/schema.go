package config

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Schema returns the JSON Schema of the file, for editors. It knows the kinds
// of values and the keys; what values have to do with each other only Parse
// does.
func Schema() []byte {
	s := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Cirque configuration",
	}
	for k, v := range fileKind.schema {
		s[k] = v
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return []byte(err.Error()) // not of maps that this package made
	}
	return append(data, '\n')
}

const docsHead = `# The configuration file

<!-- Made from the table of keys in config/keys.go by "go test ./config -update". -->

` + "`cirque run -c cirque.yaml`" + ` reads one YAML file. ` + "`cirque check -c cirque.yaml`" + ` says all that is wrong with it, each with its
place, and ` + "`--dump`" + ` prints it with every value in effect. ` + "`cirque explain -c cirque.yaml 'GET http://host/path'`" + ` says which
route, filters and peers a request gets.

` + "```yaml" + `
%s` + "```" + `

Durations have a unit (` + "`500ms`, `10s`, `1m30s`, `1h`" + `), sizes too (` + "`512B`, `64KiB`, `10MB`" + `). ` + "`off`" + ` turns a limit off; 0 is refused where
it could mean that. What is not known is refused. A value may be repeated by YAML's anchors and aliases; merge keys (` + "`<<`" + `) are not read.
An editor that knows JSON Schema can use [config/schema.json](../config/schema.json).

## Which route a request gets

The most specific match wins, whatever the order in the file:

1. an exact host, then the longest wildcard, then any host;
2. an exact path, then the longest prefix, then the regular expressions in the order of the file, then any path;
3. a method, then any method.

Where a host's routes do not match the rest of the request, those of the next best host are asked. A route can be limited to listeners; that
does not make it more specific. Two routes that tie are refused, so at most one route of each listener has no match. Nothing matched: 404.

Paths are compared in normal form: escapes of unreserved characters decoded, dot segments resolved, doubled slashes merged. They go on to the
origin as they came. What an origin could read as another path (see ` + "`allow_paths`" + `) gets 400.

`

// Example is a file that shows the most important keys.
const Example = `listeners:
  web: {address: "127.0.0.1:8080"}          # host:port, :port, or unix:/path
routes:                                     # the most specific match wins, not the file's order
  - match: {host: api.example.com, path_prefix: /v1}
    upstream: api
    timeouts: {first_byte: 10s}
    request_headers: {set: {X-From: cirque}}
  - upstream: web                           # no match: everything else
upstreams:
  api: {peers: ["127.0.0.1:9001", {address: "127.0.0.1:9002", weight: 2}]}
  web: {peers: ["127.0.0.1:9000"]}
admin: {address: "127.0.0.1:2020"}          # /metrics, /healthz, /readyz
log: {access: {output: stdout, format: json}} # absent: no access log
`

// Docs returns the description of all keys as Markdown.
func Docs() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, docsHead, Example)
	fmt.Fprintf(&b, "## The file\n\n")
	docsTable(&b, "", fileKind.keys)
	return []byte(b.String())
}

// docsTable writes a table of keys, and one of each mapping below.
func docsTable(b *strings.Builder, path string, keys []info) {
	b.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	for _, k := range keys {
		def := k.def
		switch {
		case k.required:
			def = "required"
		case def == "" && len(k.keys) > 0:
			def = "see below"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.name, cell(k.text), cell(def), cell(k.doc))
	}
	for _, k := range keys {
		if len(k.keys) == 0 {
			continue
		}
		below := strings.TrimPrefix(path+"."+k.name+k.suffix, ".")
		fmt.Fprintf(b, "\n## `%s`\n\n", below)
		if k.name == "defaults" {
			b.WriteString("The keys of `routes[]` but `name`, `match` and `upstream`, with the defaults that are said there.\n")
			continue
		}
		docsTable(b, below, k.keys)
	}
}

// cell is a text inside a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
