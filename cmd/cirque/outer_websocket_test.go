//go:build outer

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// talkBed is the program between two WebSocket libraries: websockets for
// Python and github.com/coder/websocket, each as client and as server.
type talkBed struct {
	t      *testing.T
	python *program // the server
	talker *program // the client
	coder  *talkServer
	direct map[string]string // by server: its address
	via    map[string]string // by server: Cirque's address

	mu  sync.Mutex
	had int // conversations of the Python client. Guarded by mu, as its input is.
}

func newTalkBed(t *testing.T) *talkBed {
	t.Helper()
	b := &talkBed{t: t, coder: startTalkServer(t)}
	var pythonAddr string
	b.python, pythonAddr = startScript(t, "python3", "sockets.py", "serve")
	b.talker, _ = startScript(t, "python3", "sockets.py", "talk")
	p := start(t, fmt.Sprintf(`
listeners: {python: {address: "127.0.0.1:0"}, coder: {address: "127.0.0.1:0"}}
routes: [{match: {listener: python}, upstream: python}, {match: {listener: coder}, upstream: coder, name: other}]
upstreams: {python: {peers: [%q]}, coder: {peers: [%q]}}
`, pythonAddr, b.coder.addr), 2)
	b.direct = map[string]string{"python": pythonAddr, "coder": b.coder.addr}
	b.via = p.addrs
	return b
}

// have has a conversation between two libraries and returns what both saw.
func (b *talkBed) have(t *testing.T, client, server, addr, path string, what talk) (clientSaw, serverSaw []string) {
	t.Helper()
	what.URL = "ws://" + addr + path
	if client == "coder" {
		clientSaw = what.have()
	} else {
		clientSaw = b.havePython(t, what)
	}
	if strings.HasPrefix(path, "/refused") {
		return clientSaw, nil
	}
	if server == "coder" {
		return clientSaw, b.coder.saw(t, path)
	}
	line := b.python.says(t, `^\{"path": "`+regexp.QuoteMeta(path)+`", .*`, 1)[0]
	return clientSaw, parseLog(t, line)
}

// havePython gives a conversation to the client in Python.
func (b *talkBed) havePython(t *testing.T, what talk) []string {
	t.Helper()
	line, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.talker.stdin.(io.Writer).Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	b.had++
	return parseLog(t, b.talker.says(t, `^\{"path": .*`, b.had)[0])
}

func parseLog(t *testing.T, line string) []string {
	t.Helper()
	var got struct{ Log []string }
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return got.Log
}

// compare has a conversation directly and through Cirque.
func (b *talkBed) compare(t *testing.T, client, server, name string, what talk) []string {
	t.Helper()
	dc, ds := b.have(t, client, server, b.direct[server], name+"?direct", what)
	vc, vs := b.have(t, client, server, b.via[server], name+"?via", what)
	if !slices.Equal(dc, vc) {
		t.Errorf("%s: the client saw\n%s\nand through Cirque\n%s", name, strings.Join(dc, "\n"), strings.Join(vc, "\n"))
	}
	if !slices.Equal(ds, vs) {
		t.Errorf("%s: the server saw\n%s\nand through Cirque\n%s", name, strings.Join(ds, "\n"), strings.Join(vs, "\n"))
	}
	for _, line := range slices.Concat(dc, ds) {
		if strings.HasPrefix(line, "wrong") || strings.HasPrefix(line, "failed") || strings.HasPrefix(line, "it took") {
			t.Errorf("%s: %s", name, line)
		}
	}
	return vc
}

// TestOuterWebSocket has each pair of libraries talk.
func TestOuterWebSocket(t *testing.T) {
	b := newTalkBed(t)
	for _, client := range []string{"coder", "python"} {
		for _, server := range []string{"coder", "python"} {
			pair := client + " to " + server
			t.Run(pair, func(t *testing.T) {
				for i, what := range namedTalks {
					t.Run(what.name, func(t *testing.T) {
						path := fmt.Sprintf("/named/%s/%d", client, i)
						if what.name == "refused" {
							path = "/refused"
						}
						got := b.compare(t, client, server, path, talk{Ops: what.ops})
						if last := got[len(got)-1]; last != what.last {
							t.Errorf("the client saw %q last, want %q", last, what.last)
						}
					})
				}
				t.Run("random", func(t *testing.T) {
					// A failure may have taken its whole time; one is enough.
					for seed := uint64(0); seed < 50 && !t.Failed(); seed++ {
						b.compare(t, client, server, fmt.Sprintf("/random/%s/%d", client, seed), randomTalk(seed))
					}
				})
			})
		}
	}
	t.Run("an end is noticed at once", b.testVanish)
}

// namedTalks are conversations whose last line is known.
var namedTalks = []struct {
	name string
	ops  []op
	last string
}{
	{"a mebibyte each way", []op{
		{Do: "send", Kind: "binary", Seed: "a", Size: mib}, {Do: "send", Kind: "text", Seed: "b", Size: mib},
		{Do: "send", Kind: "binary", Seed: "c", Size: mib, Cuts: []int{1, 1000, 65536, 1000000}},
		{Do: "push", Count: 4, Size: mib, Seed: "d"}, {Do: "close", Code: 1000, Reason: "enough"},
	}, "closed it"},
	{"fragments", []op{
		{Do: "send", Kind: "text", Seed: "a", Size: 10, Cuts: []int{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{Do: "send", Kind: "binary", Seed: "b", Size: 9, Cuts: []int{0, 0, 9}}, {Do: "close", Code: 1000},
	}, "closed it"},
	{"pings", []op{{Do: "ping"}, {Do: "pinged"}, {Do: "ping"}, {Do: "close", Code: 1000}}, "closed it"},
	{"the server closes", []op{{Do: "be closed", Code: 4000, Reason: "no more of this"}}, "closed 4000 no more of this"},
	{"the client vanishes", []op{{Do: "vanish"}}, "vanished"},
	{"the server vanishes", []op{{Do: "be left"}}, "closed 1006 "},
	{"refused", nil, "refused 403 no"},
}

// testVanish wants the end of one side's connection to reach the other side
// within a second.
func (b *talkBed) testVanish(t *testing.T) {
	for _, do := range []string{"vanish", "be left"} {
		begun := time.Now()
		b.have(t, "coder", "python", b.via["python"], "/at-once/"+strings.ReplaceAll(do, " ", "-"), talk{Ops: []op{{Do: do}}})
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: it took %s till both sides knew", do, took)
		}
	}
}
