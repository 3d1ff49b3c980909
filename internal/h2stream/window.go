package h2stream

import "github.com/cirqueproxy/cirque/internal/h2frame"

// SendWindow is how much we may send on a stream, or on the connection.
//
// RFC 9113, section 6.9.2: a change of SETTINGS_INITIAL_WINDOW_SIZE can make it
// negative.
type SendWindow struct {
	credit int64
}

// NewSendWindow returns a window of n bytes.
func NewSendWindow(n uint32) SendWindow { return SendWindow{int64(n)} }

// Available returns how many bytes may be sent; never negative.
func (w *SendWindow) Available() int { return int(max(w.credit, 0)) }

// Take takes as much credit as there is, max at most, and returns how much.
func (w *SendWindow) Take(max int) int {
	n := min(max, w.Available())
	w.credit -= int64(n)
	return n
}

// Add takes the increment of a WINDOW_UPDATE frame. (For the connection's window
// the verdict's Err(0) is the error.)
//
// RFC 9113, section 6.9.1: a window over 2^31-1 ends the stream, or the connection
// if it is the connection's.
func (w *SendWindow) Add(n uint32) Verdict {
	if w.credit+int64(n) > h2frame.MaxWindow {
		return WindowOverflow
	}
	w.credit += int64(n)
	return Accept
}

// Adjust takes a change of SETTINGS_INITIAL_WINDOW_SIZE, the new value minus the
// one before: for each stream, never for the connection.
//
// RFC 9113, section 6.9.2: a window over 2^31-1 ends the connection.
func (w *SendWindow) Adjust(delta int64) Verdict {
	if w.credit+delta > h2frame.MaxWindow {
		return SettingsOverflow
	}
	w.credit += delta
	return Accept
}

// RecvWindow is how much the peer may send on a stream, or on the connection, and
// when it is told that it may send more.
//
// Each byte of the window is in one of three places: the peer may send it
// (credit), we hold it (held), or it was consumed and not given back yet. What is
// not given back is size - credit - held; it is negative while a window that
// shrank waits for the peer to use credit up that it has. So held never exceeds
// what the window was at most since the peer got its credit.
type RecvWindow struct {
	size, credit, held int64
}

// NewRecvWindow returns a window of size bytes, which the peer knows of.
func NewRecvWindow(size int) RecvWindow { return RecvWindow{size: int64(size), credit: int64(size)} }

// Size returns what the window aims for.
func (w *RecvWindow) Size() int { return int(w.size) }

// Held returns how many bytes were received and not consumed.
func (w *RecvWindow) Held() int { return int(w.held) }

// Credit returns how many bytes the peer may still send.
func (w *RecvWindow) Credit() int { return int(w.credit) }

// Recv takes n bytes of the peer, the payload of a DATA frame with its padding.
// The verdict is Accept or StreamWindowExceeded; for the connection's window its
// Err(0) is the error.
//
// RFC 9113, section 6.9.1: a receiver may end the stream or connection of a peer
// that sends more than it may. An empty frame needs no credit.
func (w *RecvWindow) Recv(n int) Verdict {
	if n > 0 && int64(n) > w.credit {
		return StreamWindowExceeded
	}
	w.credit -= int64(n)
	w.held += int64(n)
	return Accept
}

// Consume tells that n bytes are no longer held, and returns the increment of the
// WINDOW_UPDATE to send now; 0 means none. An update is worth a frame when it
// gives a quarter of the window back, or more. (With a half the window was only
// half as large as it looked: of data that comes in bursts up to a half stayed
// here, consumed and not given back, round trip after round trip, and a Tuner saw
// no reason to grow it.)
func (w *RecvWindow) Consume(n int) (update int) {
	w.held -= int64(n)
	return w.update()
}

// Grow aims for a larger window, and returns the increment of the WINDOW_UPDATE
// to send now; 0 means that the next one carries it. A smaller size changes
// nothing.
func (w *RecvWindow) Grow(size int) (update int) {
	w.size = min(max(w.size, int64(size)), h2frame.MaxWindow)
	return w.update()
}

// Shrink aims for a smaller window: updates are withheld until the peer has
// used up what it has too much. A larger size changes nothing.
func (w *RecvWindow) Shrink(size int) { w.size = max(min(w.size, int64(size)), 1) }

// Adjust tells that the peer has heard of another first size than the one that it
// reckoned with, delta bytes more. What it may send can become negative.
//
// RFC 9113, section 6.9.2: it adjusts the windows of open streams by the difference.
func (w *RecvWindow) Adjust(delta int) {
	w.size += int64(delta)
	w.credit += int64(delta)
}

func (w *RecvWindow) update() int {
	due := w.size - w.credit - w.held
	if due < max(w.size/4, 1) {
		return 0
	}
	w.credit += due
	return int(due)
}
