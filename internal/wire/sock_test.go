package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
)

// record counts the writes below a TLS connection: one for each record.
type recordCounter struct {
	net.Conn
	n atomic.Int64
}

func (c *recordCounter) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

// TestOneRecord: what is given in pieces leaves in one record, if it fits.
func TestOneRecord(t *testing.T) {
	a, b := dialed(t, "tcp", "127.0.0.1:0")
	counter := &recordCounter{Conn: a}
	near, far := secured(t, counter, b)
	defer far.Close()
	p := New(near, NewSweep(fast))
	defer p.Close()
	before := counter.n.Load()
	text := strings.Repeat("x", 10<<10)
	if n, err := p.Writev([]byte("head"), []byte(text), []byte("end")); err != nil || n != len(text)+7 {
		t.Fatal(n, err)
	}
	if n := counter.n.Load() - before; n != 1 {
		t.Errorf("%d records", n)
	}
	got := make([]byte, len(text)+7)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "head"+text+"end" {
		t.Error(err)
	}
}

// TestCut: an end without an alert is told from one with it. RFC 9112, section
// 9.8.
func TestCut(t *testing.T) {
	for _, name := range []string{"tls server", "tls client", "tls portable", "tls memnet"} {
		t.Run(name, func(t *testing.T) {
			for _, said := range []bool{true, false} {
				near, far := kinds[name](t)
				p := New(near, NewSweep(fast))
				far.Write([]byte("all"))
				if said {
					far.Close()
				} else {
					far.(halfCloser).NetConn().Close()
				}
				err := p.Fill()
				for err == nil {
					p.Discard(len(p.Buffered()))
					err = p.Fill()
				}
				if !errors.Is(err, io.EOF) || (err == ErrCut) == said {
					t.Errorf("said %v: %v", said, err)
				}
				p.Close()
				far.Close()
			}
		})
	}
}

// TestTicketsAreNotStray: what crypto/tls takes for itself makes no stray byte,
// and a wait goes on over it.
func TestTicketsAreNotStray(t *testing.T) {
	for _, name := range []string{"tls client", "tls memnet"} {
		a, b := net.Conn(nil), net.Conn(nil)
		if name == "tls client" {
			a, b = dialed(t, "tcp", "127.0.0.1:0")
		} else {
			near, far := kinds["tls memnet"](t)
			a, b = near.(*tls.Conn).NetConn().(*Sock).Conn, far.(halfCloser).NetConn().(*Sock).Conn
		}
		far, near := secured(t, a, b) // the server sends tickets behind the handshake
		p := New(near, NewSweep(fast))
		for range 100 {
			if err := p.Stray(); err != nil {
				t.Fatal(name, err)
			}
			runtime.Gosched()
		}
		go far.Write([]byte("x"))
		if err := p.FillIdle(); err != nil || string(p.Buffered()) != "x" {
			t.Errorf("%s: %q, %v", name, p.Buffered(), err)
		}
		p.Close()
		far.Close()
	}
}

// TestStrayIsKept: bytes that Stray found are there for a Fill.
func TestStrayIsKept(t *testing.T) {
	for _, name := range []string{"tls server", "tls memnet"} {
		near, far := kinds[name](t)
		before := buf.Outstanding()
		p := New(near, NewSweep(fast))
		far.Write([]byte("request"))
		for p.Stray() == nil {
			runtime.Gosched()
		}
		if string(p.Buffered()) != "request" {
			t.Errorf("%s: %q", name, p.Buffered())
		}
		p.Close()
		far.Close()
		if n := buf.Outstanding(); n != before {
			t.Errorf("%s: %d buffers were not given back", name, n-before)
		}
	}
}

// TestCloseDoesNotWait: a client that does not read holds up nobody who closes.
func TestCloseDoesNotWait(t *testing.T) {
	near, far := kinds["tls server"](t)
	defer far.Close()
	p := New(near, NewSweep(fast))
	p.SetWriteTimeout(20 * time.Millisecond)
	var err error
	for err == nil {
		_, err = p.Write(make([]byte, 1<<20))
	}
	began := time.Now()
	p.Close()
	if d := time.Since(began); d > time.Second {
		t.Errorf("it took %v", d)
	}
}

// TestSlowReaderTLS: one write over TLS spans many waits, each with the timeout of
// its own.
func TestSlowReaderTLS(t *testing.T) {
	for _, name := range []string{"tls server", "tls portable"} {
		near, far := kinds[name](t)
		p := New(near, NewSweep(fast))
		p.SetWriteTimeout(200 * time.Millisecond)
		var wg sync.WaitGroup
		wg.Go(func() {
			b := make([]byte, 256<<10)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if _, err := io.ReadFull(far, b); err != nil {
					return
				}
			}
		})
		began := time.Now()
		if n, err := p.Write(make([]byte, 12<<20)); err != nil {
			t.Errorf("%s: %v after %d bytes and %v", name, err, n, time.Since(began))
		}
		p.Close()
		wg.Wait()
		far.Close()
	}
}

// TestParkTLS: a TLS connection that waits needs no goroutine either.
func TestParkTLS(t *testing.T) {
	p, err := NewParker()
	if err != nil {
		return // only Linux has one
	}
	defer p.Close()
	near, far := kinds["tls server"](t)
	defer far.Close()
	c := New(near, NewSweep(fast))
	defer c.Close()
	if !c.CanPark() {
		t.Fatal("it cannot be parked")
	}
	wokenc := make(chan WakeReason, 1)
	for range 3 {
		p.Park(c, 0, func(_ *Conn, why WakeReason) { wokenc <- why })
		far.Write([]byte("x"))
		if why := <-wokenc; why != WakeReadable {
			t.Fatal(why)
		}
		if err := c.FillIdle(); err != nil {
			t.Fatal(err)
		}
		c.Discard(1)
	}
}

// TestTurns: no more handshakes compute at a time than there are turns, and one
// whose other end is silent holds none.
func TestTurns(t *testing.T) {
	silent, far := dialed(t, "tcp", "127.0.0.1:0")
	defer far.Close()
	var wg sync.WaitGroup
	for range 2 * cap(turns) {
		a, b := dialed(t, "tcp", "127.0.0.1:0")
		defer b.Close()
		s := NewSock(a)
		wg.Go(func() { _ = s.Handshake(t.Context(), tls.Server(s, theCert())) })
		defer a.Close()
	}
	_ = silent.Close()
	for range 10 {
		a, b := dialed(t, "tcp", "127.0.0.1:0")
		near, other := secured(t, a, b)
		near.Close()
		other.Close()
	}
	if n := len(turns); n > cap(turns) {
		t.Errorf("%d turns are taken", n)
	}
	// A callback that waits for all turns at once would wait for its own.
	s := NewSock(nil)
	s.shaking = true
	takeTurn()
	s.Aside(func() {
		for range cap(turns) {
			takeTurn()
		}
		for range cap(turns) {
			giveTurn()
		}
	})
	giveTurn()
	t.Cleanup(wg.Wait)
}
