package h2stream

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cirqueproxy/cirque/internal/h2frame"
)

// link is one direction of DATA with an honest peer: what it sends and what it is
// given back are under way for a while, in order.
type link struct {
	send    SendWindow // the peer's
	recv    RecvWindow // ours
	there   []parcel   // under way to us: DATA, and answers to SETTINGS
	back    []parcel   // under way to the peer: WINDOW_UPDATE and SETTINGS
	largest int        // that the window ever was
}

// parcel is a frame that is under way: n bytes, or another first size of windows,
// delta bytes more.
type parcel struct {
	n, delta int
}

func (l *link) update(n int) {
	if n > 0 {
		l.back = append(l.back, parcel{n: n})
	}
}

// deliver lets what is under way arrive, all of it or the first of each.
func (l *link) deliver(all bool) error {
	for len(l.there) > 0 {
		p := l.there[0]
		l.there = l.there[1:]
		l.recv.Adjust(p.delta)
		l.largest = max(l.largest, l.recv.Size())
		if v := l.recv.Recv(p.n); v != Accept {
			return fmt.Errorf("%d bytes of an honest peer: %s", p.n, v)
		}
		if !all {
			break
		}
	}
	for len(l.back) > 0 {
		p := l.back[0]
		l.back = l.back[1:]
		if v := l.send.Add(uint32(p.n)); v != Accept {
			return fmt.Errorf("an update of %d: %s", p.n, v)
		}
		if p.delta != 0 {
			if v := l.send.Adjust(int64(p.delta)); v != Accept {
				return fmt.Errorf("SETTINGS: %s", v)
			}
			l.there = append(l.there, parcel{delta: p.delta})
		}
		if !all {
			break
		}
	}
	return nil
}

// check returns what is wrong with the books of both ends: each byte of credit that
// we gave is at the peer, or under way in one of the directions.
func (l *link) check() error {
	at := int(l.send.credit)
	for _, p := range l.there {
		at += p.n - p.delta // not heard of here, but at the peer
	}
	for _, p := range l.back {
		at += p.n
	}
	if at != l.recv.Credit() {
		return fmt.Errorf("the peer has %d, with what is under way; we gave %d", at, l.recv.Credit())
	}
	if l.recv.Held() > l.largest {
		return fmt.Errorf("%d held in a window that was at most %d", l.recv.Held(), l.largest)
	}
	if l.recv.Held()+l.recv.Credit() > l.largest {
		return fmt.Errorf("held %d and %d to come in a window of %d", l.recv.Held(), l.recv.Credit(), l.largest)
	}
	return nil
}

// TestWindowsModel: an honest peer is never refused, whatever the delays and
// whenever the window grows, shrinks and begins with another size; what we hold
// stays within the largest window; and when all is consumed and all has arrived,
// the peer can send.
func TestWindowsModel(t *testing.T) {
	check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 64).Draw(t, "size")
		l := &link{send: NewSendWindow(uint32(size)), recv: NewRecvWindow(size), largest: size}
		first := rapid.IntRange(1, 99).Draw(t, "first")
		// RFC 9113, section 6.9.2: until it has heard of it the peer reckons with
		// another first size. A window does not shrink before that.
		heard := func() bool { return first == 0 && len(l.there)+len(l.back) == 0 }
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			n := rapid.IntRange(0, 100).Draw(t, "n")
			switch rapid.SampledFrom([]string{"send", "send", "deliver", "consume", "consume", "grow", "shrink", "settings"}).Draw(t, "step") {
			case "send":
				if n = l.send.Take(n); n > 0 {
					l.there = append(l.there, parcel{n: n})
				}
			case "deliver":
				if err := l.deliver(n%2 == 0); err != nil {
					t.Fatal(err)
				}
			case "consume":
				l.update(l.recv.Consume(min(n, l.recv.Held())))
			case "grow":
				l.update(l.recv.Grow(n))
				l.largest = max(l.largest, l.recv.Size())
			case "shrink":
				if heard() {
					l.recv.Shrink(n)
				}
			case "settings":
				if first > 0 {
					l.back = append(l.back, parcel{delta: first - size})
					first = 0
				}
			}
			if err := l.check(); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 { // SETTINGS, their answer, and what they free
			if err := l.deliver(true); err != nil {
				t.Fatal(err)
			}
			l.update(l.recv.Consume(l.recv.Held()))
		}
		if err := l.check(); err != nil {
			t.Fatal(err)
		}
		if l.send.Available() <= l.recv.Size()*3/4-1 {
			t.Fatalf("nothing is under way, and the peer has %d of %d", l.send.Available(), l.recv.Size())
		}
		if v := l.recv.Recv(l.recv.Credit() + 1); v != StreamWindowExceeded {
			t.Fatalf("one byte too many: %s", v)
		}
	})
}

// TestSendWindowModel: sums in a type that cannot overflow (RFC 9113, section
// 6.9.1 and section 6.9.2).
func TestSendWindowModel(t *testing.T) {
	check(t, func(t *rapid.T) {
		const top = h2frame.MaxWindow
		initial := rapid.Uint32Range(0, top).Draw(t, "initial")
		w, sum := NewSendWindow(initial), float64(initial)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			n := rapid.OneOf(rapid.Uint32Range(0, 100), rapid.Uint32Range(0, top)).Draw(t, "n")
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				want := min(float64(n), max(sum, 0))
				if got := w.Take(int(n)); float64(got) != want {
					t.Fatalf("took %d, want %f", got, want)
				}
				sum -= want
			case 1:
				want := Accept
				if sum += float64(n); sum > top {
					want, sum = WindowOverflow, sum-float64(n)
				}
				if got := w.Add(n); got != want {
					t.Fatalf("add %d: %s, want %s", n, got, want)
				}
			case 2:
				delta, want := int64(n)-int64(initial), Accept
				if sum+float64(delta) > top {
					want = SettingsOverflow
				} else {
					sum, initial = sum+float64(delta), n
				}
				if got := w.Adjust(delta); got != want {
					t.Fatalf("adjust by %d: %s, want %s", delta, got, want)
				}
			}
			if float64(w.Available()) != max(sum, 0) {
				t.Fatalf("available %d, want %f", w.Available(), sum)
			}
		}
	})
}

// transfer sends bytes over a link of some round trip and rate, with a window that
// a Tuner chooses, in steps of a hundredth of the round trip. The sender begins
// as TCP does, with 14 KiB in the first round trip and twice as much in each one
// after it; the clock that Recv gets goes in ticks. It returns the time that it
// took, the window at the end and the PINGs that were sent.
func transfer(total, perSecond, window, maxWindow int, rtt, tick time.Duration) (took time.Duration, size, pings int) {
	type event struct {
		at   time.Duration
		n    int
		ping bool
	}
	tuner := NewTuner(window, maxWindow)
	recv, send := NewRecvWindow(window), NewSendWindow(uint32(window))
	step := rtt / 100
	perStep := int(float64(perSecond) * step.Seconds())
	var there, back []event // to us, to the peer
	now := time.Duration(0)
	for total > 0 {
		now += step
		for len(back) > 0 && back[0].at <= now {
			if back[0].ping {
				there = append(there, event{at: now + rtt/2, ping: true})
			}
			send.Add(uint32(back[0].n))
			back = back[1:]
		}
		begun := float64(14<<10) / 100 * math.Pow(2, float64(now/rtt))
		if n := send.Take(int(min(float64(perStep), begun))); n > 0 {
			there = append(there, event{at: now + rtt/2, n: n})
		}
		for len(there) > 0 && there[0].at <= now {
			e := there[0]
			there = there[1:]
			update := 0
			if e.ping {
				update = recv.Grow(tuner.Acked(now))
			} else {
				if tuner.Recv(now.Truncate(tick), e.n) {
					pings++
					back = append(back, event{at: now + rtt/2, ping: true})
				}
				recv.Recv(e.n)
				total -= e.n
				update = recv.Consume(e.n)
			}
			if update > 0 {
				back = append(back, event{at: now + rtt/2, n: update})
			}
		}
	}
	return now, recv.Size(), pings
}

// TestTunerFindsWindow: on links of many kinds 64 KiB grow to what the link needs
// and to less than six times that, so that a large transfer takes hardly longer than
// with a window that is large from the beginning, with few PINGs.
func TestTunerFindsWindow(t *testing.T) {
	const mib = 1 << 20
	tests := []struct {
		name      string
		perSecond int
		rtt       time.Duration
	}{
		{"datacentre", 1000 * mib, 500 * time.Microsecond},
		{"20 ms, 1 Gbit/s", 120 * mib, 20 * time.Millisecond},
		{"100 ms, 100 Mbit/s", 12 * mib, 100 * time.Millisecond},
		{"slow", mib / 8, 50 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const tick = 100 * time.Millisecond
			const initial, limit = 64 << 10, 16 * mib
			total := 3 * tt.perSecond // three seconds at full rate
			took, size, pings := transfer(total, tt.perSecond, initial, limit, tt.rtt, tick)
			needed := int(float64(tt.perSecond) * tt.rtt.Seconds())
			if size < needed || size > max(6*needed, initial) {
				t.Errorf("window of %d where %d are needed", size, needed)
			}
			if best, _, _ := transfer(total, tt.perSecond, limit, limit, tt.rtt, tick); took > best*5/4 {
				t.Errorf("took %v for what the link moves in %v with a window that is never full", took, best)
			}
			if pings > 30 {
				t.Errorf("%d PINGs", pings)
			}
			t.Logf("took %v, window %d, needed %d, %d PINGs", took, size, needed, pings)
		})
	}
}
