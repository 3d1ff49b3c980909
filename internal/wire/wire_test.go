package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/internal/testcert"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// nobody has no memory to release.
type nobody struct{}

func (nobody) Release() {}

const fast = 5 * time.Millisecond // the sweep's tick in tests

// pair is a Conn under test and the other end.
type pair struct {
	*Conn
	far   net.Conn
	sweep *Sweep
}

// portable hides what is below, so that the portable path is taken.
type portable struct{ net.Conn }

func (p portable) CloseWrite() error {
	return p.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func (p portable) NetConn() net.Conn { return p.Conn }

// kinds are the connections that every test runs over.
var kinds = map[string]func(t *testing.T) (near, far net.Conn){
	"tcp":  func(t *testing.T) (net.Conn, net.Conn) { return dialed(t, "tcp", "127.0.0.1:0") },
	"unix": func(t *testing.T) (net.Conn, net.Conn) { return dialed(t, "unix", filepath.Join(t.TempDir(), "s")) },
	"portable": func(t *testing.T) (net.Conn, net.Conn) {
		a, b := dialed(t, "tcp", "127.0.0.1:0")
		return portable{a}, b
	},
	"tls server": func(t *testing.T) (net.Conn, net.Conn) {
		a, b := dialed(t, "tcp", "127.0.0.1:0")
		near, far := secured(t, a, b)
		return near, halfCloser{far}
	},
	"tls client": func(t *testing.T) (net.Conn, net.Conn) {
		a, b := dialed(t, "unix", filepath.Join(t.TempDir(), "s"))
		far, near := secured(t, b, a)
		return near, halfCloser{far}
	},
	"tls portable": func(t *testing.T) (net.Conn, net.Conn) {
		a, b := dialed(t, "tcp", "127.0.0.1:0")
		near, far := secured(t, portable{a}, b)
		return near, halfCloser{far}
	},
	"tls memnet": func(t *testing.T) (net.Conn, net.Conn) {
		a, b := memnet.Pipe()
		near, far := secured(t, a, b)
		return near, halfCloser{far}
	},
}

var theCert = sync.OnceValue(func() *tls.Config {
	var t testing.T
	return &tls.Config{Certificates: []tls.Certificate{*testcert.NewCA(&t, "a.test").TLS()}, DynamicRecordSizingDisabled: true}
})

// halfCloser closes TLS and what is below it.
type halfCloser struct{ *tls.Conn }

func (h halfCloser) CloseWrite() error {
	if err := h.Conn.CloseWrite(); err != nil {
		return err
	}
	return h.NetConn().(*Sock).CloseWrite()
}

// secured makes TLS connections of ours of both ends.
func secured(t *testing.T, server, client net.Conn) (s, c *tls.Conn) {
	t.Helper()
	ss, cs := NewSock(server), NewSock(client)
	st, ct := tls.Server(ss, theCert()), tls.Client(cs, &tls.Config{InsecureSkipVerify: true})
	errc := make(chan error, 1)
	go func() { errc <- ss.Handshake(context.Background(), st) }()
	if err := errors.Join(cs.Handshake(t.Context(), ct), <-errc); err != nil {
		t.Fatal(err)
	}
	return st, ct
}

func dialed(t *testing.T, network, addr string) (near, far net.Conn) {
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func overAll(t *testing.T, f func(t *testing.T, p *pair)) {
	for name, make := range kinds {
		t.Run(name, func(t *testing.T) {
			near, far := make(t)
			s := NewSweep(fast)
			p := &pair{New(near, s), far, s}
			before := buf.Outstanding()
			f(t, p)
			p.Close()
			far.Close()
			if n := buf.Outstanding(); n != before {
				t.Errorf("%d buffers were not given back", n-before)
			}
		})
	}
}

func (p *pair) send(t *testing.T, s string) {
	t.Helper()
	if _, err := p.far.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) wantBuffered(t *testing.T, want string) {
	t.Helper()
	for len(p.Buffered()) < len(want) {
		if err := p.Fill(); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(p.Buffered()); got != want {
		t.Fatalf("buffered %q, want %q", got, want)
	}
}

func TestFillAndDiscard(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.send(t, "hello world")
		p.wantBuffered(t, "hello world")
		p.Discard(6)
		if got := string(p.Buffered()); got != "world" {
			t.Fatalf("left %q", got)
		}
		p.send(t, "!")
		p.wantBuffered(t, "world!")
		p.ReleaseBuffer()
		if len(p.Buffered()) != 6 {
			t.Fatal("a buffer with something in it was released")
		}
		p.Discard(6)
		p.ReleaseBuffer()
		if p.b != nil {
			t.Fatal("the buffer is still held")
		}
		p.far.Close()
		if err := p.Fill(); err != io.EOF {
			t.Fatalf("got %v, want EOF", err)
		}
	})
}

func TestBufferGrowsToItsLimit(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		const max = 200 << 10
		p.SetMaxBuffer(max)
		data := bytes.Repeat([]byte("0123456789"), 30000)
		var wg sync.WaitGroup
		wg.Go(func() { p.far.Write(data) })
		var err error
		for err == nil {
			err = p.Fill()
		}
		if err != ErrFull || len(p.Buffered()) < max || len(p.Buffered()) > 2*max {
			t.Errorf("got %v with %d bytes", err, len(p.Buffered()))
		}
		if !bytes.Equal(p.Buffered(), data[:len(p.Buffered())]) {
			t.Error("the bytes are not those that were sent")
		}
		p.Discard(len(p.Buffered()))
		p.Close()
		wg.Wait()
	})
}

func TestIdleHoldsNoBuffer(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		errc := make(chan error)
		go func() { errc <- p.FillIdle() }()
		p.send(t, "x")
		if err := <-errc; err != nil || string(p.Buffered()) != "x" {
			t.Fatalf("got %v, %q", err, p.Buffered())
		}
		p.Discard(1)
		p.SetReadTimeout(fast)
		if err := p.FillIdle(); err != ErrTimeout {
			t.Fatalf("got %v", err)
		}
		if p.b != nil {
			t.Error("a buffer is held while idle")
		}
	})
}

func TestReadTimeout(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.SetReadTimeout(20 * time.Millisecond)
		began := time.Now()
		if err := p.Fill(); err != ErrTimeout {
			t.Fatalf("got %v", err)
		}
		if d := time.Since(began); d < 20*time.Millisecond {
			t.Errorf("expired after %v", d)
		}
		// The expiry is over: the next wait succeeds.
		p.SetReadTimeout(10 * time.Second)
		p.send(t, "late")
		p.wantBuffered(t, "late")
		// A deadline bounds waits that each make progress.
		p.SetReadDeadline(p.sweep.Now() + 10*time.Millisecond)
		var err error
		for err == nil {
			p.Discard(len(p.Buffered()))
			_, _ = p.far.Write([]byte("x"))
			if err = p.Fill(); err == nil {
				err = p.Fill()
			}
		}
		if err != ErrTimeout {
			t.Fatalf("got %v", err)
		}
	})
}

// TestStaleExpiry lets waits end by data and by the sweep at the same time: no
// expiry may hit a later wait.
func TestStaleExpiry(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		for range 300 {
			p.SetReadTimeout(time.Nanosecond)
			go p.far.Write([]byte("x"))
			got := 0
			if err := p.Fill(); err == nil {
				got = len(p.Buffered())
			} else if err != ErrTimeout {
				t.Fatal(err)
			}
			p.SetReadTimeout(time.Minute)
			for got == 0 {
				if err := p.Fill(); err != nil {
					t.Fatalf("a wait of a minute ended with %v", err)
				}
				got = len(p.Buffered())
			}
			p.Discard(got)
		}
	})
}

func TestInterrupt(t *testing.T) {
	why := errors.New("why")
	overAll(t, func(t *testing.T, p *pair) {
		errc := make(chan error)
		go func() { errc <- p.Fill() }()
		p.InterruptRead(why)
		p.InterruptRead(errors.New("too late"))
		if err := <-errc; err != why {
			t.Fatalf("got %v", err)
		}
		if err := p.Fill(); err != why {
			t.Fatalf("not sticky: %v", err)
		}
		p.InterruptWrite(why)
		if _, err := p.Write([]byte("x")); err != why {
			t.Fatalf("write: %v", err)
		}
		p.ClearInterrupt()
		p.send(t, "data")
		p.wantBuffered(t, "data")
		p.Discard(4)
		if _, err := p.Write([]byte("back")); err != nil {
			t.Fatal(err)
		}
		p.wantFar(t, "back")
	})
}

func (p *pair) wantFar(t *testing.T, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(p.far, got); err != nil || string(got) != want {
		t.Fatalf("the other end got %q (%v), want %q", got, err, want)
	}
}

func TestWriteTimeout(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.SetWriteTimeout(20 * time.Millisecond)
		b := make([]byte, 1<<20)
		var err error
		for err == nil {
			_, err = p.Write(b)
		}
		if err != ErrTimeout {
			t.Fatalf("got %v", err)
		}
	})
}

func TestWritev(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		big := bytes.Repeat([]byte("b"), 3<<20)
		var wg sync.WaitGroup
		wg.Go(func() {
			if n, err := p.Writev([]byte("head"), big, []byte("tail")); err != nil || n != len(big)+8 {
				t.Errorf("wrote %d: %v", n, err)
			}
		})
		p.wantFar(t, "head"+string(big)+"tail")
		wg.Wait()
		if n := p.BytesWritten(); n != int64(len(big)+8) {
			t.Errorf("counted %d", n)
		}
	})
}

func TestExchange(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		var wg sync.WaitGroup
		wg.Go(func() {
			p.wantFar(t, "question!")
			p.send(t, "answer")
		})
		n, err := p.Exchange([]byte("question"), []byte("!"), nobody{})
		if n != 9 || err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		p.wantBuffered(t, "answer")
		p.Discard(6)
		wg.Wait()
		if err := p.Stray(); err != nil {
			t.Fatalf("a quiet connection is %v", err)
		}
	})
}

func TestExchangeLarge(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		big := bytes.Repeat([]byte("q"), 4<<20)
		var wg sync.WaitGroup
		wg.Go(func() {
			p.wantFar(t, "head"+string(big))
			p.send(t, "answer")
		})
		n, err := p.Exchange([]byte("head"), big, nobody{})
		if n != len(big)+4 || err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		p.wantBuffered(t, "answer")
		p.Discard(6)
		wg.Wait()
	})
}

func TestExchangeTimeout(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.SetReadTimeout(20 * time.Millisecond)
		if n, err := p.Exchange([]byte("q"), nil, nobody{}); n != 1 || err != ErrTimeout {
			t.Fatalf("sent %d: %v", n, err)
		}
		p.SetReadTimeout(time.Minute)
		p.send(t, "late")
		if err := p.FillIdle(); err != nil || string(p.Buffered()) == "" {
			t.Fatal(err)
		}
		p.Discard(len(p.Buffered()))
	})
}

// TestExchangeStray: bytes or an end that came before the request: nothing may
// be sent.
func TestExchangeStray(t *testing.T) {
	for _, name := range []string{"tcp", "unix", "tls server", "tls client", "tls memnet"} {
		for _, c := range []struct {
			what string
			do   func(net.Conn)
			want error
		}{
			{"bytes", func(c net.Conn) { c.Write([]byte("stray")) }, ErrStray},
			{"end", func(c net.Conn) { c.Close() }, io.EOF},
		} {
			t.Run(name+" "+c.what, func(t *testing.T) {
				near, far := kinds[name](t)
				defer far.Close()
				p := New(near, NewSweep(fast))
				defer p.Close()
				c.do(far)
				for p.Stray() == nil {
					runtime.Gosched()
				}
				if n, err := p.Exchange([]byte("q"), nil, nobody{}); n != 0 || err != c.want {
					t.Fatalf("sent %d: %v, want %v", n, err, c.want)
				}
			})
		}
	}
}

func TestHalfCloseSeenWithData(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		// The FIN comes with the data: the edge-triggered poller tells once.
		p.send(t, "last")
		p.far.(interface{ CloseWrite() error }).CloseWrite()
		p.wantBuffered(t, "last")
		p.Discard(4)
		p.SetReadTimeout(5 * time.Second)
		if err := p.FillIdle(); err != io.EOF {
			t.Fatalf("got %v, want EOF", err)
		}
	})
}

func TestWatch(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		gonec := make(chan struct{})
		p.Watch(func() { close(gonec) })
		if p.PeerClosed() {
			t.Fatal("closed too early")
		}
		p.StartWatch()
		p.far.(interface{ CloseWrite() error }).CloseWrite()
		select {
		case <-gonec:
		case <-time.After(5 * time.Second):
			t.Fatal("the end was not noticed")
		}
		p.StopWatch()
		if !p.PeerClosed() {
			t.Fatal("not closed")
		}
	})
}

func TestMinRate(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.SetMinRate(1000, 30*time.Millisecond)
		began := time.Now()
		var err error
		for err == nil { // far below the rate, and never silent for long
			p.far.Write([]byte("x"))
			if err = p.Fill(); err == nil {
				p.Discard(len(p.Buffered()))
				p.SetReadTimeout(2 * fast)
				if err = p.Fill(); err == ErrTimeout {
					err = nil
				}
			}
		}
		if err != ErrTooSlow {
			t.Fatalf("got %v", err)
		}
		if d := time.Since(began); d < 30*time.Millisecond {
			t.Errorf("cut within the grace, after %v", d)
		}
	})
}

// TestMinRateCredit: row V10: who was fast may pause: what came without a wait counts
// too.
func TestMinRateCredit(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.SetMinRate(1000, 30*time.Millisecond)
		p.SetReadTimeout(20 * fast)
		for range 4 {
			p.send(t, string(make([]byte, 2000)))
			for n := 0; n < 2000; n = len(p.Buffered()) {
				if err := p.Fill(); err != nil {
					t.Fatal(err)
				}
			}
			p.Discard(2000)
		}
		began := time.Now()
		if err := p.Fill(); err != ErrTimeout {
			t.Errorf("after %v: got %v, want the timeout", time.Since(began), err)
		}
	})
}

func TestMinWriteRate(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.SetMinWriteRate(1<<30, 30*time.Millisecond)
		b := make([]byte, 1<<20)
		var err error
		for err == nil {
			_, err = p.Write(b)
		}
		if err != ErrTooSlow {
			t.Fatalf("got %v", err)
		}
	})
}

func TestLingerClose(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.send(t, "unread input")
		p.Write([]byte("refused"))
		donec := make(chan struct{})
		go func() { p.LingerClose(1<<20, 5*time.Second); close(donec) }()
		p.send(t, "more")
		got, err := io.ReadAll(p.far)
		if string(got) != "refused" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		p.far.Close()
		<-donec
	})
}

func TestAbort(t *testing.T) {
	near, far := kinds["tcp"](t)
	defer far.Close()
	p := New(near, NewSweep(fast))
	p.Write([]byte("half"))
	p.Abort()
	if _, err := io.ReadAll(far); err == nil {
		t.Fatal("the end looks like a complete one")
	}
}

func TestDetach(t *testing.T) {
	overAll(t, func(t *testing.T, p *pair) {
		p.send(t, "unread")
		p.wantBuffered(t, "unread")
		nc, unread := p.Detach()
		if string(unread) != "unread" {
			t.Fatalf("got %q", unread)
		}
		p.send(t, "more")
		b := make([]byte, 4)
		if _, err := io.ReadFull(nc, b); err != nil || string(b) != "more" {
			t.Fatalf("%q %v", b, err)
		}
	})
}

func TestSplice(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for src := range kinds {
		for dst := range kinds {
			for _, n := range []int64{int64(len(data)), -1} {
				t.Run(src+" to "+dst, func(t *testing.T) { testSplice(t, src, dst, data, n) })
			}
		}
	}
}

func testSplice(t *testing.T, src, dst string, data []byte, n int64) {
	s := NewSweep(fast)
	sNear, sFar := kinds[src](t)
	dNear, dFar := kinds[dst](t)
	a, b := New(sNear, s), New(dNear, s)
	defer a.Close()
	defer b.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		sFar.Write(data)
		if n < 0 {
			sFar.Close()
		}
	})
	wg.Go(func() {
		_, moved, err := Splice(b, a, []byte("first"), n)
		if moved != int64(len(data)) || err != nil {
			t.Errorf("moved %d: %v", moved, err)
		}
		b.CloseWrite()
	})
	got, err := io.ReadAll(dFar)
	if err != nil || !bytes.Equal(got, append([]byte("first"), data...)) {
		t.Errorf("got %d bytes: %v", len(got), err)
	}
	wg.Wait()
	sFar.Close()
	dFar.Close()
	if a.BytesRead() != int64(len(data)) || b.BytesWritten() != int64(len(data)+5) {
		t.Errorf("counted %d and %d", a.BytesRead(), b.BytesWritten())
	}
}

func TestSpliceErrors(t *testing.T) {
	for name := range kinds {
		t.Run(name, func(t *testing.T) {
			s := NewSweep(fast)
			sNear, sFar := kinds[name](t)
			dNear, dFar := kinds[name](t)
			a, b := New(sNear, s), New(dNear, s)
			defer a.Close()
			defer b.Close()
			defer sFar.Close()
			defer dFar.Close()
			a.SetReadTimeout(20 * time.Millisecond)
			_, moved, err := Splice(b, a, nil, 10)
			var se *SpliceError
			if moved != 0 || !errors.As(err, &se) || !se.Read || !errors.Is(err, ErrTimeout) {
				t.Fatalf("stalled source: %d, %v", moved, err)
			}
			sFar.Write([]byte("12345"))
			sFar.Close()
			_, moved, err = Splice(b, a, nil, 10)
			if moved != 5 || !errors.As(err, &se) || !se.Read || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("short source: %d, %v", moved, err)
			}
		})
	}
}

func TestSpliceSlowSink(t *testing.T) {
	for name := range kinds {
		t.Run(name, func(t *testing.T) {
			s := NewSweep(fast)
			sNear, sFar := kinds[name](t)
			dNear, dFar := kinds[name](t)
			a, b := New(sNear, s), New(dNear, s)
			defer dFar.Close()
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					if _, err := sFar.Write(make([]byte, 1<<20)); err != nil {
						return
					}
				}
			})
			b.SetWriteTimeout(20 * time.Millisecond)
			taken, moved, err := Splice(b, a, nil, -1)
			if taken+int64(len(a.Buffered())) != a.BytesRead() || moved != b.BytesWritten() || (b.CanSplice() && taken == moved) {
				t.Errorf("took %d of %d, moved %d of %d", taken, a.BytesRead(), moved, b.BytesWritten())
			}
			var se *SpliceError
			if !errors.As(err, &se) || se.Read || !errors.Is(err, ErrTimeout) {
				t.Errorf("got %v", err)
			}
			a.Close()
			b.Close()
			sFar.Close()
			wg.Wait()
		})
	}
}

func TestPark(t *testing.T) {
	p, err := NewParker()
	if err != nil {
		return // only Linux has one
	}
	defer p.Close()
	s := NewSweep(fast)
	type woken struct {
		c   *Conn
		why WakeReason
	}
	wokenc := make(chan woken, 10)
	wake := func(c *Conn, why WakeReason) { wokenc <- woken{c, why} }
	want := func(c *Conn, why WakeReason) {
		t.Helper()
		select {
		case w := <-wokenc:
			if w.c != c || w.why != why {
				t.Fatalf("woken for %d, want %d", w.why, why)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("not woken")
		}
	}
	near, far := kinds["tcp"](t)
	c := New(near, s)
	defer c.Close()
	for range 3 {
		p.Park(c, 0, wake)
		far.Write([]byte("x"))
		want(c, WakeReadable)
		if err := c.FillIdle(); err != nil {
			t.Fatal(err)
		}
		c.Discard(1)
	}
	p.Park(c, s.Now()+10*time.Millisecond, wake)
	want(c, WakeTimeout)
	// After a timeout the connection is as good as before.
	p.Park(c, 0, wake)
	far.Write([]byte("y"))
	want(c, WakeReadable)
	if err := c.FillIdle(); err != nil {
		t.Fatal(err)
	}
	c.Discard(1)
	p.Park(c, 0, wake)
	p.Close()
	want(c, WakeShutdown)
	p.Park(c, 0, wake)
	want(c, WakeShutdown)
	far.Close()
}

func TestSweepStopsWithItsLastConn(t *testing.T) {
	s := NewSweep(fast)
	near, far := kinds["tcp"](t)
	defer far.Close()
	c := New(near, s)
	if s.timer == nil {
		t.Fatal("does not run")
	}
	c.Close()
	c.Close()
	if s.timer != nil || len(s.conns) != 0 {
		t.Fatal("runs on")
	}
}

func TestAllocsExchange(t *testing.T) {
	near, far := kinds["tcp"](t)
	defer far.Close()
	p := New(near, NewSweep(fast))
	defer p.Close()
	go func() {
		b := make([]byte, 8)
		for {
			if _, err := io.ReadFull(far, b); err != nil {
				return
			}
			far.Write(b)
		}
	}()
	q := []byte("question")
	p.SetReadTimeout(time.Minute)
	n := testing.AllocsPerRun(200, func() {
		if _, err := p.Exchange(q, nil, nobody{}); err != nil {
			t.Fatal(err)
		}
		p.Discard(len(p.Buffered()))
		p.ReleaseBuffer()
	})
	if n > 0 {
		t.Errorf("%v allocations per exchange", n)
	}
}
