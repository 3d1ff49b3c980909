package h2stream

import (
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
)

// exchange is what a server's machines do for one small request.
func exchange(ids *IDs, b *Budgets, l *Limits, conn *RecvWindow, id uint32, now time.Duration) Verdict {
	if v := ids.Recv(id, h2frame.TypeHeaders); v != Accept {
		return v
	}
	m, content := NewMachine(h2frame.Server), NewContent(100)
	window, send := NewRecvWindow(1<<16), NewSendWindow(1<<16)
	data := h2frame.Header{Length: 100, Type: h2frame.TypeData, Stream: id, Flags: h2frame.FlagEndStream}
	send.Take(1000)
	conn.Consume(100)
	window.Consume(100)
	b.SentData()
	for _, v := range [...]Verdict{
		m.RecvHeaders(false, false),
		b.Recv(l, data, now),
		m.RecvData(true), content.Recv(100, true), window.Recv(100), conn.Recv(100),
		m.SendHeaders(false, false), m.SendData(true),
	} {
		if v != Accept {
			return v
		}
	}
	ids.Closed(id, m.End())
	return ids.Recv(id, h2frame.TypeWindowUpdate)
}

func TestAllocs(t *testing.T) {
	var (
		ids    = NewIDs(h2frame.Server)
		b      Budgets
		limits = DefaultLimits()
		conn   = NewRecvWindow(1 << 20)
		tuner  = NewTuner(1<<16, 1<<20)
		id     = uint32(1)
		now    time.Duration
		field  = []byte(`u=1, a=("x" y);z=2, i`)
		turn   = Rank{Priority: UnsaidPriority()}
	)
	n := testing.AllocsPerRun(1000, func() {
		if v := exchange(&ids, &b, &limits, &conn, id, now); v != Ignore {
			t.Fatal(v)
		}
		tuner.Recv(now, 100)
		tuner.Acked(now)
		turn.Turn++
		if turn.Priority = ParsePriority(UnsaidPriority(), field); !turn.Before(Rank{Priority: DefaultPriority()}) {
			t.Fatal("order")
		}
		id += 2
		now += time.Millisecond
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkExchange: what the machines cost a small request.
func BenchmarkExchange(b *testing.B) {
	ids, limits, conn := NewIDs(h2frame.Server), DefaultLimits(), NewRecvWindow(1<<20)
	var budgets Budgets
	id := uint32(1)
	b.ReportAllocs()
	for b.Loop() {
		if v := exchange(&ids, &budgets, &limits, &conn, id, 0); v != Ignore {
			b.Fatal(v)
		}
		if id += 2; id > h2frame.MaxStreamID-2 {
			ids, id = NewIDs(h2frame.Server), 1
		}
	}
}

func BenchmarkParsePriority(b *testing.B) {
	field := []byte("u=1, i")
	b.ReportAllocs()
	for b.Loop() {
		ParsePriority(DefaultPriority(), field)
	}
}
