package h2

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/cirqueproxy/cirque/message"
)

// echo answers with what came.
func echo(st *Stream) {
	var resp message.Response
	resp.Status = 200
	resp.SetLength(-1)
	_ = st.WriteHead(&resp, -1, -1, false)
	_ = st.Flush()
	for {
		b, last, err := st.ReadBody(&st.Req.Trailer)
		if err != nil {
			st.Reset(0)
			return
		}
		if last && st.Req.Trailer.Len() > 0 {
			_ = st.WriteBody(b, false, true)
			_ = st.WriteTrailer(&st.Req.Trailer)
			return
		}
		if st.WriteBody(b, last, false) != nil || last {
			return
		}
	}
}

func TestExchange(t *testing.T) {
	withServer(t, echo, nil, func(b *bed) {
		b.hello()
		b.get(1)
		b.want("HEADERS 1 :status=200")
		b.want("DATA 1 END ")
		b.headers(3, false, getLines...)
		b.must(b.fr.WriteData(3, false, []byte("hello")))
		b.want("HEADERS 3 :status=200")
		b.want("DATA 3 hello")
		b.must(b.fr.WriteData(3, false, []byte("world")))
		b.want("DATA 3 world")
		b.headers(3, true, "x-sum: 7")
		b.want("HEADERS 3 END x-sum=7")
		b.wantIdle()
	})
}

// TestFramesOutOfPlace: what earns which end.
func TestFramesOutOfPlace(t *testing.T) {
	raw := func(typ http2.FrameType, flags http2.Flags, id uint32, payload string) func(*bed) {
		return func(b *bed) { b.must(b.fr.WriteRawFrame(typ, flags, id, []byte(payload))) }
	}
	for _, tc := range []struct {
		name string
		do   func(*bed)
		want string // "GOAWAY code", or a frame
	}{
		// RFC 9113, section 8.4: nobody pushes.
		{"push", raw(http2.FramePushPromise, 4, 1, "\x00\x00\x00\x02"), "GOAWAY PROTOCOL_ERROR"},
		// RFC 9113, section 5.5: unknown types are ignored.
		{"unknown type", func(b *bed) { raw(0xfa, 0, 0, "x")(b); b.must(b.fr.WritePing(false, [8]byte{1})) }, "PING ACK"},
		// RFC 9113, section 6.10: nothing comes inside a field section.
		{"ping in a section", func(b *bed) {
			b.must(b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.block(getLines...)}))
			b.must(b.fr.WritePing(false, [8]byte{}))
		}, "GOAWAY PROTOCOL_ERROR"},
		{"continuation alone", raw(http2.FrameContinuation, 4, 1, ""), "GOAWAY PROTOCOL_ERROR"},
		// RFC 9113, section 5.3.2: PRIORITY says nothing any more.
		{"priority", func(b *bed) {
			b.must(b.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}))
			b.must(b.fr.WritePing(false, [8]byte{}))
		}, "PING ACK"},
		{"even stream", func(b *bed) { b.headers(2, true, getLines...) }, "GOAWAY PROTOCOL_ERROR"},
		{"data on an idle stream", func(b *bed) { b.must(b.fr.WriteData(1, false, []byte("x"))) }, "GOAWAY PROTOCOL_ERROR"},
		// RFC 9113, section 4.3: a section that cannot be decoded.
		{"bad hpack", func(b *bed) {
			b.must(b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0x7f}}))
		}, "GOAWAY COMPRESSION_ERROR"},
		// RFC 9113, section 8.1.1: a malformed message ends its stream.
		{"malformed", func(b *bed) { b.headers(1, true, "a: b") }, "RST_STREAM 1 PROTOCOL_ERROR"},
		// RFC 9113, section 6.4: what has not begun cannot be reset.
		{"window of an idle stream", raw(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x00"), "GOAWAY PROTOCOL_ERROR"},
		{"idle stream on itself", func(b *bed) { b.must(b.fr.WritePriority(1, http2.PriorityParam{StreamDep: 1})) }, "GOAWAY PROTOCOL_ERROR"},
		{"bad priority in a section", func(b *bed) {
			b.must(b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.block(getLines...)}))
			b.must(b.fr.WriteRawFrame(http2.FramePriority, 0, 1, []byte("x")))
		}, "GOAWAY PROTOCOL_ERROR"},
		{"priority update of nobody", raw(0x10, 0, 0, "\x00\x00\x00\x00u=1"), "GOAWAY PROTOCOL_ERROR"},
		{"window of the connection overflows", func(b *bed) { b.must(b.fr.WriteWindowUpdate(0, 1<<31-1)) }, "GOAWAY FLOW_CONTROL_ERROR"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			withServer(t, echo, nil, func(b *bed) {
				b.hello()
				tc.do(b)
				if code, ok := strings.CutPrefix(tc.want, "GOAWAY "); ok {
					b.wantEnd(code)
				} else {
					b.want(tc.want)
				}
			})
		})
	}
}

// TestPreface: RFC 9113, sections 3.4: what does not begin as HTTP/2 does is ended.
func TestPreface(t *testing.T) {
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"} {
		withServer(t, echo, nil, func(b *bed) {
			b.write([]byte(text))
			b.wantEnd("PROTOCOL_ERROR")
		})
	}
	withServer(t, echo, nil, func(b *bed) {
		b.write([]byte(http2.ClientPreface))
		b.must(b.fr.WritePing(false, [8]byte{}))
		b.wantEnd("PROTOCOL_ERROR")
	})
}

// TestSlowReader: a client that gives no credit makes nothing grow: the handler
// waits, and in the end the stream is given up.
func TestSlowReader(t *testing.T) {
	var sent int
	var got error
	handler := func(st *Stream) {
		st.SetWriteTimeout(30 * time.Second)
		var resp message.Response
		resp.Status = 200
		_ = st.WriteHead(&resp, -1, -1, false)
		piece := bytes.Repeat([]byte("x"), 10000)
		for got == nil {
			if got = st.WriteBody(piece, false, false); got == nil {
				sent += len(piece)
			}
		}
	}
	withServer(t, handler, nil, func(b *bed) {
		b.hello()
		b.get(1)
		for range 5 {
			b.frame()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got == nil || sent > 70000 {
			t.Errorf("%d bytes were taken, then %v", sent, got)
		}
	})
}

// TestUploadBackPressure: a client can send as much as the window says and no more
// until somebody reads.
func TestUploadBackPressure(t *testing.T) {
	var read chan int
	handler := func(st *Stream) {
		for n := range read {
			for n > 0 {
				b, _, err := st.ReadBody(nil)
				if err != nil {
					return
				}
				n -= len(b)
			}
		}
	}
	withServer(t, handler, nil, func(b *bed) {
		read = make(chan int) // in the bubble
		defer close(read)
		b.hello()
		b.headers(1, false, getLines...)
		piece := make([]byte, 16<<10)
		for range 4 {
			b.must(b.fr.WriteData(1, false, piece))
		}
		b.want("PING") // a round trip is measured
		b.wantIdle()
		read <- 40 << 10
		b.want("WINDOW_UPDATE 1 16384")
		b.want("WINDOW_UPDATE 1 16384")
		b.must(b.fr.WriteData(1, false, piece))
		b.must(b.fr.WriteData(1, false, piece))
		b.wantIdle()
		b.must(b.fr.WriteData(1, false, []byte("x")))
		// RFC 9113, section 6.9.1.
		b.want("RST_STREAM 1 FLOW_CONTROL_ERROR")
	})
}

// TestDrain: RFC 9113, section 6.8: nothing that was under way is lost.
func TestDrain(t *testing.T) {
	withServer(t, echo, nil, func(b *bed) {
		b.hello()
		b.headers(1, false, getLines...)
		b.want("HEADERS 1 :status=200")
		b.conn.Drain()
		b.want("GOAWAY 2147483647 NO_ERROR")
		b.want("PING")
		b.get(3) // it crossed the GOAWAY
		b.want("HEADERS 3 :status=200")
		b.want("DATA 3 END ")
		data := [8]byte{}
		binary.BigEndian.PutUint64(data[:], pingDrain)
		b.must(b.fr.WritePing(true, data))
		b.want("GOAWAY 3 NO_ERROR")
		b.get(5)
		b.must(b.fr.WriteData(1, true, []byte("bye")))
		b.want("DATA 1 END bye")
		b.far.CloseWrite()
		b.want("EOF")
	})
}

func TestIdle(t *testing.T) {
	withServer(t, echo, nil, func(b *bed) {
		b.hello()
		b.get(1)
		b.want("HEADERS 1 :status=200")
		b.want("DATA 1 END ")
		began := time.Now()
		b.want("GOAWAY 1 NO_ERROR")
		if d := time.Since(began); d < 74*time.Second || d > 76*time.Second {
			t.Errorf("idle connection ended after %v", d)
		}
	})
}

// TestHalfFrame: an end that begins a frame and does not go on is cut.
func TestHalfFrame(t *testing.T) {
	withServer(t, echo, nil, func(b *bed) {
		b.hello()
		b.write([]byte{0, 0, 9})
		b.wantEnd("ENHANCE_YOUR_CALM")
	})
}

// TestClientLeaves: a handler learns at once, and what it waits for ends.
func TestClientLeaves(t *testing.T) {
	gone := make(chan error, 1)
	withServer(t, func(st *Stream) {
		told := make(chan *Error, 1)
		st.Watch(func(e *Error) { told <- e })
		gone <- <-told
		_, _, err := st.ReadBody(nil)
		gone <- err
	}, nil, func(b *bed) {
		b.hello()
		b.headers(1, false, getLines...)
		b.must(b.fr.WriteRSTStream(1, http2.ErrCodeCancel))
		for range 2 {
			if err := <-gone; err == nil || !strings.Contains(err.Error(), "CANCEL, received") {
				t.Errorf("the handler learns %v", err)
			}
		}
	})
	withServer(t, func(st *Stream) {
		_, _, err := st.ReadBody(nil)
		gone <- err
	}, nil, func(b *bed) {
		b.hello()
		b.headers(1, false, getLines...)
		synctest.Wait()
		b.far.Close()
		if err := <-gone; err == nil {
			t.Error("the handler read on")
		}
	})
}
