package cirque_test

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What the parties must see.

// errSimWrong is an answer that must not be.
var errSimWrong = errors.New("wrong answer")

func wrongf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errSimWrong, fmt.Sprintf(format, args...))
}

// checkUp checks the head that an origin got.
func (s *sim) checkUp(q *simReq, h *simHead) {
	want := q.method + " " + q.target() + " HTTP/1.1"
	if h.line != want {
		s.failf("request %s: the origin got %q, want %q", q.id, h.line, want)
	}
	for _, name := range []string{"X-Sim-Hop", "Keep-Alive"} {
		if _, n := h.get(name); n > 0 {
			s.failf("request %s: the hop-by-hop field %s came to the origin", q.id, name)
		}
	}
	if v, n := h.get("Host"); n != 1 || v != "sim.example:80" {
		s.failf("request %s: the origin got %d Host fields, %q", q.id, n, v)
	}
	if v, n := h.get("X-Forwarded-For"); !s.proxy.Forwarding.NoXForwarded && (n != 1 || v != "198.51.100.1") {
		s.failf("request %s: the origin got X-Forwarded-For %q", q.id, v)
	}
	if _, n := h.get("Expect"); n > 0 && !q.expect {
		s.failf("request %s: an Expect came out of nowhere", q.id)
	}
}

// answer reads the answer to a request and reports whether another can follow.
func (x *clientConn) answer(f *inFlight) (lives bool, err error) {
	for {
		h, err := readSimHead(x.in)
		if err != nil {
			return false, err
		}
		proto, rest, _ := strings.Cut(h.line, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, cerr := strconv.Atoi(code)
		if proto != "HTTP/1.1" || cerr != nil {
			return false, wrongf("the status line %q", h.line)
		}
		if status >= 200 || status == 101 {
			return x.final(f, h, status)
		}
		if err := x.interim(f, h, status); err != nil {
			return false, err
		}
	}
}

func (x *clientConn) interim(f *inFlight, h *simHead, status int) error {
	x.s.tally.add("got interim")
	switch id := h.value("X-Sim-Id"); {
	case f.q.minor == 0:
		return wrongf("an interim response for a client of HTTP/1.0")
	case status == 100 && !f.q.expect:
		return wrongf("a 100 that nobody waits for")
	case status == 100:
		f.answered(false)
	case x.s.proxy.DropInterim:
		return wrongf("an interim response that is to be dropped")
	case id != f.q.id:
		return wrongf("an interim response to %q", id)
	}
	return nil
}

// final checks the final head and reads the body.
func (x *clientConn) final(f *inFlight, h *simHead, status int) (lives bool, err error) {
	q := f.q
	x.s.note(q.id, "client gets %q", h.line)
	if id, n := h.get("X-Sim-Id"); n > 1 || n == 1 && id != q.id {
		return false, wrongf("the answer to %q", id)
	}
	if _, n := h.get("X-Sim-Hop"); n > 0 {
		return false, wrongf("a hop-by-hop field")
	}
	if status == 101 || q.connect && status == 200 && h.value("X-Sim-Id") == "" && h.value("Content-Length") == "" && h.value("Transfer-Encoding") == "" {
		return false, x.switched(f, status)
	}
	conn := strings.ToLower(h.value("Connection"))
	lives = conn != "close" && q.keep && (q.minor == 1 || conn == "keep-alive")
	if q.upgrade && conn != "close" {
		return false, wrongf("an upgrade was refused on a connection that stays open")
	}
	if !lives {
		f.answered(true)
	}
	framing, err := h.framing(true)
	if err != nil {
		return false, err
	}
	switch {
	case q.method == "HEAD" || status == 204 || status == 304:
		framing = simFraming{"none", 0}
	case framing.kind == "close" && lives, framing.kind == "close" && q.minor == 1:
		return false, wrongf("no framing in %q", h.fields)
	case framing.kind == "chunked" && q.minor == 0:
		return false, wrongf("chunks for a client of HTTP/1.0")
	}
	pause := time.Duration(0)
	if x.rr.chance(20) {
		pause = 500 * time.Millisecond
	}
	body, trailer, err := readSimBody(x.in, framing, x.rr.pauses(pause))
	if errors.Is(err, errSimSyntax) {
		return false, err
	}
	if werr := x.checkBody(q, h, status, framing, body, trailer, err); werr != nil {
		return false, werr
	}
	return lives, err
}

// checkBody checks what came of a body, which is whole if err is nil.
func (x *clientConn) checkBody(q *simReq, h *simHead, status int, f simFraming, body []byte, trailer [][2]string, err error) error {
	if h.value("X-Sim-Id") == "" {
		if err != nil {
			return nil
		}
		return x.checkLocal(q, h, status, f, body)
	}
	what, size := h.value("X-Sim-What"), 0
	if _, err := fmt.Sscan(h.value("X-Sim-Size"), &size); err != nil {
		return wrongf("no size in %q", h.fields)
	}
	if what != "early" && what != simSum(q.upBody()) {
		return wrongf("the origin read the body as %s, not %s", what, simSum(q.upBody()))
	}
	want := q.downBody(what, size)
	switch {
	case f.kind == "none":
		if err == nil {
			x.s.tally.add("got whole")
		}
		return nil
	case err != nil && !bytes.HasPrefix(want, body):
		return wrongf("a cut body of %d bytes that is not its beginning; equal up to %d", len(body), equalUpTo(body, want))
	case err != nil:
		return nil
	case !bytes.Equal(body, want):
		return wrongf("a %s body of %d bytes as whole, want %d; equal up to %d", f.kind, len(body), len(want), equalUpTo(body, want))
	}
	x.s.tally.add("got whole")
	return x.checkTrailer(q, h, f, trailer)
}

func (x *clientConn) checkTrailer(q *simReq, h *simHead, f simFraming, trailer [][2]string) error {
	want := h.value("X-Sim-Trailed") != "" && f.kind == "chunked"
	switch {
	case want && (len(trailer) != 1 || trailer[0] != [2]string{"X-Sim-Trailer", q.id}):
		return wrongf("the trailer %q", trailer)
	case !want && len(trailer) > 0:
		return wrongf("a trailer %q out of nowhere", trailer)
	case want:
		x.s.tally.add("got trailer")
	}
	return nil
}

// checkLocal checks a response that no origin made.
func (x *clientConn) checkLocal(q *simReq, h *simHead, status int, f simFraming, body []byte) error {
	if f.kind == "none" {
		return nil
	}
	text := strings.ToLower(string(body))
	switch {
	case text == "local "+q.id+"\n":
		x.s.tally.add("got local")
		if q.chaos != chaosRespond || status != 200 {
			return wrongf("a local response that no hook made: %q", h.line)
		}
	case strings.Contains(text, "\nreason: ") && strings.HasSuffix(text, "\n"):
		if x.s.set.calm && !q.connect {
			return wrongf("an error page in a calm run: %q", text)
		}
		if !x.faulty.Load() && (status == 400 || status == 499 || status < 400) {
			return wrongf("an error page for nothing: %q %q", h.line, text)
		}
	default:
		return wrongf("a response that nobody made: %q %q %.200q", h.line, h.fields, body)
	}
	return nil
}

// switched is the client's end of a tunnel.
func (x *clientConn) switched(f *inFlight, status int) error {
	q := f.q
	<-f.sent // what it sends before it has the answer
	if q.upgrade != (status == 101) {
		return wrongf("a switch with %d", status)
	}
	if q.connect && !x.s.proxy.AllowConnect {
		return wrongf("a tunnel that is not allowed")
	}
	p := newTunnelPlan(q)
	if p.clientCuts {
		q.faulty.Store(true)
		t := time.AfterFunc(p.cutAfter, func() { _ = x.c.Reset() })
		defer t.Stop()
	}
	x.s.tally.add("got tunnel")
	sent := len(q.early)
	if q.connect && sent > 0 {
		sent = len(q.tunnelUp(sent))
	}
	got, err := exchangeSim(x.c, x.in, x.rr, p.up[sent:], p.gap)
	x.s.checkTunnel(q, "client", got, p.down, err, p)
	return nil
}

// checkTunnel checks what came out at one end of a tunnel.
func (s *sim) checkTunnel(q *simReq, end string, got, want []byte, err error, p *tunnelPlan) {
	s.note(q.id, "tunnel: %s got %d of %d, %v", end, len(got), len(want), err)
	switch {
	case !bytes.HasPrefix(want, got):
		s.failf("request %s: the %s got other bytes from the tunnel; %d, equal up to %d", q.id, end, len(got), equalUpTo(got, want))
	case s.set.calm && (err != nil || len(got) != len(want)):
		s.failf("request %s: the %s got %d of %d bytes from the tunnel in a calm run, %v", q.id, end, len(got), len(want), err)
	}
}
