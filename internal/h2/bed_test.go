package h2

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a Conn in a bubble of fake time, and at the other end a framer that is not
// ours.
type bed struct {
	t    *testing.T
	conn *Conn
	far  *memnet.Conn
	fr   *http2.Framer
	enc  *hpack.Encoder
	head bytes.Buffer
	end  chan error
}

func newBed(t *testing.T, far *memnet.Conn) *bed {
	b := &bed{t: t, far: far, fr: http2.NewFramer(far, far), end: make(chan error, 1)}
	b.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	b.fr.AllowIllegalWrites = true
	b.enc = hpack.NewEncoder(&b.head)
	return b
}

type handlerFunc func(*Stream)

func (f handlerFunc) ServeStream(st *Stream) { f(st) }

// withServer runs f against a server whose streams handler serves. When f returns the
// other end closes, and nothing may be left.
func withServer(t *testing.T, handler func(*Stream), change func(*Config), f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		before := buf.Outstanding()
		cfg := *testConfig
		cfg.Handler = handlerFunc(handler)
		cfg.StreamWindow, cfg.ConnWindow, cfg.MaxWindow = 64<<10, 256<<10, 1<<20
		cfg.Windows = NewWindowBudget(8 << 20)
		cfg.HeadTimeout, cfg.IdleTimeout, cfg.WriteTimeout = 10*time.Second, 75*time.Second, 60*time.Second
		if change != nil {
			change(&cfg)
		}
		near, far := memnet.Pipe()
		sweep := wire.NewSweep(0)
		b := newBed(t, far)
		b.conn = New(wire.New(near, sweep), sweep, &cfg, h2frame.Server)
		go func() { b.end <- b.conn.Serve() }()
		defer func() {
			far.Close()
			b.conn.Close(io.ErrClosedPipe)
			<-b.end
			synctest.Wait()
			b.nothingLeft(before, &cfg)
		}()
		f(b)
	})
}

// nothingLeft checks what a connection had to give back.
func (b *bed) nothingLeft(before int64, cfg *Config) {
	if n := buf.Outstanding(); n != before {
		b.t.Errorf("%d buffers were not given back", n-before)
	}
	if n := cfg.Windows.used.Load(); n != 0 {
		b.t.Errorf("%d bytes of window were not given back", n)
	}
}

// hello exchanges prefaces.
func (b *bed) hello(settings ...http2.Setting) {
	b.t.Helper()
	b.write([]byte(http2.ClientPreface))
	b.must(b.fr.WriteSettings(settings...))
	b.want("SETTINGS INITIAL_WINDOW_SIZE=65536 MAX_HEADER_LIST_SIZE=65536 MAX_CONCURRENT_STREAMS=100 NO_RFC7540_PRIORITIES=1 ENABLE_CONNECT_PROTOCOL=1 ")
	b.want("WINDOW_UPDATE 0 196609")
	b.want("SETTINGS ACK")
	b.must(b.fr.WriteSettingsAck())
}

func (b *bed) write(p []byte) {
	b.t.Helper()
	_, err := b.far.Write(p)
	b.must(err)
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// headers sends a field section, given as "name: value" lines.
func (b *bed) headers(id uint32, end bool, lines ...string) {
	b.t.Helper()
	b.must(b.tryHeaders(id, end, lines...))
}

func (b *bed) tryHeaders(id uint32, end bool, lines ...string) error {
	return b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: b.block(lines...)})
}

func (b *bed) block(lines ...string) []byte {
	b.head.Reset()
	for _, l := range lines {
		at := strings.Index(l[1:], ":") + 1
		b.must(b.enc.WriteField(hpack.HeaderField{Name: l[:at], Value: strings.TrimPrefix(l[at+1:], " ")}))
	}
	return b.head.Bytes()
}

// get sends a request without a body.
func (b *bed) get(id uint32) { b.t.Helper(); b.headers(id, true, getLines...) }

// frame returns the next frame as a line of text, "EOF" at the end.
func (b *bed) frame() string {
	b.t.Helper()
	_ = b.far.SetReadDeadline(time.Now().Add(time.Hour))
	f, err := b.fr.ReadFrame()
	if err != nil {
		return "EOF"
	}
	id := f.Header().StreamID
	end := ""
	if f.Header().Flags.Has(http2.FlagDataEndStream) {
		end = " END"
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ACK"
		}
		s := "SETTINGS "
		_ = f.ForeachSetting(func(v http2.Setting) error {
			if name := v.ID.String(); !strings.HasPrefix(name, "UNKNOWN") {
				s += fmt.Sprintf("%s=%d ", name, v.Val)
			}
			return nil
		})
		return s
	case *http2.MetaHeadersFrame:
		s := fmt.Sprintf("HEADERS %d%s", id, end)
		for _, h := range f.Fields {
			s += " " + h.Name + "=" + h.Value
		}
		return s
	case *http2.DataFrame:
		return fmt.Sprintf("DATA %d%s %s", id, end, short(f.Data()))
	case *http2.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW_UPDATE %d %d", id, f.Increment)
	case *http2.RSTStreamFrame:
		return fmt.Sprintf("RST_STREAM %d %s", id, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %s", f.LastStreamID, f.ErrCode)
	case *http2.PingFrame:
		if f.IsAck() {
			return "PING ACK"
		}
		return "PING"
	}
	return f.Header().String()
}

func short(p []byte) string {
	if len(p) > 40 {
		return fmt.Sprintf("%d bytes", len(p))
	}
	return string(p)
}

// want reads the next frame, which must be this.
func (b *bed) want(line string) {
	b.t.Helper()
	if got := b.frame(); got != line {
		b.t.Fatalf("frame\n got %s\nwant %s", got, line)
	}
}

// wantEnd reads frames up to a GOAWAY of this code, after which the connection must
// end.
func (b *bed) wantEnd(code string) {
	b.t.Helper()
	for {
		got := b.frame()
		switch {
		case strings.HasPrefix(got, "GOAWAY") && strings.HasSuffix(got, " "+code):
			b.far.CloseWrite()
			b.want("EOF")
			return
		case got == "EOF", strings.HasPrefix(got, "GOAWAY"):
			b.t.Fatalf("connection ended with %s, want GOAWAY %s", got, code)
		}
	}
}

// wantIdle checks that nothing comes.
func (b *bed) wantIdle() {
	b.t.Helper()
	synctest.Wait()
	if b.far.Stray() != nil {
		b.t.Fatalf("unexpected %s", b.frame())
	}
}
