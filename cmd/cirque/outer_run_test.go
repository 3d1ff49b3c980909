//go:build outer

package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// accessLine is a line of an access log in JSON.
type accessLine struct {
	Time      string
	RequestID string `json:"request_id"`
	Client    string
	Method    string
	Host      string
	Target    string
	Protocol  string
	Status    int
	Reason    string
	Duration  float64
	Received  int64
	Sent      int64
	Route     string
	Peer      string
	Attempts  int
	Reused    bool
}

// accessLines reads an access log.
func accessLines(t *testing.T, file string) []accessLine {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parseAccessLines(t, string(data))
}

func parseAccessLines(t *testing.T, text string) []accessLine {
	t.Helper()
	var lines []accessLine
	for text := range strings.Lines(text) {
		var l accessLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		lines = append(lines, l)
	}
	return lines
}
