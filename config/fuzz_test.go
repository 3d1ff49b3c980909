package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzConfig: no file makes Parse panic, each error has a place inside or right
// behind the file, and what is accepted can be built and dumped, and reads back
// as what it is.
func FuzzConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		in, _, _ := bytes.Cut(data, []byte("----\n"))
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 {
			return
		}
		c, err := Parse("f", data)
		if err != nil {
			checkPlaces(t, data, err)
			return
		}
		if _, err := c.Build(Options{}); err != nil {
			t.Errorf("accepted, but cannot be built: %v", err)
		}
		dump := Dump(c)
		again, err := Parse("dump", dump)
		if err != nil {
			t.Fatalf("the dump cannot be read: %v\n%s", err, dump)
		}
		if d := Dump(again); !bytes.Equal(dump, d) {
			t.Errorf("the dump reads as something else:\n%s\n%s", dump, d)
		}
	})
}

func checkPlaces(t *testing.T, data []byte, err error) {
	var errs Errors
	if !errors.As(err, &errs) || len(errs) == 0 {
		t.Fatalf("an error of type %T: %v", err, err)
	}
	// YAML ends lines also at CR, NEL, LS and PS.
	lines := 1 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + bytes.Count(data, []byte("\u0085")) +
		bytes.Count(data, []byte("\u2028")) + bytes.Count(data, []byte("\u2029"))
	for _, e := range errs {
		if e.Line < 1 || e.Col < 1 || e.Line > lines+1 {
			t.Errorf("place %d:%d of %d lines: %s", e.Line, e.Col, lines, e.Text)
		}
		if e.Text == "" || strings.Contains(e.Text, "%!") && !bytes.Contains(data, []byte("%!")) {
			t.Errorf("text %q", e.Text)
		}
	}
}
