package h2stream

import (
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
)

func TestSendWindow(t *testing.T) {
	w := NewSendWindow(10)
	equal(t, "take 4", w.Take(4), 4)
	equal(t, "take 40", w.Take(40), 6)
	equal(t, "take of nothing", w.Take(40), 0)
	// RFC 9113, section 6.9.2: a smaller initial window makes it negative.
	equal(t, "adjust", w.Adjust(-5), Accept)
	equal(t, "take of less than nothing", w.Take(40), 0)
	equal(t, "add 7", w.Add(7), Accept)
	equal(t, "available", w.Available(), 2)
	// RFC 9113, section 6.9.1.
	equal(t, "too much", w.Add(h2frame.MaxWindow-1), WindowOverflow)
	equal(t, "as much as there can be", w.Add(h2frame.MaxWindow-2), Accept)
	equal(t, "adjust over the limit", w.Adjust(1), SettingsOverflow)
	equal(t, "available", w.Available(), h2frame.MaxWindow)
}

func TestRecvWindow(t *testing.T) {
	w := NewRecvWindow(100)
	equal(t, "recv 60", w.Recv(60), Accept)
	equal(t, "recv 41", w.Recv(41), StreamWindowExceeded) // RFC 9113, section 6.9.1
	equal(t, "consume 24", w.Consume(24), 0)
	equal(t, "consume 1", w.Consume(1), 25)
	equal(t, "held", w.Held(), 35)
	equal(t, "credit", w.Credit(), 65)
	equal(t, "recv all", w.Recv(65), Accept)
	equal(t, "grow", w.Grow(300), 200)
	equal(t, "grow by little", w.Grow(310), 0)
	equal(t, "the next update has it", w.Consume(100), 110)
	equal(t, "recv", w.Recv(310), Accept)
	equal(t, "consume all", w.Consume(310), 310)
	w.Shrink(100)
	equal(t, "recv", w.Recv(210), Accept)
	equal(t, "withheld", w.Consume(210), 0)
	equal(t, "recv", w.Recv(100), Accept)
	equal(t, "consume", w.Consume(100), 100)
	w.Adjust(-110)
	equal(t, "less than nothing", w.Credit(), -10)
	equal(t, "an empty frame", w.Recv(0), Accept)
	equal(t, "a byte", w.Recv(1), StreamWindowExceeded)
	w.Shrink(0)
	equal(t, "size", w.Size(), 1)
}

func TestTuner(t *testing.T) {
	const ms = time.Millisecond
	tu := NewTuner(50, 350)
	equal(t, "ping", tu.Recv(10*ms, 20), true)
	equal(t, "one at a time", tu.Recv(15*ms, 14), false)
	equal(t, "four times", tu.Acked(20*ms), 200)
	equal(t, "let the window arrive", tu.Recv(20*ms, 25), false)
	equal(t, "let the window arrive", tu.Recv(20*ms, 25), false)
	now := 30 * ms
	for _, pause := range []time.Duration{30 * ms, 60 * ms, 120 * ms, 240 * ms, 480 * ms, 960 * ms, time.Second, time.Second} {
		equal(t, "ping", tu.Recv(now, 133), true)
		now += 30 * ms
		equal(t, "not filled", tu.Acked(now), 200)
		equal(t, "pause", tu.Recv(now+pause-1, 133), false)
		now += pause
	}
	equal(t, "ping", tu.Recv(now, 134), true)
	equal(t, "no answer", tu.Recv(now+tunerPatience-1, 134), false)
	equal(t, "another ping", tu.Recv(now+tunerPatience, 134), true)
	equal(t, "up to the limit", tu.Acked(now+tunerPatience+ms), 350)
	equal(t, "no more pings", tu.Recv(time.Hour, 350), false)
	equal(t, "not asked", tu.Acked(time.Hour), 350)
	equal(t, "pressure", tu.Limit(120), 120)
	equal(t, "no pressure", tu.Limit(500), 120)
	tu = NewTuner(300, 600)
	equal(t, "ping", tu.Recv(0, 200), true)
	equal(t, "two thirds and no more", tu.Acked(ms), 300)
}

func TestBudgets(t *testing.T) {
	const every = 10 * time.Millisecond
	var b Budgets
	var l Limits
	l[Pings] = Limit{Burst: 3, Every: every}
	ping := h2frame.Header{Length: 8, Type: h2frame.TypePing}
	now := time.Hour
	for range 3 {
		equal(t, "a burst", b.Recv(&l, ping, now), Accept)
	}
	equal(t, "one more", b.Recv(&l, ping, now), TooManyPings)
	equal(t, "too early", b.Recv(&l, ping, now+every-1), TooManyPings)
	equal(t, "once more", b.Recv(&l, ping, now+every), Accept)
	equal(t, "and no more", b.Recv(&l, ping, now+every), TooManyPings)
	b.SentData()
	equal(t, "earned", b.Recv(&l, ping, now+every), Accept)
	equal(t, "and no more", b.Recv(&l, ping, now+every), TooManyPings)
	ping.Flags = h2frame.FlagAck
	equal(t, "an answer", b.Recv(&l, ping, now+every), Accept)
	now += time.Hour
	ping.Flags = 0
	for range 3 {
		equal(t, "full again", b.Recv(&l, ping, now), Accept)
	}
	equal(t, "and not more than full", b.Recv(&l, ping, now), TooManyPings)
	l[Provoked] = Limit{Burst: 0, Every: every}
	l[EmptyFrames] = Limit{Burst: -1, Every: every}
	for range 1000 {
		equal(t, "no limit", b.Spend(&l, Resets, now), Accept)
		equal(t, "no limit", b.Spend(&l, Provoked, now), Accept)
		equal(t, "no limit", b.Spend(&l, EmptyFrames, now), Accept)
	}
}

// TestDefaultLimits: each kind of frame that is cheap for its sender ends the
// connection after its burst (RFC 9113, section 10.5).
func TestDefaultLimits(t *testing.T) {
	l := DefaultLimits()
	tests := []struct {
		name  string
		h     h2frame.Header
		abuse Abuse
		want  Verdict
	}{
		{"rapid reset", h2frame.Header{Length: 4, Type: h2frame.TypeReset, Stream: 1}, Resets, TooManyResets},
		{"SETTINGS", h2frame.Header{Type: h2frame.TypeSettings}, SettingsFrames, TooManySettings},
		{"PING", h2frame.Header{Length: 8, Type: h2frame.TypePing}, Pings, TooManyPings},
		{"empty DATA", h2frame.Header{Type: h2frame.TypeData, Stream: 1}, EmptyFrames, TooManyEmpty},
		{"empty HEADERS", h2frame.Header{Type: h2frame.TypeHeaders, Stream: 1}, EmptyFrames, TooManyEmpty},
		{"empty CONTINUATION", h2frame.Header{Type: h2frame.TypeContinuation, Stream: 1}, EmptyFrames, TooManyEmpty},
		{"small CONTINUATION", h2frame.Header{Length: 1, Type: h2frame.TypeContinuation, Stream: 1}, Continuations, TooManyContinuations},
		{"PRIORITY", h2frame.Header{Length: 5, Type: h2frame.TypePriority, Stream: 1}, Priorities, TooManyPriorities},
		{"PRIORITY_UPDATE", h2frame.Header{Length: 5, Type: h2frame.TypePriorityUpdate}, Priorities, TooManyPriorities},
		{"unknown", h2frame.Header{Length: 5, Type: 0xbd}, UnknownFrames, TooManyUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b Budgets
			for i := range l[tt.abuse].Burst {
				if v := b.Recv(&l, tt.h, 0); v != Accept {
					t.Fatalf("frame %d: %s", i, v)
				}
			}
			v := b.Recv(&l, tt.h, 0)
			equal(t, "the next", v, tt.want)
			equal(t, "code", v.Code(), h2frame.EnhanceYourCalm)
		})
	}
	free := []h2frame.Header{
		{Type: h2frame.TypeData, Flags: h2frame.FlagEndStream, Stream: 1},
		{Length: 1, Type: h2frame.TypeData, Stream: 1},
		{Type: h2frame.TypeHeaders, Flags: h2frame.FlagEndHeaders, Stream: 1},
		{Length: 9, Type: h2frame.TypeHeaders, Stream: 1},
		{Type: h2frame.TypeContinuation, Flags: h2frame.FlagEndHeaders, Stream: 1},
		{Length: 1024, Type: h2frame.TypeContinuation, Stream: 1},
		{Type: h2frame.TypeSettings, Flags: h2frame.FlagAck},
		{Length: 8, Type: h2frame.TypeGoAway},
		{Length: 4, Type: h2frame.TypeWindowUpdate},
	}
	var b Budgets
	for _, h := range free {
		for range 10000 {
			equal(t, h.Type.String(), b.Recv(&l, h, 0), Accept)
		}
	}
	for range 10000 {
		equal(t, "WINDOW_UPDATE of 1 KiB", b.RecvWindowUpdate(&l, 1024, 0), Accept)
	}
	for range l[TinyUpdates].Burst {
		equal(t, "WINDOW_UPDATE of 1", b.RecvWindowUpdate(&l, 1, 0), Accept)
	}
	equal(t, "one more", b.RecvWindowUpdate(&l, 1, 0), TooManyUpdates)
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
