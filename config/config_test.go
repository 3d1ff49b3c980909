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

// TestFramingFieldsAreRefused: what frames a message or belongs to a connection
// is nobody's to edit. RFC 9110, section 7.6.1; RFC 9112, section 6.
func TestFramingFieldsAreRefused(t *testing.T) {
	for _, name := range []string{"Content-Length", "transfer-encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Connection"} {
		for _, edit := range []string{"set: {%: x}", "add: {%: x}", "remove: [%]"} {
			for _, side := range []string{"request_headers", "response_headers"} {
				in := minimal + "defaults: {" + side + ": {" + strings.ReplaceAll(edit, "%", name) + "}}\n"
				if _, err := Parse("c", []byte(in)); err == nil || !strings.Contains(err.Error(), name+" belongs to the connection") {
					t.Errorf("%s %s: %v", side, strings.ReplaceAll(edit, "%", name), err)
				}
			}
		}
	}
}

// TestFieldNamesAreTokens: RFC 9110, section 5.6.2.
func TestFieldNamesAreTokens(t *testing.T) {
	for _, name := range []string{"a b", "a:", "ä", "(a)", `""`} {
		in := minimal + "defaults: {request_headers: {set: {" + name + ": x}}}\n"
		if _, err := Parse("c", []byte(in)); err == nil {
			t.Errorf("the field name %q was accepted", name)
		}
	}
}

// TestFieldValuesHoldNoControls: RFC 9110, section 5.5.
func TestFieldValuesHoldNoControls(t *testing.T) {
	for _, c := range []string{`\r`, `\n`, `\0`, `\x7f`} {
		in := minimal + "defaults: {request_headers: {set: {A: \"x" + c + "\"}}}\n"
		if _, err := Parse("c", []byte(in)); err == nil || !strings.Contains(err.Error(), "control character") {
			t.Errorf("%s: %v", c, err)
		}
	}
}

const minimal = `listeners: {web: {address: ":80"}}
routes: [{upstream: web}]
upstreams: {web: {peers: ["localhost:9000"]}}
`

func TestNearest(t *testing.T) {
	known := []string{"address", "timeouts", "limits", "warn", "x"}
	for name, want := range map[string]string{
		"adress": "address", "Address": "address", "addrses": "address", "timeout": "timeouts", "warning": "warn",
		"limts": "limits", "zzz": "", "y": "x", "": "x", strings.Repeat("a", 1000): "",
	} {
		if got := nearest(name, known); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

// TestAliasesAreBounded: nine lists of nine aliases to the list before stand
// for 9^9 values.
func TestAliasesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(minimal + "defaults: {request_headers: {set: {A: &a1 [x, x, x, x, x, x, x, x, x, x]}}}\n")
	b.WriteString("pool: {max_idle: *a1}\nadmin: &r\n  address: *r\n")
	if _, err := Parse("c", []byte(b.String())); err == nil {
		t.Error("no error")
	}
	many := minimal + "log: {access: {fields: &f [" + strings.Repeat("status, ", 2000) + "status]}}\n" +
		"defaults: {request_headers: {set: {" + strings.Repeat("A: *f, ", 1) + "B: &s [" + strings.Repeat("v, ", 2000) + "v]"
	for i := range 1000 {
		many += ", H" + strings.Repeat("x", i%50) + "y" + string(rune('a'+i%26)) + strings.Repeat("z", i/50) + ": *s"
	}
	_, err := Parse("c", []byte(many+"}}}\n"))
	if err == nil || !strings.Contains(err.Error(), "stands for more than") {
		t.Errorf("2,000,000 values: %.200v", err)
	}
}
