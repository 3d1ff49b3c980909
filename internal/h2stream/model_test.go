package h2stream

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cirqueproxy/cirque/internal/h2frame"
)

// check runs rapid.Check often enough for machines that take a microsecond.
func check(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	for range 20 {
		rapid.Check(t, property)
	}
}

// move is one frame in the history of a stream: H a head or trailers, 1 an
// interim head, D, R and W the frames of these letters.
type move struct {
	ours, end bool
	what      byte
}

// history is the slow model of Machine: it keeps all that happened, and finds the
// verdict by looking through it.
type history struct {
	role   h2frame.Role
	tunnel bool
	moves  []move // that had an effect
}

func (h *history) has(ours bool, end bool, what string) bool {
	return slices.ContainsFunc(h.moves, func(m move) bool {
		return m.ours == ours && (m.end || !end) && slices.Contains([]byte(what), m.what)
	})
}

func (h *history) opened() bool         { return h.has(true, false, "H1") || h.has(false, false, "H1") }
func (h *history) ended(ours bool) bool { return h.has(ours, true, "H1D") }

// end finds out which came first: the second END_STREAM, or a reset.
func (h *history) end() End {
	for i, m := range h.moves {
		before := history{moves: h.moves[:i+1]}
		switch {
		case m.what == 'R' && m.ours:
			return EndReset
		case m.what == 'R':
			return EndPeer
		case before.ended(true) && before.ended(false):
			return EndBoth
		}
	}
	return EndNone
}

func (h *history) state() State {
	switch {
	case h.end() != EndNone:
		return Closed
	case h.ended(true):
		return HalfClosedLocal
	case h.ended(false):
		return HalfClosedRemote
	case h.opened():
		return Open
	}
	return Idle
}

// recv judges a frame of the peer.
func (h *history) recv(m move) Verdict {
	opened, end := h.opened(), h.end()
	if m.what == 'R' || m.what == 'W' {
		switch {
		case !opened:
			return IdleStream
		case end != EndNone, m.what == 'W' && h.ended(true):
			return Ignore
		}
		return Accept
	}
	head := h.has(false, false, "H")
	switch {
	case end == EndBoth:
		return EndedStream
	case end == EndPeer:
		return ResetStream
	case end == EndReset:
		return Ignore
	case h.ended(false):
		return HalfClosed
	case !opened && (m.what == 'D' || h.role == h2frame.Client):
		return IdleStream
	case m.what == 'D' && !head:
		return DataBeforeHead
	case m.what == 'D':
		return Accept
	case head && h.tunnel:
		return HeadersInTunnel
	case head && !m.end:
		return TrailersUnended
	case head || m.what == 'H':
		return Accept
	case h.role == h2frame.Server:
		return InterimRequest
	case m.end:
		return InterimEnds
	}
	return Accept
}

// send judges a frame of ours.
func (h *history) send(m move) Verdict {
	head, end := h.has(true, false, "H"), h.end()
	switch {
	case m.what == 'R' && (end != EndNone || !h.opened()), m.what != 'R' && end != EndNone:
		return Ignore
	case m.what == 'R':
		return Accept
	case h.ended(true):
		return Misuse
	case m.what == 'D':
		return map[bool]Verdict{true: Accept, false: Misuse}[head]
	case head: // trailers then, whatever they are called
		return map[bool]Verdict{true: Accept, false: Misuse}[m.end && !h.tunnel]
	case h.role == h2frame.Server && !h.opened():
		return Misuse
	case m.what == '1' && (m.end || h.role == h2frame.Client):
		return Misuse
	}
	return Accept
}

func apply(m *Machine, mv move) Verdict {
	switch {
	case mv.ours && mv.what == 'D':
		return m.SendData(mv.end)
	case mv.ours && mv.what == 'R':
		return m.SendReset()
	case mv.ours:
		return m.SendHeaders(mv.what == '1', mv.end)
	case mv.what == 'D':
		return m.RecvData(mv.end)
	case mv.what == 'R':
		return m.RecvReset()
	case mv.what == 'W':
		return m.RecvWindowUpdate()
	}
	return m.RecvHeaders(mv.what == '1', mv.end)
}

// TestMachineModel: random frames in both directions earn what the history says
// (RFC 9113, section 5.1), and what is closed stays as it was closed.
func TestMachineModel(t *testing.T) {
	check(t, func(t *rapid.T) {
		role := rapid.SampledFrom([]h2frame.Role{h2frame.Client, h2frame.Server}).Draw(t, "role")
		h, m := history{role: role}, NewMachine(role)
		if role == h2frame.Client && rapid.Bool().Draw(t, "asked") {
			h.moves = append(h.moves, move{ours: true, what: 'H'})
			m.SendHeaders(false, false)
		}
		for range rapid.IntRange(1, 12).Draw(t, "moves") {
			mv := move{
				ours: rapid.Bool().Draw(t, "ours"),
				end:  rapid.Bool().Draw(t, "end"),
				what: rapid.SampledFrom([]byte("HHH1DDDRW")).Draw(t, "what"),
			}
			if mv.ours && mv.what == 'W' {
				m.Tunnel()
				h.tunnel = true
				continue
			}
			want := h.recv(mv)
			if mv.ours {
				want = h.send(mv)
			}
			before := m.End()
			if got := apply(&m, mv); got != want {
				t.Fatalf("%+v after %+v: %q, want %q", mv, h.moves, got, want)
			}
			if want == Accept || want == InterimRequest {
				h.moves = append(h.moves, move{mv.ours, mv.end && want == Accept, mv.what})
			}
			if m.State() != h.state() || m.End() != h.end() || before != EndNone && m.End() != before {
				t.Fatalf("after %+v: %s, end %d; want %s, end %d", h.moves, m.State(), m.End(), h.state(), h.end())
			}
			if m.HeadReceived() != h.has(false, false, "H") {
				t.Fatalf("after %+v: %+v", h.moves, m)
			}
		}
	})
}

// TestIDsModel: with all streams remembered for ever the verdicts are the same,
// but for those that are forgotten, which are judged mildly.
func TestIDsModel(t *testing.T) {
	check(t, func(t *rapid.T) {
		role := rapid.SampledFrom([]h2frame.Role{h2frame.Client, h2frame.Server}).Draw(t, "role")
		ids := NewIDs(role)
		open, ends := []uint32{}, map[uint32]End{}
		var resets, others []uint32 // ids in the order in which they ended
		var highest uint32
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			id := rapid.Uint32Range(1, highest+4).Draw(t, "id")
			if role == h2frame.Client && id > highest {
				highest, _ = ids.Next()
				open = append(open, highest)
			}
			ty := rapid.SampledFrom([]h2frame.Type{h2frame.TypeHeaders, h2frame.TypeHeaders, h2frame.TypeData,
				h2frame.TypeReset, h2frame.TypeWindowUpdate, h2frame.TypePriority}).Draw(t, "type")
			if i := slices.Index(open, id); i >= 0 {
				end := rapid.SampledFrom([]End{EndBoth, EndPeer, EndReset}).Draw(t, "end")
				open, ends[id] = slices.Delete(open, i, i+1), end
				if end == EndReset {
					resets = append(resets, id)
				} else {
					others = append(others, id)
				}
				ids.Closed(id, end)
				continue
			}
			end := ends[id]
			if lost := max(0, len(resets)-keptResets); slices.Contains(resets[:lost], id) {
				end = EndNone
			}
			if lost := max(0, len(others)-keptEnds); slices.Contains(others[:lost], id) {
				end = EndNone
			}
			isLate := ty == h2frame.TypeReset || ty == h2frame.TypeWindowUpdate
			var want Verdict
			switch {
			case ty == h2frame.TypePriority:
				want = Accept
			case id%2 == 0:
				want = InvalidStream
			case id > highest && ty == h2frame.TypeHeaders && role == h2frame.Server:
				want, highest, open = Accept, id, append(open, id)
			case id > highest:
				want = IdleStream
			case isLate, end == EndReset:
				want = Ignore
			case end == EndBoth:
				want = EndedStream
			case end == EndPeer:
				want = ResetStream
			case ty == h2frame.TypeHeaders:
				want = OldStream
			default:
				want = Ignore
			}
			if got := ids.Recv(id, ty); got != want || ids.Highest() != highest {
				t.Fatalf("%s on %d: %q, want %q; highest %d, want %d", ty, id, got, want, ids.Highest(), highest)
			}
		}
	})
}

// TestBudgetModel: the one number is a bucket that fills with time.
func TestBudgetModel(t *testing.T) {
	check(t, func(t *rapid.T) {
		var l Limits
		var b Budgets
		burst := rapid.IntRange(1, 5).Draw(t, "burst")
		every := time.Duration(rapid.IntRange(1, 50).Draw(t, "every"))
		l[Resets] = Limit{Burst: burst, Every: every}
		now := time.Duration(rapid.IntRange(0, 1000).Draw(t, "start"))
		level, earned := time.Duration(burst)*every, 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			d := time.Duration(rapid.IntRange(0, 40).Draw(t, "pass"))
			now += d
			level = min(level+d, time.Duration(burst)*every)
			if rapid.IntRange(0, 9).Draw(t, "earn") == 0 {
				b.Earn(Resets, 2)
				earned += 2
			}
			want := TooManyResets
			switch {
			case earned > 0:
				want = Accept
				earned--
			case level >= every:
				want = Accept
				level -= every
			}
			if got := b.Spend(&l, Resets, now); got != want {
				t.Fatalf("at %d with %d of %d each: %q, want %q", now, level, every, got, want)
			}
		}
	})
}

// TestParsePriorityModel: fields of pieces that mean something, put together at
// random, are what the grammar says.
func TestParsePriorityModel(t *testing.T) {
	starts := []string{"", "u=1, a=", "u=1, i, a;b=", "u=1, a=(", "u=1, a=\"", "u=1, a=%\"", "u=1, a=:", "u=1, a=@", "u=1, a=?", "u=", "i="}
	pieces := []string{
		"u", "i", "u=1", ", u=2", "i=?0", ", i", "=", ", ", ",", ";", " ", "\t", "(", ")", "()", "?", "?1", "0", "7", "8", "-", ".", ".5", "123",
		"123456789012", "\"", "\"x\"", "\\", "\\\"", "%", "%\"", "%c3%a9", "%1f", "a", "f", "g", "z", "A", "Z", "_", "*", "~", "!", "+", "/", ":",
		":aGk=:", "@", "@1", "\x00", "\x1f", "\x7f", "\x80", "[", "{", "`",
	}
	check(t, func(t *rapid.T) {
		field := rapid.SampledFrom(starts).Draw(t, "start")
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			field += rapid.SampledFrom(pieces).Draw(t, "piece")
		}
		field += rapid.SampledFrom([]string{"", "", "\"", ":", ")", "1", ", i"}).Draw(t, "end")
		if got, want := ParsePriority(Priority{5, false}, []byte(field)), slowPriority(Priority{5, false}, field); got != want {
			t.Fatalf("%q: %+v, by the grammar %+v", field, got, want)
		}
	})
}

// TestRankOrder: Before is a strict order in which every two streams have a place.
func TestRankOrder(t *testing.T) {
	draw := func(t *rapid.T, id uint32) Rank {
		return Rank{
			Priority: Priority{uint8(rapid.IntRange(0, 2).Draw(t, "urgency")), rapid.Bool().Draw(t, "incremental")},
			Stream:   id, Turn: uint64(rapid.IntRange(0, 2).Draw(t, "turn")),
		}
	}
	check(t, func(t *rapid.T) {
		a, b, c := draw(t, 1), draw(t, 3), draw(t, 5)
		if a.Before(a) || a.Before(b) == b.Before(a) || a.Before(b) && b.Before(c) && !a.Before(c) {
			t.Fatalf("%+v, %+v, %+v", a, b, c)
		}
	})
}
