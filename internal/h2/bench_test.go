//lint:file-ignore SA1019 the engines of x/net are wanted for themselves: peers that are not ours.

package h2

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// answerSmall reads the body and answers with 1 KiB, the way the engine does.
type answerSmall struct {
	resp message.Response
	body []byte
}

func (a *answerSmall) ServeStream(st *Stream) {
	for {
		if _, last, err := st.ReadBody(nil); err != nil {
			return
		} else if last {
			break
		}
	}
	if st.WriteHead(&a.resp, int64(len(a.body)), int64(len(a.body)), false) == nil {
		_ = st.WriteBody(a.body, true, false)
	}
}

// steady is a server's connection in memory and a client that repeats a request, in
// bytes made beforehand.
type steady struct {
	far   *memnet.Conn
	id    uint32
	frame []byte // HEADERS of one request, all from the dynamic table
	in    []byte
	have  int // bytes in it
	out   []byte
}

// steadyLines are a browser's.
var steadyLines = []string{
	":method: GET", ":scheme: https", ":authority: www.example.com", ":path: /static/app.js?v=1234",
	"user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
	"accept: */*", "accept-encoding: gzip, deflate, br, zstd", "accept-language: en-GB,en;q=0.9",
	"cookie: session=0123456789abcdef0123456789abcdef", "cookie: theme=dark", "referer: https://www.example.com/",
	"sec-fetch-dest: script", "sec-fetch-mode: no-cors", "sec-fetch-site: same-origin",
}

func newSteady(tb testing.TB) *steady {
	a := &answerSmall{body: make([]byte, 1024)}
	a.resp.Status = 200
	a.resp.Header.Add("Content-Type", "text/javascript")
	a.resp.Header.Add("Cache-Control", "max-age=3600")
	cfg := *testConfig
	cfg.Handler = a
	cfg.StreamWindow, cfg.ConnWindow, cfg.MaxWindow = 64<<10, 256<<10, 1<<20
	cfg.Windows = NewWindowBudget(8 << 20)
	near, far := memnet.Pipe()
	sweep := wire.NewSweep(0)
	conn := New(wire.New(near, sweep), sweep, &cfg, h2frame.Server)
	served := make(chan error, 1)
	go func() { served <- conn.Serve() }()
	tb.Cleanup(func() {
		far.Close()
		conn.Close(io.ErrClosedPipe)
		<-served
	})
	return greetSteady(far)
}

// newSteadyOther is newSteady with x/net's server, whose one loop meets its streams,
// its reader and its writes through channels.
func newSteadyOther(tb testing.TB) *steady {
	body := make([]byte, 1024)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h := w.Header()
		h["Content-Type"], h["Cache-Control"], h["Content-Length"] = otherType, otherCache, otherLength
		h["Date"] = nil
		_, _ = w.Write(body)
	})
	near, far := memnet.Pipe()
	served := make(chan struct{})
	go func() {
		new(http2.Server).ServeConn(near, &http2.ServeConnOpts{Handler: handler, BaseConfig: &http.Server{}})
		close(served)
	}()
	tb.Cleanup(func() { far.Close(); <-served })
	return greetSteady(far)
}

var otherType, otherCache, otherLength = []string{"text/javascript"}, []string{"max-age=3600"}, []string{"1024"}

// greetSteady begins the connection.
func greetSteady(far *memnet.Conn) *steady {
	s := &steady{far: far, id: 1, in: make([]byte, 64<<10)}
	b := newBed(&testing.T{}, far)
	b.write([]byte(h2frame.Preface))
	b.must(b.fr.WriteSettings())
	b.must(b.fr.WriteSettingsAck())
	b.headers(1, true, steadyLines...)
	for !strings.HasPrefix(b.frame(), "DATA 1 END") {
		continue
	}
	// From now on all of it is in the dynamic table.
	s.frame = h2frame.AppendHeaders(nil, 0, b.block(steadyLines...), true, true)
	s.frame = h2frame.AppendWindowUpdate(s.frame, 0, 1024)
	return s
}

// exchange sends n requests at once and reads their responses.
func (s *steady) exchange(tb testing.TB, n int) {
	s.out = s.out[:0]
	for range n {
		s.id += 2
		at := len(s.out)
		s.out = append(s.out, s.frame...)
		binary.BigEndian.PutUint32(s.out[at+5:], s.id)
	}
	if _, err := s.far.Write(s.out); err != nil {
		tb.Fatal(err)
	}
	for ended := 0; ended < n; {
		m, err := s.far.Read(s.in[s.have:])
		if err != nil {
			tb.Fatal(err)
		}
		s.have += m
		at := 0
		for s.have-at >= h2frame.HeaderLen {
			h := h2frame.ParseHeader(s.in[at:])
			if s.have-at < h2frame.HeaderLen+h.Length {
				break
			}
			if h.Type == h2frame.TypeData && h.Flags.Has(h2frame.FlagEndStream) {
				ended++
			}
			at += h2frame.HeaderLen + h.Length
		}
		s.have = copy(s.in, s.in[at:s.have])
	}
}

// BenchmarkH2Exchange is a browser's request and a response of 1 KiB, in memory, one
// and 32 at a time; with x/net's server beside it (decision 12).
func BenchmarkH2Exchange(b *testing.B) {
	for _, server := range []struct {
		name  string
		begin func(testing.TB) *steady
	}{{"ours", newSteady}, {"x-net", newSteadyOther}} {
		for _, n := range []int{1, 32} {
			b.Run(server.name+"/"+strconv.Itoa(n), func(b *testing.B) {
				s := server.begin(b)
				s.exchange(b, n)
				b.ReportAllocs()
				for left := b.N; left > 0; left -= n {
					s.exchange(b, min(n, left))
				}
			})
		}
	}
}

// BenchmarkSection is what our sections cost against those of x/net's encoder, which
// has a dynamic table and Huffman: bytes on the wire and time, for a response's head
// that comes again and again but for its date and entity tag (decision 11).
func BenchmarkSection(b *testing.B) {
	resp := message.Response{Status: 200}
	for _, f := range [][2]string{
		{"Server", "nginx"}, {"Date", "Wed, 25 Nov 2026 03:00:00 GMT"}, {"Content-Type", "application/json; charset=utf-8"},
		{"Cache-Control", "private, max-age=0, must-revalidate"}, {"ETag", "W/\"5f-1c2d3e4f5a6b7c8d\""}, {"Vary", "Accept-Encoding"},
		{"X-Request-Id", "0f8fad5b-d9cb-469f-a165-70867728950e"}, {"Strict-Transport-Security", "max-age=31536000; includeSubDomains"},
		{"X-Content-Type-Options", "nosniff"},
	} {
		resp.Header.Add(f[0], f[1])
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for range b.N {
			dst = appendResponse(dst[:0], &resp, 1024)
		}
		b.ReportMetric(float64(len(dst)), "bytes")
	})
	b.Run("hpack", func(b *testing.B) {
		b.ReportAllocs()
		var out bytes.Buffer
		enc := hpack.NewEncoder(&out)
		var names, values [9]string
		for i := range names {
			name, value := resp.Header.Field(i)
			names[i], values[i] = strings.ToLower(string(name)), string(value)
		}
		n := 0
		for i := range b.N {
			out.Reset()
			_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			for k := range names {
				v := values[k]
				if k == 1 || k == 4 || k == 6 { // of each response its own
					v = v[:len(v)-4] + strconv.Itoa(1000+i%9000)
				}
				_ = enc.WriteField(hpack.HeaderField{Name: names[k], Value: v})
			}
			_ = enc.WriteField(hpack.HeaderField{Name: "content-length", Value: "1024"})
			n += out.Len()
		}
		b.ReportMetric(float64(n)/float64(b.N), "bytes")
	})
}
