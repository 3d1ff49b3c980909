package h2

import (
	"errors"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// withClient runs f against a Conn that is the client; b is the server.
func withClient(t *testing.T, change func(*Config), f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		before := buf.Outstanding()
		cfg := *testConfig
		cfg.StreamWindow, cfg.ConnWindow, cfg.MaxWindow = 64<<10, 256<<10, 1<<20
		cfg.Windows = NewWindowBudget(8 << 20)
		if change != nil {
			change(&cfg)
		}
		near, far := memnet.Pipe()
		sweep := wire.NewSweep(0)
		b := newBed(t, far)
		b.conn = New(wire.New(near, sweep), sweep, &cfg, h2frame.Client)
		go func() { b.end <- b.conn.Serve() }()
		defer func() {
			far.Close()
			b.conn.Close(errors.New("the test is over"))
			<-b.end
			synctest.Wait()
			b.nothingLeft(before, &cfg)
		}()
		f(b)
	})
}

// open sends a request without a body on a new stream.
func (b *bed) open(method string) *Stream {
	b.t.Helper()
	st, err := b.conn.Open()
	b.must(err)
	var req message.Request
	req.SetMethod(method)
	req.SetTarget("/")
	req.SetAuthority("a.example")
	b.must(st.WriteRequest(&req, "", true))
	b.must(st.Flush())
	return st
}

// greet reads what a client says first, and answers.
func (b *bed) greet(settings ...http2.Setting) {
	b.t.Helper()
	b.must(b.fr.WriteSettings(settings...))
	preface := make([]byte, len(http2.ClientPreface))
	n, err := b.far.Read(preface)
	if err != nil || string(preface[:n]) != http2.ClientPreface {
		b.t.Fatalf("the client begins with %q, %v", preface[:n], err)
	}
	b.want("SETTINGS INITIAL_WINDOW_SIZE=65536 MAX_HEADER_LIST_SIZE=65536 ENABLE_PUSH=0 ")
	b.want("WINDOW_UPDATE 0 196609")
}

func TestClientExchange(t *testing.T) {
	withClient(t, nil, func(b *bed) {
		st := b.open("GET")
		b.greet()
		b.want("HEADERS 1 END :method=GET :scheme=http :path=/ :authority=a.example")
		b.want("SETTINGS ACK")
		b.headers(1, false, ":status: 103", "link: x")
		b.headers(1, false, ":status: 200", "content-length: 5")
		b.must(b.fr.WriteData(1, false, []byte("hello")))
		b.headers(1, true, "x-sum: 7")
		var resp message.Response
		b.must(st.ReadHead(&resp))
		if resp.Status != 103 {
			t.Errorf("first head is %d", resp.Status)
		}
		b.must(st.ReadHead(&resp))
		body, last, err := st.ReadBody(&resp.Trailer)
		if string(body) != "hello" || err != nil || resp.Length() != 5 {
			t.Errorf("body %q, %v, length %d", body, err, resp.Length())
		}
		if !last {
			_, last, err = st.ReadBody(&resp.Trailer)
		}
		if !last || err != nil || resp.Trailer.Get("X-Sum") != "7" {
			t.Errorf("end %v, %v, trailer %q", last, err, resp.Trailer.Get("X-Sum"))
		}
		st.Done()
		b.wantIdle()
	})
}

// TestUnprocessed: RFC 9113, section 8.7: what a server has not looked at may be
// sent again.
func TestUnprocessed(t *testing.T) {
	withClient(t, nil, func(b *bed) {
		b.greet()
		b.want("SETTINGS ACK")
		first, second, third := b.open("POST"), b.open("POST"), b.open("POST")
		b.must(b.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream))
		b.must(b.fr.WriteGoAway(3, http2.ErrCodeNo, nil))
		b.headers(3, true, ":status: 204")
		var resp message.Response
		var e *Error
		if err := first.ReadHead(&resp); !errors.As(err, &e) || !e.Unprocessed {
			t.Errorf("the refused stream ends with %v", err)
		}
		if err := third.ReadHead(&resp); !errors.As(err, &e) || !e.Unprocessed {
			t.Errorf("the stream behind GOAWAY ends with %v", err)
		}
		b.must(second.ReadHead(&resp))
		if _, err := b.conn.Open(); err == nil {
			t.Error("a stream was opened after GOAWAY")
		}
		first.Done()
		second.Done()
		third.Done()
		<-b.conn.Done() // nothing is left on it
	})
}

// TestStreamLimit: a client opens as many streams as the server says.
func TestStreamLimit(t *testing.T) {
	withClient(t, nil, func(b *bed) {
		b.greet(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
		b.want("SETTINGS ACK")
		first := b.open("GET")
		b.want("HEADERS 1 END :method=GET :scheme=http :path=/ :authority=a.example")
		second := b.open("GET")
		if _, err := b.conn.Open(); !errors.Is(err, ErrFull) {
			t.Errorf("a third stream: %v", err)
		}
		b.headers(1, true, ":status: 204")
		synctest.Wait()
		third := b.open("GET")
		first.Done()
		second.Done()
		third.Done()
	})
}
