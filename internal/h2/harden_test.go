package h2

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// okHead returns the head of a response of unknown length.
func okHead() *message.Response {
	resp := &message.Response{Status: 200}
	resp.SetLength(-1)
	return resp
}

// answer answers without a body.
func answer(st *Stream) {
	resp := message.Response{Status: 204}
	_ = st.WriteHead(&resp, 0, -1, true)
	_ = st.Flush()
}

// TestReservedStreamLearns: a stream that was reserved and not opened when its
// connection ended does not open on it, whether it waits for room or comes later.
func TestReservedStreamLearns(t *testing.T) {
	withClient(t, nil, func(b *bed) {
		b.greet()
		b.want("SETTINGS ACK")
		near := b.conn.wc.NetConn().(*memnet.Conn)
		near.SetBuffer(1) // nobody reads
		var req message.Request
		req.SetMethod("GET")
		req.SetTarget("/" + strings.Repeat("x", outMax))
		req.SetAuthority("a.example")
		ended := make(chan error, 1)
		for range 2 {
			st, err := b.conn.Open()
			b.must(err)
			b.must(st.WriteRequest(&req, "", true))
			b.must(st.Flush())
			defer st.Done()
			synctest.Wait()
		}
		waits, err := b.conn.Open()
		b.must(err)
		defer waits.Done()
		go func() { ended <- waits.WriteRequest(&req, "", true) }()
		late, err := b.conn.Open()
		b.must(err)
		defer late.Done()
		synctest.Wait()
		if len(ended) > 0 {
			t.Fatal("the third request did not wait")
		}
		b.conn.Close(ErrClosed)
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("who waits for room gets %v", err)
		}
		if err := late.WriteRequest(&req, "", true); !errors.Is(err, ErrClosed) {
			t.Errorf("who comes later gets %v", err)
		}
		if _, err := b.conn.Open(); !errors.Is(err, ErrClosed) {
			t.Errorf("the connection opens a stream: %v", err)
		}
	})
}

// collect reads frames on a goroutine of its own until the connection ends, and sends
// its last one, GOAWAY or "EOF".
func (b *bed) collect() <-chan string {
	endc := make(chan string, 1)
	go func() {
		for {
			if f := b.frame(); f == "EOF" || strings.HasPrefix(f, "GOAWAY") {
				endc <- f
				return
			}
		}
	}()
	return endc
}

// hold does nothing until the stream is abandoned.
func hold(st *Stream) {
	gone := make(chan struct{})
	st.Watch(func(*Error) { close(gone) })
	<-gone
}

// sink reads the body and answers.
func sink(st *Stream) {
	for {
		_, last, err := st.ReadBody(nil)
		if err != nil {
			return
		}
		if last {
			answer(st)
			return
		}
	}
}

// TestSteadyUpload: an upload whose reads always end inside a frame is no slow
// frame, however long it goes on; a frame that comes byte by byte is one.
func TestSteadyUpload(t *testing.T) {
	frame := append([]byte{0, 0x10, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 0x1000)...)
	half := len(frame) / 2
	withServer(t, sink, nil, func(b *bed) {
		b.hello()
		b.headers(1, false, getLines...)
		endc := b.collect()
		b.write(frame[:half])
		for range 200 {
			time.Sleep(time.Second)
			b.write(append(append([]byte(nil), frame[half:]...), frame[:half]...))
		}
		synctest.Wait()
		if len(endc) > 0 {
			t.Fatalf("a steady upload ends with %s", <-endc)
		}
	})
	withServer(t, sink, nil, func(b *bed) {
		b.hello()
		b.headers(1, false, getLines...)
		endc := b.collect()
		began := time.Now()
		for i := range 200 {
			time.Sleep(time.Second)
			if _, err := b.far.Write(frame[i : i+1]); err != nil {
				break
			}
		}
		if f := <-endc; f != "GOAWAY 1 ENHANCE_YOUR_CALM" || time.Since(began) > 100*time.Second {
			t.Errorf("a frame byte by byte ends with %s after %v", f, time.Since(began))
		}
	})
}

// TestSlowBeginning: what a client has to say first, or to finish, it must say in
// time: the preface, SETTINGS, the acknowledgement of ours, a field section.
func TestSlowBeginning(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(b *bed)
		code string
	}{
		{"nothing at all", func(*bed) {}, "ENHANCE_YOUR_CALM"},
		{"half a preface", func(b *bed) { b.write([]byte(http2.ClientPreface)[:10]) }, "ENHANCE_YOUR_CALM"},
		{"no SETTINGS", func(b *bed) { b.write([]byte(http2.ClientPreface)) }, "ENHANCE_YOUR_CALM"},
		// RFC 9113, section 6.5.3.
		{"no acknowledgement", func(b *bed) { b.write([]byte(http2.ClientPreface)); b.must(b.fr.WriteSettings()) }, "SETTINGS_TIMEOUT"},
		{"half a field section", func(b *bed) {
			b.hello()
			b.must(b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.block(getLines...)}))
			go func() {
				for range 9 {
					time.Sleep(time.Second)
					if b.fr.WriteContinuation(1, false, make([]byte, 0)) != nil {
						return
					}
				}
			}()
		}, "ENHANCE_YOUR_CALM"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			withServer(t, echo, nil, func(b *bed) {
				began := time.Now()
				tc.do(b)
				b.wantEnd(tc.code)
				if d := time.Since(began); d < 10*time.Second || d > 12*time.Second {
					t.Errorf("ended after %v", d)
				}
			})
		})
	}
}

// TestTableSize: RFC 9113, section 4.3.1, and RFC 7541, sections 4.2 and 6.3: an end that
// makes the table smaller, if only for a while, hears at the beginning of the next
// section that it is.
func TestTableSize(t *testing.T) {
	for _, sizes := range [][]uint32{{0}, {100, 65536}} {
		withServer(t, answer, nil, func(b *bed) {
			var list []http2.Setting
			for _, n := range sizes {
				list = append(list, http2.Setting{ID: http2.SettingHeaderTableSize, Val: n})
			}
			b.hello(list...)
			b.fr.ReadMetaHeaders = nil
			for i, want := range []byte{0x20, 0x80 | 9} {
				b.get(uint32(2*i + 1))
				f, err := b.fr.ReadFrame()
				b.must(err)
				if p := f.(*http2.HeadersFrame).HeaderBlockFragment(); p[0] != want {
					t.Errorf("%d: section %d begins with %#x, want %#x", sizes, i, p[0], want)
				}
			}
		})
	}
}

// TestClientHEAD: RFC 9113, section 8.1.1: the answer to HEAD has the length that the
// answer to GET has, and no content; one with content is malformed.
func TestClientHEAD(t *testing.T) {
	withClient(t, nil, func(b *bed) {
		b.greet()
		b.want("SETTINGS ACK")
		good, bad, cut := b.open("HEAD"), b.open("HEAD"), b.open("GET")
		b.headers(1, true, ":status: 200", "content-length: 5")
		b.headers(3, false, ":status: 200", "content-length: 5")
		b.must(b.fr.WriteData(3, true, []byte("hello")))
		b.headers(5, true, ":status: 200", "content-length: 5")
		var resp message.Response
		b.must(good.ReadHead(&resp))
		if _, last, err := good.ReadBody(nil); !last || err != nil || resp.Length() != 5 {
			t.Errorf("HEAD ends %v, %v, with length %d", last, err, resp.Length())
		}
		b.must(bad.ReadHead(&resp))
		for name, st := range map[string]*Stream{"an answer to HEAD with content": bad, "a head without its content": cut} {
			var e *Error
			if _, _, err := st.ReadBody(nil); !errors.As(err, &e) || e.Code != h2frame.ProtocolError || e.Remote {
				t.Errorf("%s ends with %v", name, err)
			}
		}
		good.Done()
		bad.Done()
		cut.Done()
	})
}

// TestStoppedUpload: RFC 9113, section 8.1: a server that answered in full stops the
// upload with NO_ERROR. The answer stands, and no DATA follows, whatever else the
// upload is told.
func TestStoppedUpload(t *testing.T) {
	withClient(t, nil, func(b *bed) {
		b.greet()
		b.want("SETTINGS ACK")
		st, err := b.conn.Open()
		b.must(err)
		var req message.Request
		req.SetMethod("POST")
		req.SetTarget("/")
		req.SetAuthority("a.example")
		req.SetLength(-1)
		b.must(st.WriteRequest(&req, "", false))
		b.must(st.WriteBody([]byte("x"), false, false))
		b.want("HEADERS 1 :method=POST :scheme=http :path=/ :authority=a.example")
		b.want("DATA 1 x")
		b.headers(1, false, ":status: 200")
		b.must(b.fr.WriteData(1, true, []byte("enough")))
		b.must(b.fr.WriteRSTStream(1, http2.ErrCodeNo))
		synctest.Wait()
		st.ClearInterrupt()
		if err := st.WriteBody([]byte("y"), false, false); err == nil {
			t.Error("the upload goes on")
		}
		var resp message.Response
		b.must(st.ReadHead(&resp))
		if p, last, err := st.ReadBody(nil); string(p) != "enough" || !last || err != nil {
			t.Errorf("the answer is %q, %v, %v", p, last, err)
		}
		st.Done()
		b.wantIdle()
	})
}

// TestLargeHeadsAndPings: what we want to say ourselves is not what an end makes us
// say: a client that asks with a ping while large heads wait is none that floods.
func TestLargeHeadsAndPings(t *testing.T) {
	withServer(t, func(st *Stream) {
		resp := okHead()
		resp.Header.Add("X-Large", strings.Repeat("x", 60<<10))
		_ = st.WriteHead(resp, 0, -1, true)
		_ = st.Flush()
	}, nil, func(b *bed) {
		b.hello()
		b.far.SetBuffer(1 << 20)
		for i := range 20 {
			b.get(uint32(2*i + 1))
		}
		synctest.Wait()
		for range 10 {
			b.must(b.fr.WritePing(false, [8]byte{}))
		}
		b.fr.SetMaxReadFrameSize(1 << 20)
		b.fr.ReadMetaHeaders.SetMaxStringLength(1 << 20)
		b.fr.MaxHeaderListSize = 1 << 20
		heads, pings := 0, 0
		for heads < 20 || pings < 10 {
			switch f := b.frame(); {
			case strings.HasPrefix(f, "HEADERS"):
				heads++
			case f == "PING ACK":
				pings++
			default:
				t.Fatal(f)
			}
		}
	})
}

// TestMisplacedHeads: what a user of a Stream does in the wrong order does not reach
// the wire.
func TestMisplacedHeads(t *testing.T) {
	withServer(t, func(st *Stream) {
		if err := st.WriteHead(okHead(), -1, -1, false); err != nil {
			t.Error(err)
		}
		if err := st.WriteHead(okHead(), -1, -1, false); err == nil {
			t.Error("a second head was taken")
		}
		if err := st.WriteInterim(&message.Response{Status: 103}); err == nil {
			t.Error("an interim head behind the head was taken")
		}
		_ = st.WriteBody(nil, true, false)
		if err := st.WriteTrailer(&message.Header{}); err == nil {
			t.Error("a trailer behind the end was taken")
		}
	}, nil, func(b *bed) {
		b.hello()
		b.get(1)
		b.want("HEADERS 1 :status=200")
		b.want("DATA 1 END ")
		b.wantIdle()
	})
}

// TestLargeSection: a request whose section is larger than the limit is answered, body
// or none, and its connection goes on; one that is far larger is not read.
func TestLargeSection(t *testing.T) {
	refuse := func(st *Stream) {
		resp := message.Response{Status: 200}
		if st.Refusal != nil {
			resp.Status = st.Refusal.Status
		}
		_ = st.WriteHead(&resp, 0, -1, true)
		_ = st.Flush()
		_, _, _ = st.ReadBody(nil)
	}
	send := func(b *bed, id uint32, end bool, size int) {
		lines := append([]string(nil), getLines...)
		for ; size > 0; size -= 1000 {
			lines = append(lines, fmt.Sprintf("x-%d: ", size)+strings.Repeat("~", 1000)) // nothing that Huffman makes smaller
		}
		p := b.block(lines...)
		b.must(b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, BlockFragment: p[:min(len(p), 16<<10)]}))
		for p = p[min(len(p), 16<<10):]; ; p = p[16<<10:] {
			if len(p) <= 16<<10 {
				_ = b.fr.WriteContinuation(id, true, p)
				return
			}
			if b.fr.WriteContinuation(id, false, p[:16<<10]) != nil {
				return
			}
		}
	}
	withServer(t, refuse, nil, func(b *bed) {
		b.hello()
		for i, size := range []int{65 << 10, 90 << 10} {
			send(b, uint32(4*i+1), false, size)
			b.want(strings.Replace("HEADERS # END :status=431", "#", []string{"1", "5"}[i], 1))
			b.must(b.fr.WriteData(uint32(4*i+1), true, []byte("a body all the same")))
			b.get(uint32(4*i + 3))
			b.want(strings.Replace("HEADERS # END :status=200", "#", []string{"3", "7"}[i], 1))
		}
		send(b, 9, true, 300<<10)
		b.wantEnd("ENHANCE_YOUR_CALM")
	})
}

// TestLimitAtTheEnd: RFC 9113, section 5.1.2: a client that has the whole answer may open
// the next stream, though the handler has not returned; not without end.
func TestLimitAtTheEnd(t *testing.T) {
	through := make(chan struct{})
	slow := func(st *Stream) {
		answer(st)
		<-through
	}
	withServer(t, slow, nil, func(b *bed) {
		b.hello()
		id := uint32(1)
		for range maxEnding * testConfig.MaxStreams {
			b.get(id)
			b.want(fmt.Sprintf("HEADERS %d END :status=204", id))
			id += 2
		}
		b.get(id)
		b.want(fmt.Sprintf("RST_STREAM %d REFUSED_STREAM", id))
		close(through)
		synctest.Wait()
		b.get(id + 2)
		b.want(fmt.Sprintf("HEADERS %d END :status=204", id+2))
	})
}

// TestCloseAtOnce: Close waits for nothing that the other end does.
func TestCloseAtOnce(t *testing.T) {
	withServer(t, sink, nil, func(b *bed) {
		b.hello()
		b.headers(1, false, getLines...)
		synctest.Wait()
		began := time.Now()
		for range 3 {
			go b.conn.Close(ErrClosed)
		}
		<-b.conn.Done()
		if d := time.Since(began); d != 0 {
			t.Errorf("the connection closed after %v", d)
		}
	})
}

// TestNeverServed: a connection that is given up before it is served holds nothing.
func TestNeverServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := buf.Outstanding()
		near, far := memnet.Pipe()
		defer far.Close()
		sweep := wire.NewSweep(0)
		wc := wire.New(near, sweep)
		New(wc, sweep, testConfig, h2frame.Server)
		wc.Close()
		if n := buf.Outstanding(); n != before {
			t.Errorf("%d buffers were not given back", n-before)
		}
	})
}

// TestLiveness: a peer that is gone is noticed, also when the ping under way is one
// that measures.
func TestLiveness(t *testing.T) {
	change := func(cfg *Config) { cfg.PingEvery, cfg.PingTimeout = 30*time.Second, 5*time.Second }
	withClient(t, change, func(b *bed) {
		st := b.open("GET")
		defer st.Done()
		b.greet()
		b.must(b.fr.WriteSettingsAck())
		b.headers(1, false, ":status: 200")
		b.must(b.fr.WriteData(1, false, make([]byte, 16<<10)))
		b.must(b.fr.WriteData(1, false, make([]byte, 16<<10)))
		b.must(b.fr.WriteData(1, false, make([]byte, 16<<10)))
		var resp message.Response
		b.must(st.ReadHead(&resp))
		began := time.Now()
		for {
			if _, _, err := st.ReadBody(nil); err != nil {
				if !errors.Is(err, ErrPing) || time.Since(began) > 40*time.Second {
					t.Errorf("the stream ends with %v after %v", err, time.Since(began))
				}
				return
			}
		}
	})
}

// TestSmallFirstWindow: RFC 9113, section 6.9.3: a client may send by the first window
// of the protocol until it has read our smaller one, and the window is right after.
func TestSmallFirstWindow(t *testing.T) {
	withServer(t, hold, func(cfg *Config) { cfg.StreamWindow = 1000 }, func(b *bed) {
		b.write([]byte(http2.ClientPreface))
		b.must(b.fr.WriteSettings())
		b.headers(1, false, getLines...)
		for range 4 {
			b.must(b.fr.WriteData(1, false, make([]byte, 16<<10-1)))
		}
		b.must(b.fr.WriteData(1, false, []byte("xyz")))
		b.must(b.fr.WriteSettingsAck())
		b.headers(3, false, getLines...)
		b.must(b.fr.WriteData(3, false, make([]byte, 1000)))
		for range 4 {
			b.frame() // SETTINGS, WINDOW_UPDATE, SETTINGS ACK, PING
		}
		b.wantIdle()
		b.must(b.fr.WriteData(3, false, []byte("x")))
		b.want("RST_STREAM 3 FLOW_CONTROL_ERROR")
		b.must(b.fr.WriteData(1, false, []byte("x")))
		b.want("RST_STREAM 1 FLOW_CONTROL_ERROR")
		b.conn.Close(ErrClosed)
	})
}

// TestSlotsAreTold: who waits for a place for a stream hears of each that becomes
// free.
func TestSlotsAreTold(t *testing.T) {
	withClient(t, func(cfg *Config) { cfg.MaxStreams = 1 }, func(b *bed) {
		b.greet()
		b.want("SETTINGS ACK")
		told := 0
		b.conn.OnChange(func() {
			if free, _ := b.conn.Slots(); free > 0 {
				told++
			}
		})
		for i, done := range []func(st *Stream, id uint32){
			func(st *Stream, id uint32) { b.headers(id, true, ":status: 204") },
			func(st *Stream, id uint32) {
				b.headers(id, false, ":status: 200")
				b.must(b.fr.WriteData(id, true, nil))
			},
			func(st *Stream, id uint32) { b.must(b.fr.WriteRSTStream(id, http2.ErrCodeCancel)) },
			func(st *Stream, id uint32) { st.Reset(h2frame.Cancel) },
			func(st *Stream, id uint32) { st.Done() },
		} {
			st := b.open("GET")
			before := told
			done(st, st.ID())
			synctest.Wait()
			if told != before+1 {
				t.Errorf("end %d was told %d times", i, told-before)
			}
			if i < 4 {
				st.Done()
			}
		}
	})
}

// TestPriorityUpdate: RFC 9218, section 7: an update is a complete set.
func TestPriorityUpdate(t *testing.T) {
	withServer(t, sink, nil, func(b *bed) {
		b.hello()
		b.headers(1, false, append(append([]string(nil), getLines...), "priority: u=5, i")...)
		b.must(b.fr.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1")))
		synctest.Wait()
		b.conn.mu.Lock()
		got := b.conn.streams[1].rank.Priority
		b.conn.mu.Unlock()
		if got.Urgency != 1 || got.Incremental {
			t.Errorf("the priority is %+v", got)
		}
	})
}

// TestEarlyPriorityUpdate: RFC 9218, section 7.1: an update may come before its stream,
// and overrides what the stream's head says. There may be as many as streams.
func TestEarlyPriorityUpdate(t *testing.T) {
	update := func(b *bed, id byte, value string) {
		b.must(b.fr.WriteRawFrame(0x10, 0, 0, append([]byte{0, 0, 0, id}, value...)))
	}
	withServer(t, sink, nil, func(b *bed) {
		b.hello()
		update(b, 3, "u=2")
		update(b, 5, "u=6")
		update(b, 5, "u=1, i")
		b.headers(5, false, append(append([]string(nil), getLines...), "priority: u=4")...)
		b.headers(7, false, getLines...)
		update(b, 3, "u=0") // passed over
		synctest.Wait()
		b.conn.mu.Lock()
		defer b.conn.mu.Unlock()
		if got := b.conn.streams[5].rank.Priority; got.Urgency != 1 || !got.Incremental {
			t.Errorf("the priority is %+v", got)
		}
		if got := b.conn.streams[7].rank.Priority; got.Urgency != 3 {
			t.Errorf("the next one's is %+v", got)
		}
		if len(b.conn.early) != 0 {
			t.Errorf("%d are kept", len(b.conn.early))
		}
	})
	withServer(t, sink, nil, func(b *bed) { // a hundred streams
		b.hello()
		b.headers(1, false, getLines...)
		for i := range 99 {
			update(b, byte(3+2*i), "u=2")
		}
		update(b, 5, "u=3")
		update(b, 201, "u=2")
		b.wantEnd("PROTOCOL_ERROR")
	})
}

// TestWorkersEnd: goroutines that ran a burst of streams do not stay for as long as one
// stream keeps the connection busy.
func TestWorkersEnd(t *testing.T) {
	withServer(t, func(st *Stream) {
		if st.Req.Method() == "PUT" {
			hold(st)
			return
		}
		time.Sleep(time.Millisecond)
		answer(st)
	}, nil, func(b *bed) {
		b.hello()
		b.collect()
		b.headers(1, false, ":method: PUT", ":scheme: http", ":authority: a", ":path: /")
		for i := 1; i < 80; i++ {
			b.get(uint32(2*i + 1))
		}
		waiting := func() int {
			synctest.Wait()
			b.conn.mu.Lock()
			defer b.conn.mu.Unlock()
			return len(b.conn.workers)
		}
		time.Sleep(10 * time.Millisecond)
		if n := waiting(); n != 79 {
			t.Errorf("%d workers wait after the burst", n)
		}
		time.Sleep(3 * time.Second)
		if n := waiting(); n != 0 {
			t.Errorf("%d workers wait behind a stream that goes on", n)
		}
	})
}
