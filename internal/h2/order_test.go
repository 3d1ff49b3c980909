package h2

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// pour answers with 1000 bytes, each piece of which it says who sends.
func pour(st *Stream) {
	if st.WriteHead(okHead(), -1, -1, false) == nil && st.Flush() == nil {
		if st.ID() == 99 {
			_ = st.WriteBody(large, true, false)
		}
		_ = st.WriteBody([]byte(strings.Repeat(string(rune('0'+st.ID()%10)), 1000)), true, false)
	}
}

// TestOrder: RFC 9218, section 10: the more urgent first; of those that are of no use in
// part the older one; the others in turns. A stream whose own window is closed holds
// nobody up.
func TestOrder(t *testing.T) {
	for _, tc := range []struct {
		name       string
		priorities []string
		window     uint32 // of each stream
		want       string // who sends the next ten bytes, ten times
	}{
		{"urgency", []string{"u=5", "u=1", "u=3"}, 30, "333555111"},
		{"not incremental", []string{"u=3", "u=3"}, 30, "111333"},
		{"incremental", []string{"u=3, i", "u=3, i"}, 30, "131313"},
		{"nobody says", []string{"", ""}, 30, "131313"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			withServer(t, pour, nil, func(b *bed) {
				b.hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
				// The connection's window is used up first.
				b.get(99)
				b.want("HEADERS 99 :status=200")
				b.must(b.fr.WriteWindowUpdate(99, 1<<20))
				for left := 65535; left > 0; {
					f, err := b.fr.ReadFrame()
					b.must(err)
					left -= int(f.Header().Length)
				}
				b.must(b.fr.WriteRSTStream(99, http2.ErrCodeCancel))
				for i, p := range tc.priorities {
					lines := append([]string(nil), getLines...)
					if p != "" {
						lines = append(lines, "priority: "+p)
					}
					b.headers(uint32(101+2*i), true, lines...)
					b.frame()
				}
				for i := range tc.priorities {
					b.must(b.fr.WriteWindowUpdate(uint32(101+2*i), tc.window))
				}
				synctest.Wait() // all of them want to send
				got := ""
				for range len(tc.want) {
					b.must(b.fr.WriteWindowUpdate(0, 10))
					f := b.frame()
					got += f[len(f)-1:]
				}
				if got != tc.want {
					t.Errorf("got %s, want %s", got, tc.want)
				}
			})
		})
	}
}

// TestNegativeWindow: RFC 9113, section 6.9.2: SETTINGS can take back more than there is.
func TestNegativeWindow(t *testing.T) {
	withServer(t, stuck, nil, func(b *bed) {
		b.hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
		b.get(1)
		b.want("HEADERS 1 :status=200")
		b.want("DATA 1 1000 bytes")
		b.must(b.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
		b.want("SETTINGS ACK")
		b.must(b.fr.WriteWindowUpdate(1, 900))
		b.wantIdle()
		b.must(b.fr.WriteWindowUpdate(1, 41))
		b.want("DATA 1 41 bytes")
		b.must(b.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 200}))
		b.want("SETTINGS ACK")
		b.want("DATA 1 100 bytes")
		// RFC 9113, section 6.9.2: no window may be larger than 2^31-1.
		b.must(b.fr.WriteWindowUpdate(1, 1<<31-1<<20))
		b.frame()
		b.must(b.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}))
		b.wantEnd("FLOW_CONTROL_ERROR")
	})
}

// TestNoStreams: RFC 9113, section 6.5.2: a server may permit none, for a while.
func TestNoStreams(t *testing.T) {
	withClient(t, nil, func(b *bed) {
		b.greet(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		b.want("SETTINGS ACK")
		if _, err := b.conn.Open(); !errors.Is(err, ErrFull) {
			t.Errorf("a stream is opened: %v", err)
		}
		b.must(b.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}))
		b.want("SETTINGS ACK")
		synctest.Wait()
		b.open("GET").Done()
	})
}
