package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// TestGenerated fails when schema.json or docs/config.md is not what the table
// of keys makes.
func TestGenerated(t *testing.T) {
	for file, want := range map[string][]byte{"schema.json": Schema(), "../docs/config.md": Docs()} {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); d != "" {
			t.Errorf("%s is stale: run go test ./config -update\n%s", file, d)
		}
	}
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON reads a file as an editor does.
func asJSON(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := yaml.Load(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestSchemaAcceptsWhatParseDoes validates every good file of testdata, its
// dump, and the example of the documentation.
func TestSchemaAcceptsWhatParseDoes(t *testing.T) {
	s := schema(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	good := map[string][]byte{"example": []byte(Example)}
	for _, file := range files {
		if !strings.HasPrefix(filepath.Base(file), "errors") {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			good[file], _, _ = bytes.Cut(data, []byte("----\n"))
		}
	}
	if len(good) < 4 {
		t.Errorf("only %d good files", len(good))
	}
	for name, data := range good {
		c, err := Parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(asJSON(t, data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Validate(asJSON(t, Dump(c))); err != nil {
			t.Errorf("dump of %s: %v", name, err)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	s := schema(t)
	for name, in := range map[string]string{
		"unknown key":        minimal + "lgo: {}\n",
		"missing key":        "listeners: {web: {address: ':80'}}\n",
		"empty match":        strings.Replace(minimal, "{upstream: web}", "{upstream: web, match: {}}", 1),
		"empty list":         strings.Replace(minimal, "[{upstream: web}]", "[]", 1),
		"zero duration":      minimal + "defaults: {timeouts: {total: 0}}\n",
		"number as size":     minimal + "defaults: {max_request_body: 100}\n",
		"zero count":         minimal + "defaults: {retry: {attempts: 0}}\n",
		"off where it isn't": minimal + "defaults: {retry: {attempts: 'off'}}\n",
		"another word":       minimal + "log: {level: loud}\n",
		"a name with space":  strings.Replace(minimal, "{web: {address", "{w b: {address", 1),
	} {
		if err := s.Validate(asJSON(t, []byte(in))); err == nil {
			t.Errorf("%s: the schema accepts it", name)
		}
		if _, err := Parse("c", []byte(in)); err == nil {
			t.Errorf("%s: Parse accepts it", name)
		}
	}
}

// TestEveryKeyIsDescribed: a key without a sentence is none.
func TestEveryKeyIsDescribed(t *testing.T) {
	n := 0
	var walk func(path string, keys []info)
	walk = func(path string, keys []info) {
		seen := map[string]bool{}
		for _, k := range keys {
			n++
			if !strings.HasSuffix(k.doc, ".") || k.text == "" || k.schema == nil {
				t.Errorf("%s.%s: doc %q, kind %q", path, k.name, k.doc, k.text)
			}
			if seen[k.name] {
				t.Errorf("%s.%s is there twice", path, k.name)
			}
			seen[k.name] = true
			walk(path+"."+k.name, k.keys)
		}
	}
	walk("", fileKind.keys)
	if n < 80 {
		t.Errorf("only %d keys", n)
	}
}
