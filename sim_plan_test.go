package cirque_test

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// originPlan is what an origin does with one request.
type originPlan struct {
	r        simRand
	kind     originKind
	status   int
	framing  string
	size     int
	trailer  bool
	close    bool // after the response
	minor    int
	wait     time.Duration
	gap      time.Duration
	slowRead time.Duration
	interim  []int
	garbage  string
}

// newOriginPlan derives the plan from the request and how often it came.
func newOriginPlan(q *simReq, nth int) *originPlan {
	r := newSimRand(q.s.seed, "answer", q.id, nth)
	p := &originPlan{r: r, minor: 1, size: r.size(), status: 200}
	p.framing = oneOf(r, "length", "length", "chunked", "chunked", "close")
	if r.chance(15) {
		p.status = oneOf(r, 201, 204, 304, 404, 500, 503)
	}
	if r.chance(10) {
		p.minor = 0
		if p.framing == "chunked" {
			p.framing = "length"
		}
	}
	p.trailer = p.framing == "chunked" && r.chance(30)
	p.close = p.framing == "close" || p.minor == 0 || r.chance(10)
	if r.chance(50) {
		p.wait, p.gap, p.slowRead = r.between(0, 3*time.Second), r.between(0, 400*time.Millisecond), r.between(0, 300*time.Millisecond)
	}
	if r.chance(15) {
		for range 1 + r.IntN(3) {
			p.interim = append(p.interim, oneOf(r, 102, 103, 104))
		}
	}
	if !q.s.set.calm && r.chance(q.s.set.faults) {
		p.kind = originKind(1 + r.IntN(int(originKinds)-1))
		p.garbage = oneOf(r, simGarbage...)
	} else if !q.s.set.calm && r.chance(10) {
		p.kind = oneOf(r, originEarly, originDuplex)
	}
	if p.kind == originStray && p.framing == "close" {
		p.framing = "length" // else it would be a part of the body
	}
	if p.kind == originSwitches && q.upgrade {
		p.kind = originNever // for it that is an answer
	}
	if p.bodiless(q) {
		p.framing = "length"
		p.trailer, p.close = false, p.close && p.minor == 0 || r.chance(10)
	}
	return p
}

// simGarbage are answers that nobody can read.
var simGarbage = []string{
	"garbage\r\n\r\n", "HTTP/1.1 200\r", "HTTP/9.9 200 OK\r\n\r\n", "\x00\x01\x02\x03\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
	"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
	"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 70_000) + "\r\n\r\n",
}

// bodiless reports whether the answer has no body whatever its fields say.
//
// RFC 9112, section 6.3: HEAD, 204 and 304.
func (p *originPlan) bodiless(q *simReq) bool {
	return q.method == "HEAD" || p.status == 204 || p.status == 304
}

// response returns the whole answer.
func (p *originPlan) response(q *simReq, what string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.%d %d Sim\r\nX-Sim-Id: %s\r\nX-Sim-What: %s\r\nX-Sim-Size: %d\r\n", p.minor, p.status, q.id, what, p.size)
	if p.trailer {
		b.WriteString("X-Sim-Trailed: 1\r\n")
	}
	hop := "X-Sim-Hop"
	if p.close {
		hop = "close, X-Sim-Hop"
	}
	fmt.Fprintf(&b, "Connection: %s\r\nX-Sim-Hop: 1\r\n", hop)
	switch {
	case p.status == 204:
	case p.framing == "length":
		fmt.Fprintf(&b, "Content-Length: %d\r\n", p.size)
	case p.framing == "chunked":
		b.WriteString("Transfer-Encoding: chunked\r\n")
	}
	b.WriteString("\r\n")
	if p.bodiless(q) {
		return b.Bytes()
	}
	body := simText(q.id, what, p.size)
	if p.framing != "chunked" {
		return append(b.Bytes(), body...)
	}
	out := b.Bytes()
	for _, n := range p.r.pieces(len(body)) {
		out = appendSimChunk(out, body[:n], p.r)
		body = body[n:]
	}
	out = append(out, "0\r\n"...)
	if p.trailer {
		out = append(out, "X-Sim-Trailer: "+q.id+"\r\n"...)
	}
	return append(out, "\r\n"...)
}

// tunnelPlan is what both ends of a tunnel know.
type tunnelPlan struct {
	up, down               []byte
	gap                    time.Duration
	originCuts, clientCuts bool
	cutAfter               time.Duration
}

func newTunnelPlan(q *simReq) *tunnelPlan {
	r := newSimRand(q.s.seed, "tunnel", q.id)
	p := &tunnelPlan{down: simText(q.id, "down", r.size()), gap: r.between(0, 500*time.Millisecond)}
	p.up = q.tunnelUp(len(q.early) + r.size())
	if !q.s.set.calm && r.chance(30) {
		p.cutAfter = r.between(0, 3*time.Second)
		p.originCuts = r.chance(50)
		p.clientCuts = !p.originCuts
	}
	return p
}

// tunnelUp returns the first n bytes, or a little more, that a client sends into
// its tunnel.
func (q *simReq) tunnelUp(n int) []byte {
	b := simText(q.id, "up", n)
	if q.connect {
		b = append([]byte("TUNNEL "+q.id+"\n"), b...)
	}
	return b
}
