package h2stream

import (
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque/internal/h2frame"
)

// step applies one step of a script to a machine: "recv" or "send", then "H" for
// a head or trailers, "1" for an interim head, "D", "R", "W"; "+" is END_STREAM.
func step(t *testing.T, m *Machine, s string) Verdict {
	t.Helper()
	dir, what, _ := strings.Cut(s, " ")
	what, end := strings.CutSuffix(what, "+")
	switch dir + what {
	case "recvH", "recv1":
		return m.RecvHeaders(what == "1", end)
	case "recvD":
		return m.RecvData(end)
	case "recvR":
		return m.RecvReset()
	case "recvW":
		return m.RecvWindowUpdate()
	case "sendH", "send1":
		return m.SendHeaders(what == "1", end)
	case "sendD":
		return m.SendData(end)
	case "sendR":
		return m.SendReset()
	}
	t.Fatalf("no step %q", s)
	return Accept
}

func TestMachine(t *testing.T) {
	const client, server = h2frame.Client, h2frame.Server
	tests := []struct {
		name  string
		role  h2frame.Role
		steps string // all accepted but the last
		last  Verdict
		state State
	}{
		// RFC 9113, section 8.1: one exchange.
		{"request, response", server, "recv H+, send H, send D+", Accept, Closed},
		{"the same, of a client", client, "send H+, recv H, recv D+", Accept, Closed},
		{"with bodies and trailers", server, "recv H, recv D, recv D, recv H+, send 1, send 1, send H, send D, send H+", Accept, Closed},
		{"with interim heads", client, "send H, recv 1, send D+, recv 1, recv H, recv H+", Accept, Closed},
		{"response before the request ends", server, "recv H, send H+, recv D, recv D", Accept, HalfClosedLocal},
		{"response head only", client, "send H, recv H+", Accept, HalfClosedRemote},
		{"head, open", client, "send H", Accept, Open},
		{"trailers that do not end", server, "recv H, recv D, recv H", TrailersUnended, Open},
		{"a second final head", client, "send H, recv H, recv H", TrailersUnended, Open},
		{"interim head after the final one", client, "send H, recv H, recv 1", TrailersUnended, Open},
		{"interim head that ends", client, "send H, recv 1+", InterimEnds, Open},
		{"interim head of a request", server, "recv 1", InterimRequest, Open},
		{"DATA before the head", client, "send H, recv D", DataBeforeHead, Open},
		{"DATA after an interim head", client, "send H, recv 1, recv D+", DataBeforeHead, Open},

		// RFC 9113, section 5.1, idle.
		{"DATA on idle", server, "recv D", IdleStream, Idle},
		{"RST_STREAM on idle", server, "recv R", IdleStream, Idle}, // RFC 9113, section 6.4
		{"WINDOW_UPDATE on idle", client, "recv W", IdleStream, Idle},
		{"HEADERS on an idle stream of ours", client, "recv H", IdleStream, Idle},
		{"reset of ours on idle", client, "send R", Ignore, Idle},

		// RFC 9113, section 5.1, half-closed (remote).
		{"DATA after the end", server, "recv H+, recv D", HalfClosed, HalfClosedRemote},
		{"HEADERS after the end", server, "recv H+, recv H+", HalfClosed, HalfClosedRemote},
		{"WINDOW_UPDATE after the end", server, "recv H+, recv W", Accept, HalfClosedRemote}, // RFC 9113, section 6.9
		{"RST_STREAM after the end", server, "recv H+, recv R", Accept, Closed},

		// RFC 9113, section 5.1, closed.
		{"DATA after both ends", server, "recv H+, send H+, recv D", EndedStream, Closed},
		{"HEADERS after both ends", server, "recv H+, send H+, recv H+", EndedStream, Closed},
		{"WINDOW_UPDATE after both ends", server, "recv H+, send H+, recv W", Ignore, Closed},
		{"RST_STREAM after both ends", server, "recv H+, send H+, recv R", Ignore, Closed},
		{"WINDOW_UPDATE after our end", server, "recv H, send H+, recv W", Ignore, HalfClosedLocal},
		{"HEADERS after its reset", server, "recv H, recv R, recv H+", ResetStream, Closed},
		{"DATA after its reset", server, "recv H, recv R, recv D", ResetStream, Closed},
		{"a second reset", server, "recv H, recv R, recv R", Ignore, Closed},
		{"DATA that crossed our reset", server, "recv H, send R, recv D", Ignore, Closed},
		{"trailers that crossed our reset", server, "recv H, send R, recv H+", Ignore, Closed},
		{"head that crossed our reset", client, "send H, send R, recv H", Ignore, Closed},
		{"reset that crossed our reset", client, "send H, send R, recv R", Ignore, Closed},
		{"reset twice", client, "send H, send R, send R", Ignore, Closed},
		{"reset after both ends", client, "send H+, recv H+, send R", Ignore, Closed},
		{"reset of an early response", server, "recv H, send H+, send R", Accept, Closed},
		{"head of ours after its reset", server, "recv H, recv R, send H", Ignore, Closed},
		{"DATA of ours after its reset", server, "recv H, send H, recv R, send D+", Ignore, Closed},

		// What we must not do.
		{"response before the request", server, "send H", Misuse, Idle},
		{"interim head of our request", client, "send 1", Misuse, Idle},
		{"interim head of ours that ends", server, "recv H, send 1+", Misuse, Open},
		{"DATA of ours before the head", server, "recv H, send D", Misuse, Open},
		{"DATA of ours after an interim head", server, "recv H, send 1, send D", Misuse, Open},
		{"DATA of ours after our end", server, "recv H, send H+, send D", Misuse, HalfClosedLocal},
		{"trailers of ours after our end", server, "recv H, send H+, send H+", Misuse, HalfClosedLocal},
		{"trailers of ours that do not end", server, "recv H, send H, send H", Misuse, Open},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := NewMachine(tt.role)
			steps := strings.Split(tt.steps, ", ")
			for i, s := range steps {
				v, want := step(t, &m, s), Accept
				if i == len(steps)-1 {
					want = tt.last
				}
				if v != want {
					t.Fatalf("%s: %q, want %q", s, v, want)
				}
			}
			if m.State() != tt.state {
				t.Errorf("in state %q, want %q", m.State(), tt.state)
			}
		})
	}
}

func TestMachineTells(t *testing.T) {
	m := NewMachine(h2frame.Client)
	m.SendHeaders(false, false)
	m.RecvHeaders(true, false)
	if m.HeadReceived() || m.End() != EndNone {
		t.Errorf("after an interim head: %+v", m)
	}
	m.RecvHeaders(false, false)
	m.SendData(true)
	if !m.HeadReceived() || m.State() != HalfClosedLocal {
		t.Errorf("after the head: %+v", m)
	}
	m.Abandon()
	if m.End() != EndInternal || m.RecvData(true) != Ignore {
		t.Errorf("after the end of the connection: %+v", m)
	}
}

func TestTunnel(t *testing.T) {
	// RFC 9113, section 8.5: DATA, RST_STREAM and WINDOW_UPDATE only.
	m := NewMachine(h2frame.Server)
	equal(t, "CONNECT", m.RecvHeaders(false, false), Accept)
	equal(t, "200", m.SendHeaders(false, false), Accept)
	m.Tunnel()
	equal(t, "DATA", m.RecvData(false), Accept)
	equal(t, "trailers", m.RecvHeaders(false, true), HeadersInTunnel)
	equal(t, "trailers of ours", m.SendHeaders(false, true), Misuse)
	equal(t, "WINDOW_UPDATE", m.RecvWindowUpdate(), Accept)
	equal(t, "the end", m.RecvData(true), Accept)
	equal(t, "our end", m.SendData(true), Accept)
	equal(t, "how", m.End(), EndBoth)
}

func TestContent(t *testing.T) {
	// RFC 9113, section 8.1.1.
	tests := []struct {
		name   string
		length int64
		pieces []int // the last one ends
		want   Verdict
	}{
		{"unknown", -1, []int{5, 0, 7}, Accept},
		{"as announced", 12, []int{5, 0, 7}, Accept},
		{"empty", 0, []int{0}, Accept},
		{"short", 12, []int{5, 6}, LengthDiffers},
		{"long", 12, []int{5, 8}, LengthDiffers},
		{"long before the end", 4, []int{5, 0}, LengthDiffers},
		{"not empty", 0, []int{1}, LengthDiffers},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, v := NewContent(tt.length), Accept
			for i, n := range tt.pieces {
				if v == Accept {
					v = c.Recv(n, i == len(tt.pieces)-1)
				}
			}
			if v != tt.want {
				t.Errorf("%q, want %q", v, tt.want)
			}
		})
	}
}

func TestIDs(t *testing.T) {
	const H, D, W, R, P = h2frame.TypeHeaders, h2frame.TypeData, h2frame.TypeWindowUpdate, h2frame.TypeReset, h2frame.TypePriority
	type frame struct {
		id   uint32
		t    h2frame.Type
		want Verdict
	}
	check := func(t *testing.T, ids *IDs, frames ...frame) {
		t.Helper()
		for _, f := range frames {
			if v := ids.Recv(f.id, f.t); v != f.want {
				t.Errorf("%s on %d: %q, want %q", f.t, f.id, v, f.want)
			}
		}
	}
	t.Run("server", func(t *testing.T) {
		ids := NewIDs(h2frame.Server)
		// RFC 9113, section 5.1.1.
		check(t, &ids, frame{2, H, InvalidStream}, frame{7, P, Accept}, frame{7, D, IdleStream}, frame{7, R, IdleStream},
			frame{7, W, IdleStream}, frame{5, H, Accept}, frame{3, H, OldStream}, frame{3, D, Ignore}, frame{3, W, Ignore},
			frame{9, H, Accept}, frame{4, D, InvalidStream}, frame{11, D, IdleStream})
		if ids.Highest() != 9 {
			t.Errorf("highest %d", ids.Highest())
		}
		// RFC 9113, section 5.1, closed.
		ids.Closed(5, EndBoth)
		ids.Closed(9, EndReset)
		check(t, &ids, frame{5, D, EndedStream}, frame{5, H, EndedStream}, frame{5, R, Ignore}, frame{5, P, Accept},
			frame{9, D, Ignore}, frame{9, H, Ignore}, frame{9, W, Ignore}, frame{13, H, Accept})
		ids.Closed(13, EndPeer)
		check(t, &ids, frame{13, D, ResetStream}, frame{13, H, ResetStream}, frame{13, W, Ignore})
		// RFC 9113, section 6.8.
		ids.SendGoAway(13)
		ids.SendGoAway(99)
		check(t, &ids, frame{15, H, Ignore}, frame{15, D, Ignore}, frame{13, D, ResetStream}, frame{16, H, InvalidStream})
	})
	t.Run("client", func(t *testing.T) {
		ids := NewIDs(h2frame.Client)
		for _, want := range []uint32{1, 3, 5} {
			if id, ok := ids.Next(); id != want || !ok {
				t.Errorf("next is %d %t, want %d", id, ok, want)
			}
		}
		check(t, &ids, frame{2, H, InvalidStream}, frame{7, H, IdleStream}, frame{7, W, IdleStream}, frame{3, D, Ignore})
		ids.highest = h2frame.MaxStreamID - 2
		if id, ok := ids.Next(); id != h2frame.MaxStreamID || !ok {
			t.Errorf("the last stream is %d %t", id, ok)
		}
		if id, ok := ids.Next(); ok {
			t.Errorf("a stream after the last: %d", id)
		}
	})
}

func TestVerdicts(t *testing.T) {
	for v := Accept; v <= Misuse; v++ {
		err := v.Err(7)
		if v.String() == "" || (err == nil) != (v == Accept || v == Ignore) {
			t.Errorf("%d: %q, error %v", v, v, err)
		}
		if err != nil && (err.Code == h2frame.NoError || (err.Stream == 7) != (v.Kind() == KindStream)) {
			t.Errorf("%d: error %v", v, err)
		}
	}
	if err := WindowOverflow.Err(0); err.Error() != "connection: FLOW_CONTROL_ERROR: a window over 2^31-1" {
		t.Error(err) // RFC 9113, section 6.9.1: the window of the connection
	}
}
