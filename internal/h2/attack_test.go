package h2

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// tryOpen begins the i-th request, whose body is to come.
func (b *bed) tryOpen(i int) (uint32, error) {
	return uint32(2*i + 1), b.tryHeaders(uint32(2*i+1), false, getLines...)
}

// floods are attacks that go on; do is their i-th step.
var floods = []struct {
	name string
	do   func(b *bed, i int) error
}{
	{"rapid reset", func(b *bed, i int) error {
		if err := b.tryHeaders(uint32(2*i+1), true, getLines...); err != nil {
			return err
		}
		return b.fr.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
	}},
	// MadeYouReset (CVE-2025-8671): frames that make us reset.
	{"made you reset by nothing", func(b *bed, i int) error {
		id, err := b.tryOpen(i)
		if err != nil {
			return err
		}
		return b.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
	}},
	{"made you reset by overflow", func(b *bed, i int) error {
		id, err := b.tryOpen(i)
		if err != nil {
			return err
		}
		return b.fr.WriteWindowUpdate(id, 1<<31-1)
	}},
	{"made you reset by a stream on itself", func(b *bed, i int) error {
		id, err := b.tryOpen(i)
		if err != nil {
			return err
		}
		return b.fr.WritePriority(id, http2.PriorityParam{StreamDep: id})
	}},
	{"made you reset by a short PRIORITY", func(b *bed, i int) error {
		id, err := b.tryOpen(i)
		if err != nil {
			return err
		}
		return b.fr.WriteRawFrame(http2.FramePriority, 0, id, []byte("x"))
	}},
	{"made you reset by DATA behind the end", func(b *bed, i int) error {
		if err := b.tryHeaders(uint32(2*i+1), true, getLines...); err != nil {
			return err
		}
		return b.fr.WriteData(uint32(2*i+1), false, []byte("x"))
	}},
	{"made you reset by too much DATA", func(b *bed, i int) error {
		lines := append(append([]string(nil), getLines...), "content-length: 1")
		if err := b.tryHeaders(uint32(2*i+1), false, lines...); err != nil {
			return err
		}
		return b.fr.WriteData(uint32(2*i+1), false, []byte("xy"))
	}},
	{"made you reset by a malformed head", func(b *bed, i int) error {
		return b.tryHeaders(uint32(2*i+1), true, "a: b")
	}},
	{"made you reset by trailers without end", func(b *bed, i int) error {
		id, err := b.tryOpen(i)
		if err != nil {
			return err
		}
		return b.tryHeaders(id, false, "a: b")
	}},
	{"more streams than permitted", func(b *bed, i int) error { return b.tryHeaders(uint32(2*i+1), false, getLines...) }},
	{"settings", func(b *bed, i int) error { return b.fr.WriteSettings() }},
	{"ping", func(b *bed, i int) error { return b.fr.WritePing(false, [8]byte{}) }},
	{"empty data", func(b *bed, i int) error {
		if i == 0 {
			return b.tryHeaders(1, false, getLines...)
		}
		return b.fr.WriteData(1, false, nil)
	}},
	{"DATA of padding", func(b *bed, i int) error {
		if i == 0 {
			return b.tryHeaders(1, false, getLines...)
		}
		return b.fr.WriteDataPadded(1, false, nil, make([]byte, 1))
	}},
	{"empty HEADERS", func(b *bed, i int) error {
		if i%2 == 0 {
			return b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(i + 1)})
		}
		return b.fr.WriteContinuation(uint32(i), true, nil)
	}},
	{"priority update", func(b *bed, i int) error {
		return b.fr.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1"))
	}},
	{"small window updates", func(b *bed, i int) error { return b.fr.WriteWindowUpdate(0, 1) }},
	{"goaway", func(b *bed, i int) error { return b.fr.WriteGoAway(0, http2.ErrCodeNo, nil) }},
	{"empty continuation", func(b *bed, i int) error {
		if i == 0 {
			return b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
		}
		return b.fr.WriteContinuation(1, false, nil)
	}},
	{"priority", func(b *bed, i int) error { return b.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }},
	{"continuation", func(b *bed, i int) error {
		if i == 0 {
			return b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.block(getLines...)})
		}
		return b.fr.WriteContinuation(1, false, []byte{0x82})
	}},
	{"unknown", func(b *bed, i int) error { return b.fr.WriteRawFrame(0xee, 0, 0, nil) }},
}

// TestFloods: each attack is ended, and names what it is.
func TestFloods(t *testing.T) {
	for _, tc := range floods {
		t.Run(tc.name, func(t *testing.T) {
			handlers := 0
			withServer(t, func(st *Stream) {
				st.c.mu.Lock()
				handlers++
				st.c.mu.Unlock()
				_, _, _ = st.ReadBody(nil)
			}, nil, func(b *bed) {
				b.hello()
				var did atomic.Int32
				go func() {
					for i := range 100000 {
						if tc.do(b, i) != nil {
							return
						}
						did.Add(1)
					}
				}()
				b.wantEnd("ENHANCE_YOUR_CALM")
				// What the sockets hold was sent in vain, and what a close reads before.
				if n := did.Load(); n > 40000 || handlers > 1200 {
					t.Errorf("%d times, %d handlers ran", n, handlers)
				}
			})
		})
	}
}

// stuck writes a response that is larger than any window, and waits for credit.
func stuck(st *Stream) {
	if st.WriteHead(okHead(), -1, -1, false) == nil {
		_ = st.WriteBody(large, true, false)
	}
}

var large = make([]byte, 1<<20)

// heap returns what the process holds.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools keep goes with the second one
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestHPACKBomb: references of one byte to a large entry of the dynamic table, in many
// sections, with windows that are closed, so that the streams stay. What all sections
// of a connection hold has a bound; the streams beyond are refused.
func TestHPACKBomb(t *testing.T) {
	withServer(t, stuck, nil, func(b *bed) {
		b.hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		endc := b.collect()
		before := heap()
		// 15 times 4 KiB, for 15 bytes from the second section on.
		lines := append([]string(nil), getLines...)
		for range 15 {
			lines = append(lines, "x-bomb: "+strings.Repeat("b", 3900))
		}
		for i := range 90 {
			b.headers(uint32(2*i+1), true, lines...)
		}
		synctest.Wait()
		held, n := b.held()
		if n < 4 || n > 10 || held > 5*64<<10 {
			t.Errorf("%d streams hold %d bytes of sections", n, held)
		}
		if grown := heap() - before; grown > 1<<20 {
			t.Errorf("the connection holds %d KiB", grown>>10)
		}
		if len(endc) > 0 {
			t.Errorf("the connection ended with %s", <-endc)
		}
		// More of it is abuse.
		for i := 90; i < 300; i++ {
			if b.tryHeaders(uint32(2*i+1), true, lines...) != nil {
				break
			}
		}
		if f := <-endc; !strings.HasSuffix(f, "ENHANCE_YOUR_CALM") {
			t.Errorf("the connection ended with %s", f)
		}
	})
}

// held returns the bytes of sections that streams hold, and the streams.
func (b *bed) held() (bytes, streams int) {
	b.conn.mu.Lock()
	defer b.conn.mu.Unlock()
	return b.conn.headHeld, len(b.conn.streams)
}

// TestStalledWindows: a client opens all streams that it may and never gives credit.
// Each response is large; what waits is in the hands of who made it.
func TestStalledWindows(t *testing.T) {
	withServer(t, func(st *Stream) {
		st.SetWriteTimeout(time.Minute)
		stuck(st)
	}, nil, func(b *bed) {
		b.hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		endc := b.collect()
		before := heap()
		for i := range 100 {
			b.get(uint32(2*i + 1))
		}
		synctest.Wait()
		if grown := heap() - before; grown > 1<<20 {
			t.Errorf("the connection holds %d KiB", grown>>10)
		}
		if _, n := b.held(); n != 100 {
			t.Errorf("%d streams are open", n)
		}
		time.Sleep(70 * time.Second)
		if _, n := b.held(); n != 0 {
			t.Errorf("%d streams are open after the timeout", n)
		}
		time.Sleep(80 * time.Second)
		if f := <-endc; f != "GOAWAY 199 NO_ERROR" {
			t.Errorf("the connection ended with %s", f)
		}
	})
}

// TestUnreadSocket: a client that gives all credit and does not read its socket makes
// nothing grow, and is cut.
func TestUnreadSocket(t *testing.T) {
	withServer(t, stuck, nil, func(b *bed) {
		b.hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		b.must(b.fr.WriteWindowUpdate(0, 1<<30))
		before := heap()
		for i := range 100 {
			b.get(uint32(2*i + 1))
		}
		for range 150 {
			b.must(b.fr.WritePing(false, [8]byte{}))
		}
		synctest.Wait()
		b.conn.mu.Lock()
		waits := len(b.conn.out.b)
		b.conn.mu.Unlock()
		if grown := heap() - before; grown > 1<<20 || waits > outMax+recvFrame+controlMax {
			t.Errorf("%d bytes wait to be written, the connection holds %d KiB", waits, grown>>10)
		}
		began := time.Now()
		<-b.conn.Done()
		if d := time.Since(began); d > 125*time.Second { // a write that sent a part may wait once more
			t.Errorf("it was cut after %v", d)
		}
	})
}

// TestMemoryOfDATA: what came and is not read costs little more memory than it has
// bytes, in frames of any size and on as many streams as there may be.
func TestMemoryOfDATA(t *testing.T) {
	for _, size := range []int{1, 100, 4095, 4097, 5000, 8193, 12289, 16384} {
		withServer(t, hold, nil, func(b *bed) {
			b.hello()
			endc := b.collect()
			for i := range 100 {
				b.headers(uint32(2*i+1), false, getLines...)
			}
			sent := 0
			// Tiny frames into one stream, then one into each, as long as there is credit.
			for left := 30000; left > 0 && size < 4096; left, sent = left-size, sent+size {
				b.must(b.fr.WriteData(1, false, make([]byte, size)))
			}
			for i := 1; i < 100 && sent+size <= 256<<10; i, sent = i+1, sent+size {
				b.must(b.fr.WriteData(uint32(2*i+1), false, make([]byte, size)))
			}
			synctest.Wait()
			b.conn.mu.Lock()
			held, bytes := 0, 0
			for _, st := range b.conn.streams {
				bytes += st.in.size
				for _, c := range st.in.list {
					held += len(c.mem.B)
				}
			}
			b.conn.mu.Unlock()
			if bytes != sent || held-bytes > 512<<10 {
				t.Errorf("frames of %d bytes: %d of %d bytes are held in %d", size, bytes, sent, held)
			}
			if len(endc) > 0 {
				t.Errorf("frames of %d bytes: the connection ended with %s", size, <-endc)
			}
		})
	}
}

// TestTrickle: a body that comes, and one that is taken, below the minimum rate ends
// its stream; pings do not keep an idle connection.
func TestTrickle(t *testing.T) {
	ended := make(chan error, 1)
	withServer(t, func(st *Stream) {
		st.SetMinRate(240, 240, 10*time.Second)
		st.SetReadTimeout(time.Minute)
		for {
			if _, _, err := st.ReadBody(nil); err != nil {
				ended <- err
				return
			}
		}
	}, nil, func(b *bed) {
		b.hello()
		b.collect()
		b.headers(1, false, getLines...)
		began := time.Now()
		for len(ended) == 0 {
			b.must(b.fr.WriteData(1, false, []byte("x")))
			time.Sleep(time.Second / 2)
		}
		if err := <-ended; !errors.Is(err, wire.ErrTooSlow) || time.Since(began) > 12*time.Second {
			t.Errorf("the upload ended with %v after %v", err, time.Since(began))
		}
	})
	withServer(t, func(st *Stream) {
		st.SetMinRate(240, 240, 10*time.Second)
		st.SetWriteTimeout(time.Minute)
		_ = st.WriteHead(okHead(), -1, -1, false)
		ended <- st.WriteBody(large, true, false)
		st.Reset(h2frame.InternalError)
	}, nil, func(b *bed) {
		b.hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		b.collect()
		b.get(1)
		began := time.Now()
		for len(ended) == 0 {
			b.must(b.fr.WriteWindowUpdate(1, 1))
			time.Sleep(time.Second / 2)
		}
		if err := <-ended; !errors.Is(err, wire.ErrTooSlow) || time.Since(began) > 12*time.Second {
			t.Errorf("the download ended with %v after %v", err, time.Since(began))
		}
	})
	withServer(t, echo, nil, func(b *bed) {
		b.hello()
		endc := b.collect()
		began := time.Now()
		for len(endc) == 0 {
			_ = b.fr.WritePing(false, [8]byte{})
			time.Sleep(time.Second)
		}
		if d := time.Since(began); <-endc != "GOAWAY 0 NO_ERROR" || d > 77*time.Second {
			t.Errorf("an idle connection lived for %v", d)
		}
	})
}

// hostile is what an origin does, and what it earns.
type hostile struct {
	name string
	do   func(*bed) error
	want string
}

func hostileOrigins() []hostile {
	raw := func(typ http2.FrameType, flags http2.Flags, id uint32, payload string) func(*bed) error {
		return func(b *bed) error { return b.fr.WriteRawFrame(typ, flags, id, []byte(payload)) }
	}
	forever := func(f func(*bed) error) func(*bed) error {
		return func(b *bed) error {
			for range 20000 {
				if err := f(b); err != nil {
					return err
				}
			}
			return nil
		}
	}
	fields := func(n int) (lines []string) {
		for i := range n {
			lines = append(lines, fmt.Sprintf("x-%d: %s", i, strings.Repeat("~", 500)))
		}
		return lines
	}
	headed := func(f func(*bed) error) func(*bed) error {
		return func(b *bed) error {
			if err := b.tryHeaders(1, false, ":status: 200"); err != nil {
				return err
			}
			return f(b)
		}
	}
	return []hostile{
		{"interim heads for ever", forever(func(b *bed) error { return b.tryHeaders(1, false, ":status: 103") }), "RST_STREAM 1 ENHANCE_YOUR_CALM"},
		{"a head that is too large", func(b *bed) error {
			var lines []string
			for range 70 { // references to one entry
				lines = append(lines, "x-large: "+strings.Repeat("x", 1000))
			}
			return b.tryHeaders(1, false, append([]string{":status: 200"}, lines...)...)
		}, "RST_STREAM 1 ENHANCE_YOUR_CALM"},
		{"a head of too many fields", func(b *bed) error {
			return b.tryHeaders(1, false, append([]string{":status: 200"}, strings.Split(strings.Repeat("a: b\n", 101), "\n")[:101]...)...)
		}, "RST_STREAM 1 ENHANCE_YOUR_CALM"},
		{"a head without end", func(b *bed) error {
			if err := b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.block(":status: 200")}); err != nil {
				return err
			}
			for {
				if err := b.fr.WriteContinuation(1, false, b.block(fields(20)...)); err != nil {
					return err
				}
			}
		}, "GOAWAY ENHANCE_YOUR_CALM"},
		{"a trailer of too many fields", headed(func(b *bed) error {
			return b.tryHeaders(1, true, strings.Split(strings.Repeat("a: b\n", 101), "\n")[:101]...)
		}), "RST_STREAM 1 ENHANCE_YOUR_CALM"},
		{"window of a stream overflows", func(b *bed) error { return b.fr.WriteWindowUpdate(1, 1<<31-1) }, "RST_STREAM 1 FLOW_CONTROL_ERROR"},
		{"window of the connection overflows", func(b *bed) error { return b.fr.WriteWindowUpdate(0, 1<<31-1) }, "GOAWAY FLOW_CONTROL_ERROR"},
		{"goaway for ever", forever(func(b *bed) error { return b.fr.WriteGoAway(1, http2.ErrCodeNo, nil) }), "GOAWAY ENHANCE_YOUR_CALM"},
		{"settings for ever", forever(func(b *bed) error { return b.fr.WriteSettings() }), "GOAWAY ENHANCE_YOUR_CALM"},
		{"pings for ever", forever(func(b *bed) error { return b.fr.WritePing(false, [8]byte{}) }), "GOAWAY ENHANCE_YOUR_CALM"},
		{"empty DATA for ever", headed(forever(func(b *bed) error { return b.fr.WriteData(1, false, nil) })), "GOAWAY ENHANCE_YOUR_CALM"},
		// RFC 9113, section 8.4: nobody pushes.
		{"push", raw(http2.FramePushPromise, 4, 1, "\x00\x00\x00\x02\x88"), "GOAWAY PROTOCOL_ERROR"},
		{"push enabled", func(b *bed) error { return b.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}) }, "GOAWAY PROTOCOL_ERROR"},
		{"priority update", raw(0x10, 0, 0, "\x00\x00\x00\x01u=1"), "GOAWAY PROTOCOL_ERROR"},
		{"DATA before the head", func(b *bed) error { return b.fr.WriteData(1, false, []byte("x")) }, "RST_STREAM 1 PROTOCOL_ERROR"},
		{"more DATA than the window", headed(func(b *bed) error {
			for range 5 {
				if err := b.fr.WriteData(1, false, make([]byte, 16<<10)); err != nil {
					return err
				}
			}
			return nil
		}), "RST_STREAM 1 FLOW_CONTROL_ERROR"},
		{"DATA behind the end", func(b *bed) error {
			if err := b.tryHeaders(1, true, ":status: 200"); err != nil {
				return err
			}
			return b.fr.WriteData(1, false, []byte("x"))
		}, "GOAWAY STREAM_CLOSED"},
		{"two heads", headed(func(b *bed) error { return b.tryHeaders(1, false, ":status: 200") }), "RST_STREAM 1 PROTOCOL_ERROR"},
		{"101", func(b *bed) error { return b.tryHeaders(1, false, ":status: 101") }, "RST_STREAM 1 PROTOCOL_ERROR"},
		// RFC 9113, section 5.1.1: streams that only we could open, or nobody.
		{"reset of an idle stream", func(b *bed) error { return b.fr.WriteRSTStream(99, http2.ErrCodeCancel) }, "GOAWAY PROTOCOL_ERROR"},
		{"reset of an even stream", func(b *bed) error { return b.fr.WriteRSTStream(2, http2.ErrCodeCancel) }, "GOAWAY PROTOCOL_ERROR"},
		{"head of an idle stream", func(b *bed) error { return b.tryHeaders(99, false, ":status: 200") }, "GOAWAY PROTOCOL_ERROR"},
		{"head of an even stream", func(b *bed) error { return b.tryHeaders(2, false, ":status: 200") }, "GOAWAY PROTOCOL_ERROR"},
		{"DATA of an idle stream", func(b *bed) error { return b.fr.WriteData(99, false, []byte("x")) }, "GOAWAY PROTOCOL_ERROR"},
		{"nothing for ever for streams that ended", func(b *bed) error {
			if err := b.fr.WriteRSTStream(1, http2.ErrCodeCancel); err != nil {
				return err
			}
			return forever(raw(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x00"))(b)
		}, "GOAWAY ENHANCE_YOUR_CALM"},
	}
}

// TestHostileOrigins: what an origin can do to the connection that we opened, and what
// it earns; its streams end, and so does the connection where it must.
func TestHostileOrigins(t *testing.T) {
	for _, tc := range hostileOrigins() {
		t.Run(tc.name, func(t *testing.T) {
			withClient(t, nil, func(b *bed) {
				b.greet()
				b.want("SETTINGS ACK")
				st := b.open("GET")
				defer st.Done()
				b.frame()
				go func() { _ = tc.do(b) }()
				for {
					f := b.frame()
					if f == "PING ACK" || f == "SETTINGS ACK" || f == "PING" || strings.HasPrefix(f, "RST_STREAM") && f != tc.want {
						continue
					}
					if f != tc.want && f != strings.Replace(tc.want, "GOAWAY", "GOAWAY 0", 1) {
						t.Fatalf("got %s, want %s", f, tc.want)
					}
					break
				}
				if strings.HasPrefix(tc.want, "GOAWAY") {
					b.far.CloseWrite()
					<-b.conn.Done()
					return
				}
				var resp message.Response
				for {
					if err := st.ReadHead(&resp); err != nil {
						break // the stream learns of it
					}
				}
				// The connection goes on.
				b.far.SetDeadline(time.Now().Add(time.Hour))
			})
		})
	}
}
