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

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// talkBed is the program between two WebSocket libraries: websockets for
// Python and github.com/coder/websocket, each as client and as server.
type talkBed struct {
	t      *testing.T
	python *program // the server
	talker *program // the client
	coder  *talkServer
	direct map[string]string // by server: its address
	via    map[string]string // by listener: Cirque's address
	ca     string

	mu  sync.Mutex
	had int // conversations of the Python client. Guarded by mu, as its input is.
}

// talkConf has a listener for each server and way.
const talkConf = `
listeners:
  python: {address: "127.0.0.1:0", h2c: true}
  coder: {address: "127.0.0.1:0", h2c: true}
  python-tls: {address: "127.0.0.1:0", tls: {certificates: [{cert: %[1]q, key: %[2]q}]}}
  coder-tls: {address: "127.0.0.1:0", tls: {certificates: [{cert: %[1]q, key: %[2]q}]}}
routes:
  - {name: python, match: {listener: [python, python-tls]}, upstream: python}
  - {name: coder, match: {listener: [coder, coder-tls]}, upstream: coder}
upstreams: {python: {peers: [%[3]q], protocol: %[5]s}, coder: {peers: [%[4]q], protocol: %[5]s}}
`

func newTalkBed(t *testing.T) *talkBed {
	t.Helper()
	b := &talkBed{t: t, coder: startTalkServer(t), via: map[string]string{}}
	var pythonAddr string
	b.python, pythonAddr = startScript(t, "python3", "sockets.py", "serve")
	b.talker, _ = startScript(t, "python3", "sockets.py", "talk")
	var key string
	b.ca, key = testcert.SelfSigned(t, testcert.Options{Names: []string{"localhost", "127.0.0.1"}}).Write(t.TempDir(), "a")
	near := start(t, fmt.Sprintf(talkConf, b.ca, key, pythonAddr, b.coder.addr, "http1"), 4)
	// Before it another one that speaks HTTP/2 to it, and so is to origins of HTTP/2
	// what the first is to clients of it.
	far := start(t, fmt.Sprintf(talkConf, b.ca, key, near.addrs["python"], near.addrs["coder"], "h2c"), 4)
	b.direct = map[string]string{"python": pythonAddr, "coder": b.coder.addr}
	for name, addr := range near.addrs {
		b.via[name] = addr
	}
	for name, addr := range far.addrs {
		b.via["far "+name] = addr
	}
	return b
}

// talkWays are how a client may reach Cirque, with how many random conversations of
// each pair of libraries are had that way. They are a thousand together.
var talkWays = []struct {
	name            string
	python          bool // the client in Python can
	far, tls, http2 bool
	random          uint64
}{
	{"h1", true, false, false, false, 40},
	{"TLS", true, false, true, false, 40},
	{"h2c", false, false, false, true, 85},
	{"h2", false, false, true, true, 85},
	{"h1 to h2c", false, true, false, false, 85},
	{"h2 to h2c", false, true, true, true, 85},
}

// have has a conversation between two libraries and returns what both saw.
func (b *talkBed) have(t *testing.T, client, server, addr, path string, what talk) (clientSaw, serverSaw []string) {
	t.Helper()
	what.URL = "ws://" + addr + path
	if what.CA != "" {
		what.URL = "wss://" + addr + path
	}
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

// compare has a conversation directly and through Cirque on the way that is number w.
func (b *talkBed) compare(t *testing.T, client, server string, w int, name string, what talk) []string {
	t.Helper()
	way := talkWays[w]
	name = fmt.Sprint(name, "/", w)
	if last := len(what.Ops) - 1; client == "python" && way.tls && last >= 0 && what.Ops[last].Do == "half" {
		what.Ops = append(slices.Clone(what.Ops[:last]), op{Do: "be left"}) // over TLS the library has no half-close
	}
	dc, ds := b.have(t, client, server, b.direct[server], name+"?direct", what)
	door := server
	if way.far {
		door = "far " + door
	}
	if way.tls {
		door += "-tls"
		what.CA = b.ca
	}
	what.HTTP2 = way.http2
	vc, vs := b.have(t, client, server, b.via[door], name+"?via", what)
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

// TestOuterWebSocket has each pair of libraries talk, on each way that the client can
// go: a thousand random conversations give the same record as directly.
func TestOuterWebSocket(t *testing.T) {
	b := newTalkBed(t)
	for w, way := range talkWays {
		for _, client := range []string{"coder", "python"} {
			if client == "python" && !way.python {
				continue
			}
			for _, server := range []string{"coder", "python"} {
				t.Run(fmt.Sprintf("%s/%s to %s", way.name, client, server), func(t *testing.T) { b.testPair(t, client, server, w) })
			}
		}
	}
	t.Run("an end is noticed at once", b.testVanish)
}

func (b *talkBed) testPair(t *testing.T, client, server string, w int) {
	for i, what := range namedTalks {
		t.Run(what.name, func(t *testing.T) {
			path := fmt.Sprintf("/named/%s/%d", client, i)
			if what.name == "refused" {
				path = "/refused"
			}
			got := b.compare(t, client, server, w, path, talk{Ops: what.ops})
			if last := got[len(got)-1]; last != what.last {
				t.Errorf("the client saw %q last, want %q", last, what.last)
			}
		})
	}
	t.Run("random", func(t *testing.T) {
		// A failure may have taken its whole time; one is enough.
		for seed := uint64(0); seed < talkWays[w].random && !t.Failed(); seed++ {
			b.compare(t, client, server, w, fmt.Sprintf("/random/%s/%d", client, seed), randomTalk(uint64(w)<<32|seed))
		}
	})
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
	{"half-closed", []op{{Do: "send", Kind: "text", Seed: "a", Size: 5}, {Do: "half", Count: 3, Size: 5000, Seed: "b"}}, "closed 1006 "},
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
