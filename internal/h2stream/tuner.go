package h2stream

import "time"

// Tuner finds the window that a connection needs to be fast: as much as the peer
// can send in one round trip, and no more. It measures round trips with PING
// frames, and counts what came between a PING and its answer. When that fills more
// than two thirds of the window, the window may be what limits the peer, and is
// made four times as large: each step takes two round trips, and a body of some
// megabytes has no time for many.
//
// One sample runs at a time. A sample that changes nothing is followed by a pause,
// each longer than the one before: TCP, which begins slowly, is soon asked again,
// and a connection that has found its window sends few PING frames.
type Tuner struct {
	window, max int
	sample      int64         // bytes since the PING
	skip        int64         // bytes to come before the next PING
	sentAt      time.Duration // of the PING
	quietUntil  time.Duration // no PING before
	pause       time.Duration // the last one
	sampling    bool
}

const (
	// tunerPause bounds the pauses.
	tunerPause = time.Second
	// tunerPatience bounds a sample. A PING that is not answered by then is taken
	// for lost, or for one that could not be sent.
	tunerPatience = 5 * time.Second
)

// NewTuner returns a tuner of a window of now window bytes, which it will not
// make larger than max.
func NewTuner(window, max int) Tuner { return Tuner{window: window, max: max} }

// Recv tells that n bytes of DATA came at the time now, and returns whether a PING
// is to be sent, whose answer goes to Acked. A clock that is late does no harm but
// for longer pauses: windows that grow wait for bytes, not for time.
func (t *Tuner) Recv(now time.Duration, n int) (ping bool) {
	if t.sampling && now-t.sentAt < tunerPatience {
		t.sample += int64(n)
		return false
	}
	if t.skip > 0 {
		t.skip -= int64(n)
		return false
	}
	if t.window >= t.max || now < t.quietUntil {
		return false
	}
	t.sampling, t.sentAt, t.sample = true, now, int64(n)
	return true
}

// Acked tells that the answer to the PING came at the time now, and returns the
// window to aim for.
func (t *Tuner) Acked(now time.Duration) (window int) {
	if !t.sampling {
		return t.window
	}
	t.sampling = false
	if t.sample*3 <= int64(t.window)*2 {
		t.pause = min(max(2*t.pause, now-t.sentAt), tunerPause)
		t.quietUntil = now + t.pause
		return t.window
	}
	// What comes next was still sent by the smaller window.
	t.skip, t.pause = int64(t.window), 0
	t.window = min(4*t.window, t.max)
	return t.window
}

// Limit changes the largest window and returns the window to aim for, which is
// smaller than before if memory is short.
func (t *Tuner) Limit(max int) (window int) {
	t.max = max
	t.window = min(t.window, max)
	return t.window
}
