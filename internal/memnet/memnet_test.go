package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func wantRead(t *testing.T, c *Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b[:n], err, want)
	}
}

func wantReadErr(t *testing.T, c *Conn, want error) {
	t.Helper()
	if n, err := c.Read(make([]byte, 8)); n != 0 || !errors.Is(err, want) {
		t.Fatalf("read %d bytes, %v; want %v", n, err, want)
	}
}

func mustWrite(t *testing.T, c *Conn, s string) {
	t.Helper()
	if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("wrote %d of %d bytes, %v", n, len(s), err)
	}
}

// TestEnds shows what each way to end a connection looks like from the other
// end.
func TestEnds(t *testing.T) {
	cases := []struct {
		name string
		// end ends the connection from a; toA was written by b before.
		toA, toB   string
		end        func(a *Conn) error
		wantB      error // after toB was read
		peerClosed bool
	}{
		{"half-close", "", "hello", (*Conn).CloseWrite, io.EOF, true},
		{"close", "", "hello", (*Conn).Close, io.EOF, true},
		{"close with unread input resets", "x", "hello", (*Conn).Close, syscall.ECONNRESET, true},
		{"reset", "", "hello", (*Conn).Reset, syscall.ECONNRESET, true},
		{"nothing sent", "", "", (*Conn).Close, io.EOF, true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a, b := Pipe()
			defer b.Close()
			mustWrite(t, b, tc.toA)
			mustWrite(t, a, tc.toB)
			if b.PeerClosed() {
				t.Error("PeerClosed before the end")
			}
			if err := tc.end(a); err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			if b.PeerClosed() != tc.peerClosed {
				t.Errorf("PeerClosed = %v", b.PeerClosed())
			}
			if err := b.Stray(); tc.toB != "" && err != errStray {
				t.Errorf("Stray with unread bytes = %v", err)
			}
			wantRead(t, b, tc.toB)
			if err := b.Stray(); !errors.Is(err, tc.wantB) {
				t.Errorf("Stray = %v, want %v", err, tc.wantB)
			}
			wantReadErr(t, b, tc.wantB)
			wantReadErr(t, b, tc.wantB)
		})
	}
}

func TestHalfCloseLeavesTheOtherDirection(t *testing.T) {
	a, b := Pipe()
	defer a.Close()
	defer b.Close()
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	wantReadErr(t, b, io.EOF)
	mustWrite(t, b, "still here")
	wantRead(t, a, "still here")
}

func TestWriteToAClosedEndVanishesAndResets(t *testing.T) {
	a, b := Pipe()
	mustWrite(t, b, "last words")
	wantRead(t, a, "last")
	b.Close()
	defer a.Close()
	mustWrite(t, a, "lost")
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("second write: %v", err)
	}
	wantRead(t, a, " words")
}

func TestClosedEnd(t *testing.T) {
	a, b := Pipe()
	defer b.Close()
	a.Close()
	wantReadErr(t, a, net.ErrClosed)
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	for name, err := range map[string]error{"Close": a.Close(), "Reset": a.Reset(), "CloseWrite": a.CloseWrite(),
		"SetDeadline": a.SetDeadline(time.Now()), "Stray": a.Stray()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBlockedWaitsEnd has a reader or a writer wait, and ends the wait.
func TestBlockedWaitsEnd(t *testing.T) {
	cases := []struct {
		name  string
		write bool
		act   func(a, b *Conn)
		want  error
	}{
		{"read, bytes", false, func(_, b *Conn) { _, _ = b.Write([]byte("x")) }, nil},
		{"read, the other closes", false, func(_, b *Conn) { b.Close() }, io.EOF},
		{"read, the other half-closes", false, func(_, b *Conn) { _ = b.CloseWrite() }, io.EOF},
		{"read, reset", false, func(_, b *Conn) { _ = b.Reset() }, syscall.ECONNRESET},
		{"read, own close", false, func(a, _ *Conn) { a.Close() }, net.ErrClosed},
		{"read, deadline set", false, func(a, _ *Conn) { _ = a.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"write, room", true, func(_, b *Conn) { _, _ = b.Read(make([]byte, 4)) }, nil},
		{"write, the other closes", true, func(_, b *Conn) { b.Close() }, syscall.ECONNRESET},
		{"write, reset", true, func(_, b *Conn) { _ = b.Reset() }, syscall.ECONNRESET},
		{"write, own close", true, func(a, _ *Conn) { a.Close() }, net.ErrClosed},
		{"write, own half-close", true, func(a, _ *Conn) { _ = a.CloseWrite() }, syscall.EPIPE},
		{"write, deadline set", true, func(a, _ *Conn) { _ = a.SetWriteDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"write, larger buffer", true, func(a, _ *Conn) { a.SetBuffer(100) }, nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := Pipe()
				defer a.Close()
				defer b.Close()
				a.SetBuffer(4)
				var err error
				donec := make(chan struct{})
				go func() {
					defer close(donec)
					if tc.write {
						_, err = a.Write([]byte("12345678"))
					} else {
						_, err = a.Read(make([]byte, 1))
					}
				}()
				synctest.Wait()
				select {
				case <-donec:
					t.Fatalf("did not wait: %v", err)
				default:
				}
				tc.act(a, b)
				<-donec
				if !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
			})
		})
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		defer a.Close()
		defer b.Close()
		began := time.Now()
		_ = a.SetReadDeadline(began.Add(time.Minute))
		_ = a.SetReadDeadline(began.Add(3 * time.Second))
		wantReadErr(t, a, os.ErrDeadlineExceeded)
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("waited %v", d)
		}
		var ne net.Error
		if _, err := a.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("the error is no timeout: %v", err)
		}
		_ = a.SetDeadline(time.Time{})
		mustWrite(t, b, "late")
		wantRead(t, a, "late")
		// A deadline that was taken back must not end a later wait.
		_ = a.SetReadDeadline(time.Now().Add(time.Second))
		_ = a.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			_, _ = b.Write([]byte("x"))
		}()
		wantRead(t, a, "x")
		a.SetBuffer(1)
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := a.Write([]byte("ab")); n != 1 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write = %d, %v", n, err)
		}
	})
}

func TestChunk(t *testing.T) {
	a, b := Pipe()
	defer a.Close()
	defer b.Close()
	a.SetChunk(3)
	mustWrite(t, a, "12345678")
	for _, want := range []string{"123", "456", "78"} {
		p := make([]byte, 100)
		if n, err := b.Read(p); err != nil || string(p[:n]) != want {
			t.Fatalf("read %q, %v; want %q", p[:n], err, want)
		}
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		defer a.Close()
		defer b.Close()
		began := time.Now()
		a.SetDelay(time.Second)
		mustWrite(t, a, "one")
		time.Sleep(500 * time.Millisecond)
		a.SetDelay(0) // nothing overtakes
		mustWrite(t, a, "two")
		_ = a.CloseWrite()
		if err := b.Stray(); err != nil || b.PeerClosed() {
			t.Errorf("before it arrived: Stray %v, PeerClosed %v", err, b.PeerClosed())
		}
		wantRead(t, b, "onetwo")
		if d := time.Since(began); d != time.Second {
			t.Errorf("arrived after %v", d)
		}
		wantReadErr(t, b, io.EOF)
		// What is on its way is lost by a reset.
		b.SetDelay(time.Second)
		mustWrite(t, b, "lost")
		_ = b.Reset()
		wantReadErr(t, a, syscall.ECONNRESET)
	})
}

// TestBothWays moves random data both ways at once through small buffers.
func TestBothWays(t *testing.T) {
	a, b := Pipe()
	a.SetBuffer(100)
	b.SetBuffer(37)
	b.SetChunk(5)
	data := map[*Conn][]byte{a: make([]byte, 20_000), b: make([]byte, 20_000)}
	rnd := rand.NewChaCha8([32]byte{1})
	var wg sync.WaitGroup
	for c, d := range data {
		_, _ = rnd.Read(d)
		wg.Go(func() {
			for rest := d; len(rest) > 0; {
				n := min(len(rest), 333)
				if _, err := c.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			_ = c.CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(c.other)
			if err != nil || !bytes.Equal(got, d) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	a.Close()
	b.Close()
}

// RFC 5737, section 3: the addresses are of the blocks for documentation.
func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		l.Setup(func(client, _ *Conn) { client.SetChunk(1) })
		go func() {
			time.Sleep(time.Second)
			c, err := l.Dial(context.Background(), "tcp", "whatever:1")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = c.Write([]byte("hi"))
		}()
		nc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p := make([]byte, 10)
		if n, _ := nc.Read(p); n != 1 {
			t.Errorf("Setup was not used: read %d bytes", n)
		}
		if l.Dialed() != 1 || l.Open() != 1 {
			t.Errorf("dialed %d, open %d", l.Dialed(), l.Open())
		}
		if !strings.HasPrefix(nc.RemoteAddr().String(), "198.51.100.1:") || nc.LocalAddr() != l.Addr() {
			t.Errorf("addresses %v, %v", nc.RemoteAddr(), nc.LocalAddr())
		}
		nc.Close()
		if l.Open() != 0 {
			t.Errorf("open %d", l.Open())
		}
	})
}

func TestWaitClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		defer l.Close()
		c, err := l.Connect()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if n := l.WaitClosed(time.Second); n != 2 || time.Since(began) != time.Second {
			t.Errorf("%d ends open after %v", n, time.Since(began))
		}
		go func() {
			time.Sleep(time.Second)
			c.Close()
			l.Close() // resets the end that nobody accepted
		}()
		if n := l.WaitClosed(time.Minute); n != 0 || time.Since(began) != 2*time.Second {
			t.Errorf("%d ends open after %v", n, time.Since(began))
		}
	})
}

func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		waiting, err := l.Connect()
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		wantReadErr(t, waiting, syscall.ECONNRESET)
		if _, err := l.Connect(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		l = Listen()
		go func() {
			time.Sleep(time.Second)
			l.Close()
		}()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept that waited: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := l.Dial(ctx, "", ""); !errors.Is(err, context.Canceled) {
			t.Errorf("dial with an ended context: %v", err)
		}
	})
}
