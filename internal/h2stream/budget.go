package h2stream

import (
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
)

// Abuse is something that costs us more than the peer, and that honest peers do
// seldom.
type Abuse uint8

// The kinds of abuse; see DefaultLimits for what each is.
const (
	Resets Abuse = iota
	Provoked
	SettingsFrames
	Pings
	EmptyFrames
	Continuations
	Priorities
	TinyUpdates
	UnknownFrames
	numAbuses
)

// Frames below these sizes are small: an honest sender fills frames, and gives
// windows back in larger pieces.
const (
	smallContinuation = 1 << 10
	tinyUpdate        = 1 << 10
)

// Limit is how often something may happen: Burst times at once, and once more
// each Every. A Burst of 0 or less means that it is not limited.
type Limit struct {
	Burst int
	Every time.Duration
}

// Limits are the limits of one connection.
type Limits [numAbuses]Limit

// verdictOf is what an exhausted budget earns.
var verdictOf = [numAbuses]Verdict{
	Resets:         TooManyResets,
	Provoked:       TooManyProvoked,
	SettingsFrames: TooManySettings,
	Pings:          TooManyPings,
	EmptyFrames:    TooManyEmpty,
	Continuations:  TooManyContinuations,
	Priorities:     TooManyPriorities,
	TinyUpdates:    TooManyUpdates,
	UnknownFrames:  TooManyUnknown,
}

// DefaultLimits returns limits that honest peers do not meet.
//
// RFC 9113, section 10.5: what a peer can make us do without end is limited, and
// ends with ENHANCE_YOUR_CALM.
func DefaultLimits() Limits {
	return Limits{
		// RST_STREAM that came. Rapid reset (CVE-2023-44487): a request and its
		// cancellation cost two small frames, and start work each time.
		Resets: {1000, 30 * time.Millisecond},
		// RST_STREAM that we had to send. MadeYouReset (CVE-2025-8671): the same,
		// by frames that make us reset, so that no RST_STREAM is counted above.
		Provoked: {100, 100 * time.Millisecond},
		// SETTINGS, acknowledgements apart. Each one is answered, and can change
		// the window of each stream.
		SettingsFrames: {50, 500 * time.Millisecond},
		// PING, answers apart. Each one is answered: a peer that does not read makes
		// answers gather. DATA earns some, since honest peers measure with PING how
		// fast DATA comes.
		Pings: {200, 100 * time.Millisecond},
		// DATA, HEADERS and CONTINUATION that carry nothing and end nothing: they
		// cost nine bytes, no credit, and a turn of everything.
		EmptyFrames: {100, 100 * time.Millisecond},
		// CONTINUATION frames under 1 KiB that do not end their block: a field block
		// in pieces of one byte costs a frame each.
		Continuations: {64, 100 * time.Millisecond},
		// PRIORITY and PRIORITY_UPDATE: each one may change the order of streams, of
		// any stream, also of those that never come.
		Priorities: {1000, 10 * time.Millisecond},
		// WINDOW_UPDATE of less than 1 KiB: each one lets us send a frame that is
		// hardly larger than its header. DATA that we sent earns some.
		TinyUpdates: {500, 10 * time.Millisecond},
		// Frames of unknown types: ignored, but read.
		UnknownFrames: {500, 20 * time.Millisecond},
	}
}

// Budgets counts against Limits on one connection. The zero value has spent
// nothing.
//
// A budget is one number, the time at which it will be full again: what costs one
// moves it by Every, and it may be Burst times that ahead of now. What was earned
// is spent first, and does not get lost in a budget that is full.
type Budgets struct {
	fullAt [numAbuses]time.Duration
	earned [numAbuses]uint32
}

// maxEarned bounds what can be earned for later: a peer that took much DATA in
// silence has not earned a flood without end.
const maxEarned = 1 << 16

// Spend notes that a happened at the time now, and returns Accept, or what ends
// the connection when it happened too often.
func (b *Budgets) Spend(l *Limits, a Abuse, now time.Duration) Verdict {
	limit := l[a]
	if limit.Burst <= 0 {
		return Accept
	}
	if b.earned[a] > 0 {
		b.earned[a]--
		return Accept
	}
	full := max(b.fullAt[a], now) + limit.Every
	if full-now > time.Duration(limit.Burst)*limit.Every {
		return verdictOf[a]
	}
	b.fullAt[a] = full
	return Accept
}

// Earn allows a to happen n times more.
func (b *Budgets) Earn(a Abuse, n int) {
	b.earned[a] = min(b.earned[a]+uint32(n), maxEarned)
}

// SentData is to be called for each DATA frame that went out: its receiver may
// answer with a PING and with WINDOW_UPDATE frames of its size, for the stream
// and for the connection.
func (b *Budgets) SentData() {
	b.Earn(Pings, 1)
	b.Earn(TinyUpdates, 2)
}

// Recv spends what a frame costs by its header alone: everything but tiny
// WINDOW_UPDATE, DATA of padding alone, and Provoked.
func (b *Budgets) Recv(l *Limits, h h2frame.Header, now time.Duration) Verdict {
	ack := h.Flags.Has(h2frame.FlagAck)
	ends := h.Flags.Has(h2frame.FlagEndHeaders)
	switch h.Type {
	case h2frame.TypeData:
		if h.Length == 0 && !h.Flags.Has(h2frame.FlagEndStream) {
			return b.Spend(l, EmptyFrames, now)
		}
	case h2frame.TypeHeaders:
		if h.Length == 0 && !ends {
			return b.Spend(l, EmptyFrames, now)
		}
	case h2frame.TypeContinuation:
		if h.Length == 0 && !ends {
			return b.Spend(l, EmptyFrames, now)
		}
		if h.Length < smallContinuation && !ends {
			return b.Spend(l, Continuations, now)
		}
	case h2frame.TypeReset:
		return b.Spend(l, Resets, now)
	case h2frame.TypeSettings:
		if !ack {
			return b.Spend(l, SettingsFrames, now)
		}
	case h2frame.TypePing:
		if !ack {
			return b.Spend(l, Pings, now)
		}
	case h2frame.TypePriority, h2frame.TypePriorityUpdate:
		return b.Spend(l, Priorities, now)
	case h2frame.TypeWindowUpdate, h2frame.TypeGoAway, h2frame.TypePushPromise:
	default:
		return b.Spend(l, UnknownFrames, now)
	}
	return Accept
}

// RecvWindowUpdate spends what a WINDOW_UPDATE with an increment costs.
func (b *Budgets) RecvWindowUpdate(l *Limits, inc uint32, now time.Duration) Verdict {
	if inc < tinyUpdate {
		return b.Spend(l, TinyUpdates, now)
	}
	return Accept
}
