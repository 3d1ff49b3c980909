package cirque_test

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"
)

// What is sent in the simulation, and what must come of it.

// simRand is the source of randomness of one part of a run: each part has its
// own, so that the order of goroutines does not change what they do.
type simRand struct{ *rand.Rand }

func newSimRand(seed uint64, part string, args ...any) simRand {
	h := fnv.New64a()
	fmt.Fprint(h, part)
	for _, a := range args {
		fmt.Fprint(h, "/", a)
	}
	return simRand{rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// chance is true in percent of 100 cases.
func (r simRand) chance(percent int) bool { return r.IntN(100) < percent }

// between returns a duration, short ones more often.
func (r simRand) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	f := r.Float64()
	return lo + time.Duration(f*f*float64(hi-lo))
}

// size returns a length: often none or few, at times more than a buffer holds.
func (r simRand) size() int {
	switch r.IntN(10) {
	case 0:
		return 0
	case 1, 2, 3:
		return r.IntN(100)
	case 4, 5, 6:
		return r.IntN(5000)
	case 7, 8:
		return r.IntN(40_000)
	}
	return r.IntN(200_000)
}

// oneOf returns one of its arguments.
func oneOf[T any](r simRand, of ...T) T { return of[r.IntN(len(of))] }

// pieces cuts n bytes into pieces.
func (r simRand) pieces(n int) (p []int) {
	most := max(n, 1)
	if r.chance(50) {
		most = 1 + r.IntN(most)
	}
	most = max(most, n/20) // at most so many that a run stays short
	for n > 0 {
		k := min(n, 1+r.IntN(most))
		p = append(p, k)
		n -= k
	}
	return p
}

// simText returns the n bytes that belong to an id.
func simText(id, what string, n int) []byte {
	h := fnv.New64a()
	fmt.Fprint(h, id, "|", what)
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	b := make([]byte, 0, n+8)
	for len(b) < n {
		for v, i := r.Uint64(), 0; i < 8; i++ {
			b = append(b, "abcdefghijklmnop"[v&15])
			v >>= 4
		}
	}
	return b[:n]
}

func simSum(b []byte) string {
	h := fnv.New64a()
	h.Write(b)
	return fmt.Sprintf("%x-%d", h.Sum64(), len(b))
}

// clientFault is what a client does wrong.
type clientFault int

const (
	clientRight   clientFault = iota
	clientStalls              // stops inside the request
	clientFin                 // ends its sending side inside the request
	clientResets              // resets inside the request
	clientLeaves              // resets, or closes, some time after the request
	clientNoRead              // does not read for long, then closes
	clientGarbage             // sends a head that is none
	clientFaults
)

// chaosKind is what a hook does.
type chaosKind int

const (
	chaosNone chaosKind = iota
	chaosSleep
	chaosRespond
	chaosReject
	chaosError
	chaosPanic
	chaosKinds
)

// chaosPhases are the hooks that may do it.
var chaosPhases = []string{
	"request", "forward", "peer", "connected", "upstreamRequest", "requestBody", "upstreamResponse",
	"interim", "response", "responseBody", "trailer", "failed", "done",
}

// simReq is a request of the simulation, whole before the run begins. Immutable
// but for what is atomic.
type simReq struct {
	s       *sim
	id      string
	method  string
	minor   int
	keep    bool // asks for the connection to be kept (1.0), or not closed (1.1)
	hasBody bool
	body    []byte
	chunked bool
	trailer bool
	expect  bool
	upgrade bool
	connect bool
	early   []byte // sent behind an upgrade, before the answer
	think   time.Duration
	gap     time.Duration // between pieces
	fault   clientFault
	chaos   chaosKind
	phase   string

	faulty atomic.Bool // the client's connection had a fault
}

func (s *sim) newReq(client, n int) *simReq {
	r := newSimRand(s.seed, "request", client, n)
	q := &simReq{s: s, id: fmt.Sprintf("%d-%d-%d", s.seed, client, n), minor: 1, keep: r.chance(95)}
	q.method = oneOf(r, "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE")
	if r.chance(10) {
		q.minor, q.keep = 0, r.chance(50)
	}
	q.think, q.gap = r.between(0, 2*time.Second), r.between(0, 300*time.Millisecond)
	if r.chance(50) {
		q.think, q.gap = 0, 0
	}
	switch k := r.IntN(100); {
	case k < 5 && q.minor == 1:
		q.method, q.upgrade = "GET", true
	case k < 7 && q.minor == 1:
		q.method, q.connect = "CONNECT", true
	case q.method == "POST" || q.method == "PUT" || q.method == "PATCH":
		q.hasBody = true
		q.body = simText(q.id, "request", r.size())
		q.chunked = q.minor == 1 && r.chance(50)
		q.trailer = q.chunked && r.chance(30)
		q.expect = q.minor == 1 && (q.chunked || len(q.body) > 0) && r.chance(25)
	}
	if (q.upgrade || q.connect) && r.chance(30) {
		q.early = simText(q.id, "up", 1+r.IntN(2000))
	}
	if !s.set.calm && r.chance(12) && !q.upgrade && !q.connect {
		q.fault = clientFault(r.IntN(int(clientFaults)))
	}
	if r.chance(s.set.chaos) {
		q.chaos, q.phase = chaosKind(1+r.IntN(int(chaosKinds)-1)), oneOf(r, chaosPhases...)
	}
	if s.set.total > 0 && r.chance(30) {
		q.chaos, q.phase = chaosSleep, oneOf(r, "forward", "connected", "upstreamRequest")
	}
	// A rand of its own: what the seeds of old decide stays.
	if s.set.chaos > 0 && q.chaos == chaosNone && len(q.body) > 0 && newSimRand(s.seed, "answer", q.id).chance(5) {
		q.chaos, q.phase = chaosRespond, "requestBody"
	}
	return q
}

func (q *simReq) target() string {
	if q.connect {
		return "sim.example:80"
	}
	return "/sim/" + q.id
}

// head returns the bytes before the body.
func (q *simReq) head() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.%d\r\nHost: sim.example:80\r\nX-Sim-Id: %s\r\nKeep-Alive: 1\r\n", q.method, q.target(), q.minor, q.id)
	switch {
	case q.upgrade:
		b.WriteString("Connection: Upgrade\r\nUpgrade: sim\r\n")
	case q.minor == 0 && q.keep:
		b.WriteString("Connection: keep-alive, X-Sim-Hop\r\nX-Sim-Hop: 1\r\n")
	case q.minor == 1 && !q.keep:
		b.WriteString("Connection: close, X-Sim-Hop\r\nX-Sim-Hop: 1\r\n")
	}
	if q.expect {
		b.WriteString("Expect: 100-continue\r\n")
	}
	switch {
	case q.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case q.hasBody:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(q.body))
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// upBody returns the body as the origin must get it.
func (q *simReq) upBody() []byte {
	b := q.body
	if q.s.set.upperUp {
		b = bytes.ToUpper(b)
	}
	return b
}

// idempotent reports whether origins may see the request twice.
func (q *simReq) idempotent() bool {
	return q.method != "POST" && q.method != "PATCH" && q.method != "CONNECT"
}

// downBody returns the body of the answer as the client must get it, where the
// origin says that it belongs to what.
func (q *simReq) downBody(what string, n int) []byte {
	b := simText(q.id, what, n)
	if q.s.set.upperDown {
		b = bytes.ToUpper(b)
	}
	if q.s.set.growDown {
		b = append(b, simGrown(q.id)...)
	}
	return b
}

func simGrown(id string) string { return "+" + id }

// chunk appends one chunk, at times with an extension.
func appendSimChunk(b, piece []byte, r simRand) []byte {
	size := fmt.Sprintf("%x", len(piece))
	if r.chance(20) {
		size = "0" + strings.ToUpper(size)
	}
	b = append(b, size...)
	if r.chance(10) {
		b = append(b, ";ext=1"...)
	}
	b = append(b, "\r\n"...)
	b = append(b, piece...)
	return append(b, "\r\n"...)
}
