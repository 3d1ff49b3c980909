package h2

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// upload keeps stream 1 as full as its window allows, until stop is closed or more
// were sent than total, and answers pings; it returns the largest credit that the
// client had at a time.
type uploader struct {
	b            *bed
	conn, stream int // credit
	sent         int
	most         int
	pings        int
}

// pump sends what credit allows and takes one frame of the server's.
func (u *uploader) pump() {
	b := u.b
	for u.conn > 0 && u.stream > 0 {
		n := min(u.conn, u.stream, 16<<10)
		b.must(b.fr.WriteData(1, false, make([]byte, n)))
		u.conn, u.stream, u.sent = u.conn-n, u.stream-n, u.sent+n
	}
	synctest.Wait()
	for b.far.Stray() != nil {
		f, err := b.fr.ReadFrame()
		b.must(err)
		switch f := f.(type) {
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				u.conn += int(f.Increment)
			} else {
				u.stream += int(f.Increment)
			}
			u.most = max(u.most, u.stream)
		case *http2.PingFrame:
			if !f.IsAck() {
				u.pings++
				b.must(b.fr.WritePing(true, f.Data))
			}
		}
	}
}

// run pumps for a time.
func (u *uploader) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		u.pump()
	}
}

// TestWindowsGrowUnderBudget: windows grow with the round trip, under a budget of the
// process; they shrink again when it is nearly used up, and what they had counts until
// the other end has used it.
func TestWindowsGrowUnderBudget(t *testing.T) {
	budget := NewWindowBudget(1 << 20)
	change := func(cfg *Config) { cfg.Windows, cfg.MaxWindow = budget, 256<<10 }
	withServer(t, sink, change, func(b *bed) {
		b.hello()
		b.headers(1, false, getLines...)
		// A round trip of 20 ms.
		b.far.SetDelay(20 * time.Millisecond)
		b.far.SetBuffer(16 << 20)
		u := &uploader{b: b, conn: 256 << 10, stream: 64 << 10}
		u.run(80 * 20 * time.Millisecond)
		if u.most < 120<<10 || u.pings == 0 || u.pings > 50 {
			t.Errorf("the window grew to %d, with %d pings", u.most, u.pings)
		}
		used := budget.used.Load()
		if used < 300<<10 {
			t.Errorf("%d bytes of the budget are used", used)
		}
		// Others use the budget up.
		if !budget.take(1<<20-int(used)) || budget.take(1) {
			t.Error("the budget does not bound")
		}
		budget.give(1<<20 - int(used))
		const others = 900 << 10
		budget.used.Add(others)
		time.Sleep(200 * time.Millisecond)
		if now := budget.used.Load(); now < others+int64(max(u.conn-256<<10, 0)+max(u.stream-64<<10, 0)) || now > others+used {
			t.Errorf("%d bytes of the budget are used while the client may still send", now)
		}
		u.run(50 * 20 * time.Millisecond)
		if now := budget.used.Load(); now != others {
			t.Errorf("%d bytes of the budget are held by a window that shrank", now-others)
		}
		u.most = 0
		u.run(50 * 20 * time.Millisecond)
		if u.most > 64<<10 {
			t.Errorf("the window is %d under pressure", u.most)
		}
		budget.give(others)
		u.run(80 * 20 * time.Millisecond)
		if u.most < 120<<10 {
			t.Errorf("the window grew to %d after the pressure", u.most)
		}
	})
}

// TestSlowConsumer: a window does not grow for a sender that is held back by who reads
// the body, not by the window: all that grows is what we hold.
func TestSlowConsumer(t *testing.T) {
	slow := func(st *Stream) {
		for {
			if _, _, err := st.ReadBody(nil); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	withServer(t, slow, nil, func(b *bed) {
		b.hello()
		b.headers(1, false, getLines...)
		b.far.SetDelay(20 * time.Millisecond)
		b.far.SetBuffer(16 << 20)
		u := &uploader{b: b, conn: 256 << 10, stream: 64 << 10}
		u.run(10 * time.Second)
		if u.most > 128<<10 || u.sent < 1<<20 {
			t.Errorf("the window grew to %d for %d bytes", u.most, u.sent)
		}
		b.conn.Close(ErrClosed)
	})
}
