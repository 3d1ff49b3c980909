//lint:file-ignore SA1019 the engines of x/net are wanted for themselves: peers that are not ours.

package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
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

// This file lets a Conn talk with golang.org/x/net/http2, which is not ours, in both
// roles: many exchanges at a time, of random shapes and sizes, some of them given up,
// over connections that cut and delay. Bodies are compared; nothing may be left.

// plan is one exchange. Its parts are told in the fields of the request, so that the
// other end, whoever it is, does its part.
type plan struct {
	up, down  int    // bytes of the bodies
	pattern   byte   // their content
	lengths   bool   // they are told beforehand
	trailers  bool   // the response has some
	early     bool   // the response comes before the body is read
	interims  int    // heads of 103 before
	cut       int    // who serves gives up behind so many bytes; -1: not
	abandon   int    // who asks does; -1: not
	method    string //
	pieceSize int    // of writes, about
}

func newPlan(r *rand.Rand) plan {
	sizes := []int{0, 0, 1, 100, 5000, 16384, 70000, 150000}
	size := func() int { return r.IntN(sizes[r.IntN(len(sizes))] + 1) }
	p := plan{up: size(), down: size(), pattern: byte(r.Uint32()), cut: -1, abandon: -1, method: "POST",
		lengths: r.IntN(2) == 0, trailers: r.IntN(3) == 0, early: r.IntN(4) == 0,
		interims: max(0, r.IntN(6)-3), pieceSize: 1 + r.IntN(20000)}
	if p.up == 0 {
		p.method = []string{"GET", "HEAD", "DELETE"}[r.IntN(3)]
	}
	switch r.IntN(8) {
	case 0:
		p.cut = r.IntN(p.down + 1)
	case 1:
		p.abandon = r.IntN(p.down + 1)
	}
	return p
}

func (p plan) String() string {
	return fmt.Sprintf("%d %d %d %v %v %v %d %d %d %d", p.up, p.down, p.pattern, p.lengths, p.trailers, p.early, p.interims, p.cut, p.abandon, p.pieceSize)
}

func parsePlan(s string) (p plan) {
	_, _ = fmt.Sscan(s, &p.up, &p.down, &p.pattern, &p.lengths, &p.trailers, &p.early, &p.interims, &p.cut, &p.abandon, &p.pieceSize)
	return p
}

// body returns bytes [from, to) of a body of the plan.
func (p plan) body(from, to int) []byte {
	b := make([]byte, to-from)
	for i := range b {
		at := from + i
		b[i] = p.pattern + byte(at) + byte(at>>8)*3
	}
	return b
}

// checker reads a body piece by piece and compares it.
type checker struct {
	p  plan
	at int
}

func (c *checker) take(b []byte) error {
	if want := c.p.body(c.at, c.at+len(b)); !bytes.Equal(b, want) {
		return fmt.Errorf("the body differs behind byte %d", c.at)
	}
	c.at += len(b)
	return nil
}

// errCut says that the plan was to give up here.
var errCut = errors.New("given up as planned")

// pieces calls write with the body of n bytes, and stops behind cut bytes.
func (p plan) pieces(n, cut int, write func(b []byte, last bool) error) error {
	for at := 0; ; {
		to := min(n, at+p.pieceSize)
		if cut >= 0 && to >= cut {
			return errCut
		}
		if err := write(p.body(at, to), to == n); err != nil || to == n {
			return err
		}
		at = to
	}
}

// world is what a run has in common.
type world struct {
	t      *testing.T
	r      *rand.Rand
	faults atomic.Int32 // that were not planned
	whole  atomic.Int32 // exchanges that came to their end
}

func (w *world) fault(p plan, format string, args ...any) {
	w.faults.Add(1)
	w.t.Errorf("plan %v: %s", p, fmt.Sprintf(format, args...))
}

// pipe returns two ends that cut and delay.
func (w *world) pipe() (near, far *memnet.Conn) {
	near, far = memnet.Pipe()
	for _, c := range []*memnet.Conn{near, far} {
		switch w.r.IntN(3) {
		case 0:
			c.SetChunk(10 + w.r.IntN(300))
		case 1:
			c.SetChunk(1 + w.r.IntN(20000))
		}
		if w.r.IntN(2) == 0 {
			c.SetDelay(time.Duration(w.r.IntN(30)) * time.Millisecond)
		}
	}
	near.SetBuffer(1 + w.r.IntN(100000))
	// Who is not ours writes with a mutex held, which stops the bubble's time while a
	// write waits.
	far.SetBuffer(1 << 30)
	return near, far
}

func (w *world) config() *Config {
	cfg := *testConfig
	cfg.StreamWindow = 1000 + w.r.IntN(100000)
	cfg.ConnWindow = 65535 + w.r.IntN(200000)
	cfg.MaxWindow = cfg.StreamWindow + w.r.IntN(1<<20)
	cfg.MaxStreams = 1 + w.r.IntN(50)
	cfg.Windows = NewWindowBudget(int64(w.r.IntN(4 << 20)))
	cfg.HeadTimeout, cfg.IdleTimeout, cfg.WriteTimeout = 30*time.Second, time.Hour, time.Minute
	return &cfg
}

// serve is our server's part of a plan.
func (w *world) serve(st *Stream) {
	p := parsePlan(st.Req.Header.Get("X-Plan"))
	read := func() error {
		in := checker{p: p}
		for {
			b, last, err := st.ReadBody(&st.Req.Trailer)
			if err != nil {
				return err
			}
			if err := in.take(b); err != nil {
				w.fault(p, "request: %v", err)
			}
			if last {
				if in.at != p.up {
					w.fault(p, "the request ended behind byte %d", in.at)
				}
				return nil
			}
		}
	}
	if !p.early && read() != nil {
		return
	}
	for range p.interims {
		if st.WriteInterim(&message.Response{Status: 103}) != nil {
			return
		}
	}
	length, told := int64(-1), int64(-1)
	if p.lengths {
		length, told = int64(p.down), int64(p.down)
	}
	noBody := st.Req.Method() == "HEAD"
	if st.WriteHead(&message.Response{Status: 200}, length, told, noBody) != nil {
		return
	}
	if noBody {
		_ = st.Flush()
		return
	}
	err := p.pieces(p.down, p.cut, func(b []byte, last bool) error {
		if last && p.trailers {
			if err := st.WriteBody(b, false, true); err != nil {
				return err
			}
			var trailer message.Header
			trailer.Add("X-Sum", strconv.Itoa(p.down))
			return st.WriteTrailer(&trailer)
		}
		return st.WriteBody(b, last, false)
	})
	if err == errCut {
		st.Reset(h2frame.InternalError)
		return
	}
	if err == nil && p.early {
		_ = read()
	}
}

// ask is the other end's part: a request of x/net's client.
func (w *world) ask(cc *http2.ClientConn, p plan, delay time.Duration) {
	time.Sleep(delay)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var body io.Reader
	if p.up > 0 {
		body = bytes.NewReader(p.body(0, p.up))
		if !p.lengths {
			body = io.MultiReader(body) // hides its length
		}
	}
	req, err := http.NewRequestWithContext(ctx, p.method, "http://a.example/", body)
	if err != nil {
		w.t.Error(err)
		return
	}
	req.Header.Set("X-Plan", p.String())
	resp, err := cc.RoundTrip(req)
	if err != nil {
		if p.cut < 0 {
			w.fault(p, "%v", err)
		}
		return
	}
	defer resp.Body.Close()
	in := checker{p: p}
	piece := make([]byte, p.pieceSize)
	for {
		n, err := resp.Body.Read(piece)
		if err := in.take(piece[:n]); err != nil {
			w.fault(p, "response: %v", err)
		}
		if p.abandon >= 0 && in.at >= p.abandon {
			return // Close and cancel reset it
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if p.cut < 0 {
				w.fault(p, "behind byte %d: %v", in.at, err)
			}
			return
		}
	}
	switch {
	case p.method == "HEAD":
	case p.cut >= 0:
		w.fault(p, "a response that was cut is complete, with %d bytes", in.at)
	case in.at != p.down:
		w.fault(p, "the response ended behind byte %d", in.at)
	case p.trailers && resp.Trailer.Get("X-Sum") != strconv.Itoa(p.down):
		w.fault(p, "the trailer is %v", resp.Trailer)
	}
	w.whole.Add(1)
}

// runs runs f once for each of n seeds and checks that nothing is left. All of them
// share a bubble: x/net keeps channels for reuse, which must not get into another.
func runs(t *testing.T, n int, f func(w *world, cfg *Config)) {
	runtime.GC()
	runtime.GC() // what pools keep goes with the second one
	synctest.Test(t, func(t *testing.T) {
		first, whole := rand.Uint64(), int32(0)
		for i := range n {
			seed := uint64(i)
			if i >= n/2 {
				seed += first
			}
			before := buf.Outstanding()
			w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1))}
			cfg := w.config()
			f(w, cfg)
			synctest.Wait()
			if n := buf.Outstanding(); n != before {
				t.Errorf("%d buffers were not given back", n-before)
			}
			if n := cfg.Windows.used.Load(); n != 0 {
				t.Errorf("%d bytes of window were not given back", n)
			}
			if whole += w.whole.Load(); t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		if whole < int32(n) {
			t.Errorf("%d exchanges came to their end", whole)
		}
	})
}

// checkEmpty checks that a connection without exchanges holds nothing of any.
func (w *world) checkEmpty(c *Conn, cfg *Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams)+c.running+c.opened+c.headHeld+len(c.waiting) != 0 || c.recv.Held() != 0 {
		w.t.Errorf("the connection holds %d streams, %d handlers, %d places, %d bytes of heads, %d that wait, %d bytes of window",
			len(c.streams), c.running, c.opened, c.headHeld, len(c.waiting), c.recv.Held())
	}
}

func TestRandomServer(t *testing.T) {
	runs(t, 30, func(w *world, cfg *Config) {
		near, far := w.pipe()
		sweep := wire.NewSweep(0)
		cfg.Handler = handlerFunc(w.serve)
		c := New(wire.New(near, sweep), sweep, cfg, h2frame.Server)
		served := make(chan error, 1)
		go func() { served <- c.Serve() }()
		tr := &http2.Transport{AllowHTTP: true, StrictMaxConcurrentStreams: true, DisableCompression: true,
			MaxReadFrameSize: uint32(16<<10 + w.r.IntN(1<<20))}
		cc, err := tr.NewClientConn(far)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := cc.Ping(context.Background()); err != nil { // it knows how many streams it may open
			w.t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 1 + w.r.IntN(30) {
			p, delay := newPlan(w.r), time.Duration(w.r.IntN(300))*time.Millisecond
			wg.Go(func() { w.ask(cc, p, delay) })
		}
		wg.Wait()
		time.Sleep(2 * time.Minute) // what was given up is over
		w.checkEmpty(c, cfg)
		c.Drain()
		<-c.Done()
		_ = cc.Close()
		if err := <-served; !errors.Is(err, ErrClosed) {
			w.t.Errorf("the connection ended with %v", err)
		}
	})
}

// ServeHTTP is the part of x/net's server.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	p := parsePlan(r.Header.Get("X-Plan"))
	read := func() error {
		in := checker{p: p}
		piece := make([]byte, p.pieceSize)
		for {
			n, err := r.Body.Read(piece)
			if err := in.take(piece[:n]); err != nil {
				w.fault(p, "request: %v", err)
			}
			if err == io.EOF {
				if in.at != p.up {
					w.fault(p, "the request ended behind byte %d", in.at)
				}
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	if !p.early && read() != nil {
		return
	}
	for range p.interims {
		rw.WriteHeader(103)
	}
	if p.lengths {
		rw.Header().Set("Content-Length", strconv.Itoa(p.down))
	}
	if p.trailers {
		rw.Header().Set("Trailer", "X-Sum")
	}
	rw.WriteHeader(200)
	if r.Method == "HEAD" {
		return
	}
	err := p.pieces(p.down, p.cut, func(b []byte, last bool) error { _, err := rw.Write(b); return err })
	if err == errCut {
		panic(http.ErrAbortHandler)
	}
	rw.Header().Set("X-Sum", strconv.Itoa(p.down))
	if err == nil && p.early {
		_ = read()
	}
}

// request is a request of our client.
func (w *world) request(c *Conn, p plan, delay time.Duration) {
	time.Sleep(delay)
	var st *Stream
	for {
		var err error
		if st, err = c.Open(); err == nil {
			break
		}
		if !errors.Is(err, ErrFull) {
			w.fault(p, "open: %v", err)
			return
		}
		time.Sleep(time.Millisecond)
	}
	var wg sync.WaitGroup
	defer st.Done()
	defer wg.Wait()
	var req message.Request
	req.SetMethod(p.method)
	req.SetTarget("/")
	req.SetAuthority("a.example")
	req.SetScheme("http")
	req.Header.Add("X-Plan", p.String())
	req.SetLength(int64(p.up))
	if !p.lengths && p.up > 0 {
		req.SetLength(-1)
	}
	if err := st.WriteRequest(&req, "", p.up == 0); err != nil {
		w.fault(p, "request: %v", err)
		return
	}
	_ = st.Flush()
	if p.up > 0 {
		wg.Go(func() {
			_ = p.pieces(p.up, -1, func(b []byte, last bool) error { return st.WriteBody(b, last, false) })
		})
	}
	var resp message.Response
	for {
		if err := st.ReadHead(&resp); err != nil {
			if p.cut < 0 {
				w.fault(p, "head: %v", err)
			}
			st.Reset(h2frame.Cancel)
			return
		}
		if resp.Status == 200 {
			break
		}
	}
	in := checker{p: p}
	for {
		b, last, err := st.ReadBody(&resp.Trailer)
		if err != nil {
			if p.cut < 0 {
				w.fault(p, "behind byte %d: %v", in.at, err)
			}
			st.Reset(h2frame.Cancel)
			return
		}
		if err := in.take(b); err != nil {
			w.fault(p, "response: %v", err)
		}
		if p.abandon >= 0 && in.at >= p.abandon {
			st.Reset(h2frame.Cancel)
			return
		}
		if last {
			break
		}
	}
	switch {
	case p.method == "HEAD":
	case p.cut >= 0:
		w.fault(p, "a response that was cut is complete, with %d bytes", in.at)
	case in.at != p.down:
		w.fault(p, "the response ended behind byte %d", in.at)
	case p.trailers && resp.Trailer.Get("X-Sum") != strconv.Itoa(p.down):
		w.fault(p, "the trailer is %q", resp.Trailer.Get("X-Sum"))
	}
	w.whole.Add(1)
}

func TestRandomClient(t *testing.T) {
	runs(t, 30, func(w *world, cfg *Config) {
		near, far := w.pipe()
		sweep := wire.NewSweep(0)
		c := New(wire.New(near, sweep), sweep, cfg, h2frame.Client)
		served := make(chan error, 1)
		go func() { served <- c.Serve() }()
		srv := &http2.Server{MaxConcurrentStreams: uint32(1 + w.r.IntN(50)), MaxReadFrameSize: uint32(16<<10 + w.r.IntN(1<<20)),
			MaxUploadBufferPerConnection: int32(65535 + w.r.IntN(1<<20)), MaxUploadBufferPerStream: int32(1 + w.r.IntN(200000))}
		ended := make(chan struct{})
		go func() {
			srv.ServeConn(far, &http2.ServeConnOpts{Handler: w, BaseConfig: &http.Server{}})
			close(ended)
		}()
		for !c.Settled() {
			// x/net enforces a window below the protocol's first one at once, although
			// RFC 9113, section 6.9.3, has it wait until the client knows it.
			time.Sleep(time.Millisecond)
		}
		var wg sync.WaitGroup
		for range 1 + w.r.IntN(30) {
			p, delay := newPlan(w.r), time.Duration(w.r.IntN(300))*time.Millisecond
			wg.Go(func() { w.request(c, p, delay) })
		}
		wg.Wait()
		time.Sleep(2 * time.Minute)
		w.checkEmpty(c, cfg)
		c.Drain()
		<-c.Done()
		<-ended
		if err := <-served; !errors.Is(err, ErrClosed) {
			w.t.Errorf("the connection ended with %v", err)
		}
	})
}
