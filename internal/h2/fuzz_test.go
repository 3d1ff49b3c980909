package h2

import (
	"io"
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

// fuzzConn sends input to a Conn of a role, behind the preface that it waits for, in
// pieces, and closes. The Conn must end, with nothing left, whatever that was, and must
// not have said more than the other end may make it say.
func fuzzConn(t *testing.T, role h2frame.Role, chunk int, input []byte) {
	synctest.Test(t, func(t *testing.T) {
		before := buf.Outstanding()
		cfg := *testConfig
		cfg.StreamWindow, cfg.ConnWindow, cfg.MaxWindow = 1000, 65535, 100000
		cfg.HeadTimeout, cfg.IdleTimeout, cfg.WriteTimeout = 10*time.Second, 75*time.Second, 60*time.Second
		cfg.Windows = NewWindowBudget(1 << 20)
		cfg.Handler = handlerFunc(fuzzHandler)
		near, far := memnet.Pipe()
		near.SetBuffer(1 << 30) // what it says is counted, not read
		far.SetBuffer(1 << 30)
		far.SetChunk(chunk)
		sweep := wire.NewSweep(0)
		c := New(wire.New(near, sweep), sweep, &cfg, role)
		served := make(chan error, 1)
		go func() { served <- c.Serve() }()
		asked := make(chan struct{})
		if role == h2frame.Client {
			go func() { fuzzRequests(c); close(asked) }()
		} else {
			close(asked)
			_, _ = io.WriteString(far, h2frame.Preface)
		}
		_, _ = far.Write(h2frame.AppendSettings(nil))
		_, _ = far.Write(input)
		time.Sleep(time.Second)
		_ = far.CloseWrite()
		if err := <-served; err == nil {
			t.Error("the connection ended without an error")
		}
		<-asked
		said, _ := io.ReadAll(far)
		_ = far.Close()
		// RST_STREAM and WINDOW_UPDATE are 13 bytes, for frames of 9 at least; responses
		// are bounded by the windows that the input opens.
		if most := 1<<20 + 4*len(input); len(said) > most {
			t.Errorf("%d bytes made it say %d", len(input), len(said))
		}
		synctest.Wait()
		if n := buf.Outstanding(); n != before {
			t.Errorf("%d buffers were not given back", n-before)
		}
		if n := cfg.Windows.used.Load(); n != 0 {
			t.Errorf("%d bytes of window were not given back", n)
		}
	})
}

// fuzzHandler does a little of everything.
func fuzzHandler(st *Stream) {
	st.SetReadTimeout(time.Second)
	st.SetWriteTimeout(time.Second)
	_, _, _ = st.ReadBody(&st.Req.Trailer)
	_ = st.WriteInterim(&message.Response{Status: 103})
	if st.WriteHead(okHead(), -1, -1, false) != nil {
		return
	}
	_ = st.WriteBody(large[:3000], false, true)
	_, _, _ = st.ReadBody(&st.Req.Trailer)
	_ = st.WriteTrailer(&st.Req.Trailer)
}

// fuzzRequests sends three requests, of which one has a body, and reads what comes.
func fuzzRequests(c *Conn) {
	for i := range 3 {
		st, err := c.Open()
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		st.SetReadTimeout(time.Second)
		st.SetWriteTimeout(time.Second)
		var req message.Request
		req.SetMethod([]string{"GET", "POST", "HEAD"}[i])
		req.SetTarget("/")
		req.SetAuthority("a.example")
		if i == 1 {
			req.SetLength(-1)
		}
		var resp message.Response
		err = st.WriteRequest(&req, "", i != 1)
		if err == nil && i == 1 {
			err = st.WriteBody(large[:3000], true, false)
		}
		for err == nil && resp.Status < 200 {
			err = st.ReadHead(&resp)
		}
		for last := false; err == nil && !last; {
			_, last, err = st.ReadBody(&resp.Trailer)
		}
		st.Done()
	}
}

// FuzzConn: arbitrary bytes behind the preface, to both roles.
func FuzzConn(f *testing.F) {
	for _, p := range fuzzSeeds(f) {
		f.Add(true, uint8(0), p)
		f.Add(false, uint8(7), p)
	}
	f.Fuzz(func(t *testing.T, server bool, chunk uint8, input []byte) {
		role := h2frame.Client
		if server {
			role = h2frame.Server
		}
		fuzzConn(t, role, int(chunk), input)
	})
}

// fuzzSeeds returns the conversations that the corpus begins with.
func fuzzSeeds(f *testing.F) (seeds [][]byte) {
	for _, say := range []func(b *bed){
		func(b *bed) { b.headers(1, true, getLines...) },
		func(b *bed) { b.headers(1, false, getLines...); _ = b.fr.WriteData(1, true, []byte("hello")) },
		func(b *bed) { b.headers(1, false, getLines...); b.headers(1, true, "x-sum: 7") },
		func(b *bed) { b.headers(1, false, ":status: 200"); _ = b.fr.WriteData(1, true, []byte("hello")) },
		func(b *bed) { b.headers(1, false, ":status: 103"); b.headers(1, true, ":status: 204") },
		func(b *bed) { b.headers(1, false, getLines...); _ = b.fr.WriteRSTStream(1, 8) },
		func(b *bed) { _ = b.fr.WriteGoAway(1, 0, []byte("bye")) },
		func(b *bed) { _ = b.fr.WritePing(false, [8]byte{1}); _ = b.fr.WritePing(true, [8]byte{2}) },
		func(b *bed) { _ = b.fr.WriteWindowUpdate(0, 1000); _ = b.fr.WriteWindowUpdate(1, 1) },
		func(b *bed) { _ = b.fr.WriteSettings(http2.Setting{ID: 4, Val: 1}); _ = b.fr.WriteSettingsAck() },
		func(b *bed) {
			b.headers(1, false, getLines...)
			_ = b.fr.WriteDataPadded(1, true, []byte("x"), make([]byte, 9))
		},
		func(b *bed) { _ = b.fr.WritePriority(3, http2.PriorityParam{StreamDep: 1, Weight: 9}) },
		func(b *bed) { b.get(1); _ = b.fr.WriteRawFrame(16, 0, 0, []byte("\x00\x00\x00\x01u=1, i")) },
		func(b *bed) {
			p := b.block(getLines...)
			_ = b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: p[:5]})
			_ = b.fr.WriteContinuation(1, true, p[5:])
		},
		func(b *bed) {
			for i := range 20 {
				b.get(uint32(2*i + 1))
			}
		},
	} {
		near, far := memnet.Pipe()
		b := newBed(new(testing.T), far)
		say(b)
		_ = far.Close()
		p, err := io.ReadAll(near)
		if err != nil {
			f.Fatal(err)
		}
		_ = near.Close()
		seeds = append(seeds, p)
	}
	return seeds
}
