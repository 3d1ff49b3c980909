package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestFiles reads testdata/*.txt: a configuration, a line of dashes, and the
// configuration with every value in effect or the errors.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, ok := bytes.Cut(data, []byte("\n----\n"))
			if !ok && !*update {
				t.Fatal("no line of dashes")
			}
			in = append(bytes.TrimSuffix(in, []byte("\n")), '\n')
			got := outcome(t, in)
			if *update {
				if err := os.WriteFile(file, []byte(string(in)+"----\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

// outcome is what a file's second part says. It also proves that a dump reads
// as what it was made from, and that what was checked can be built.
func outcome(t *testing.T, in []byte) string {
	c, err := Parse("cirque.yaml", in)
	if err != nil {
		var errs Errors
		if !errors.As(err, &errs) {
			t.Errorf("an error of type %T", err)
		}
		return err.Error() + "\n"
	}
	dump := Dump(c)
	again, err := Parse("dump", dump)
	if err != nil {
		t.Fatalf("the dump cannot be read: %v\n%s", err, dump)
	}
	if d := cmp.Diff(string(dump), string(Dump(again))); d != "" {
		t.Errorf("the dump reads as something else: %s", d)
	}
	if _, err := c.Build(Options{}); err != nil {
		t.Errorf("it cannot be built: %v", err)
	}
	return string(dump)
}
