//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A report is taken up where it ended, if it is of the same commit.
func TestGoOn(t *testing.T) {
	dir := t.TempDir()
	start := func() *bench {
		return &bench{opts: &options{Rounds: 1}, out: dir, commit: "abc", date: time.Now().UTC().Truncate(time.Second),
			versions: map[string]string{"cirque": "abc"}, missing: map[string]string{}}
	}
	first := start()
	first.versions["nginx"] = "nginx/1"
	first.rounds = []round{{Scenario: "h2c", Peer: "cirque", CPU: 10}, {Scenario: "h2c", Peer: "nginx", CPU: 20}}
	first.note("a note")
	if err := first.write("h2c"); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	if len(files) != 1 {
		t.Fatalf("files %v", files)
	}

	second := start()
	second.date = second.date.Add(time.Hour)
	if err := second.goOn(files[0]); err != nil {
		t.Fatal(err)
	}
	second.rounds = append(second.rounds, round{Scenario: "grpc-unary", Peer: "cirque", CPU: 5}, round{Scenario: "h2c", Peer: "cirque", CPU: 12})
	second.note("a note")
	if err := second.write("grpc-unary"); err != nil {
		t.Fatal(err)
	}
	if again, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(again) != 1 {
		t.Errorf("files %v, want the one that was there", again)
	}
	text, err := os.ReadFile(strings.TrimSuffix(files[0], ".json") + ".md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| cirque | 11.0 | 1.00 |", "| nginx | 20.0 | 0.55 |", "| cirque | 5.0 | 1.00 |", "- nginx: nginx/1\n"} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("%q is not once in the report:\n%s", want, text)
		}
	}
	if n := strings.Count(string(text), "a note"); n != 1 {
		t.Errorf("the note is there %d times", n)
	}

	third := start()
	third.commit = "def"
	if err := third.goOn(files[0]); err == nil {
		t.Error("rounds of another commit are taken up")
	}
}
