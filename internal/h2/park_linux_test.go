package h2

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/memnet"
	"github.com/cirqueproxy/cirque/internal/testcert"
	"github.com/cirqueproxy/cirque/internal/wire"
)

// parkBed is a server's connection over a socket, that is parked soon.
type parkBed struct {
	*bed
	nc     net.Conn
	parked chan struct{}
	ended  chan error
	parker *wire.Parker
	user   atomic.Pointer[func(*Stream)] // sees each stream before it is served
}

func newParkBed(t *testing.T, idle time.Duration, secure ...*testcert.Cert) *parkBed {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if len(secure) > 0 {
		sock := wire.NewSock(near)
		tc := tls.Server(sock, &tls.Config{Certificates: []tls.Certificate{*secure[0].TLS()}})
		far = tls.Client(far, &tls.Config{InsecureSkipVerify: true})
		shaken := make(chan error, 1)
		go func() { shaken <- far.(*tls.Conn).Handshake() }()
		if err := errors.Join(sock.Handshake(t.Context(), tc), <-shaken); err != nil {
			t.Fatal(err)
		}
		near = tc
	}
	parker, err := wire.NewParker()
	if err != nil {
		t.Fatal(err)
	}
	cfg := *testConfig
	p := &parkBed{}
	cfg.Handler = handlerFunc(func(st *Stream) {
		if f := p.user.Load(); f != nil {
			(*f)(st)
		}
		echo(st)
	})
	cfg.StreamWindow, cfg.ConnWindow, cfg.MaxWindow = 64<<10, 256<<10, 1<<20
	cfg.Windows = NewWindowBudget(8 << 20)
	cfg.HeadTimeout, cfg.IdleTimeout, cfg.WriteTimeout = 10*time.Second, idle, 10*time.Second
	sweep := wire.NewSweep(2 * time.Millisecond)
	_, unused := memnet.Pipe()
	p.bed, p.nc, p.parker = newBed(t, unused), far, parker
	p.parked, p.ended = make(chan struct{}, 100), make(chan error, 1)
	p.fr = http2.NewFramer(far, far)
	p.fr.ReadMetaHeaders = newBed(t, unused).fr.ReadMetaHeaders
	p.conn = New(wire.New(near, sweep), sweep, &cfg, h2frame.Server)
	go p.conn.ServeParking(Parking{
		Parker: parker, After: 5 * time.Millisecond,
		Parked: func() { p.parked <- struct{}{} }, Ended: func(err error) { p.ended <- err },
	})
	t.Cleanup(func() {
		far.Close()
		p.conn.Close(io.ErrClosedPipe)
		<-p.conn.Done()
		parker.Close()
	})
	if _, err := io.WriteString(far, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	p.must(p.fr.WriteSettings())
	p.must(p.fr.WriteSettingsAck())
	for range 3 {
		p.frame()
	}
	<-p.parked
	return p
}

// readers returns how many goroutines are in this package's connections.
func readers() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "h2.(*Conn).run(")
}

// TestParked: an idle connection has no goroutine, serves the next request, and ends
// in each way that an idle one may end.
func TestParked(t *testing.T) {
	requests := func(t *testing.T, p *parkBed) {
		for i := range 20 {
			for readers() > 0 { // it has said that it will
				runtime.Gosched()
			}
			if !p.conn.Parked() {
				t.Fatal("the connection is not parked")
			}
			p.get(uint32(2*i + 1))
			if f := p.frame(); !strings.HasSuffix(f, ":status=200") {
				t.Fatal(f)
			}
			p.frame()
			<-p.parked
		}
		p.must(p.fr.WritePing(false, [8]byte{}))
		p.want("PING ACK")
		<-p.parked
	}
	t.Run("requests", func(t *testing.T) { requests(t, newParkBed(t, time.Minute)) })
	t.Run("requests over TLS", func(t *testing.T) {
		requests(t, newParkBed(t, time.Minute, testcert.NewCA(t, "ca").Server("a.example")))
	})
	t.Run("idle timeout", func(t *testing.T) {
		p := newParkBed(t, 100*time.Millisecond)
		p.want("GOAWAY 0 NO_ERROR")
		_ = p.nc.(*net.TCPConn).CloseWrite()
		if err := <-p.ended; !errors.Is(err, ErrIdle) {
			t.Errorf("the connection ended with %v", err)
		}
	})
	t.Run("drain", func(t *testing.T) {
		p := newParkBed(t, time.Minute)
		p.conn.Drain()
		p.want("GOAWAY 2147483647 NO_ERROR")
		p.want("PING")
		p.get(1) // it crossed
		if f := p.frame(); !strings.HasSuffix(f, ":status=200") {
			t.Fatal(f)
		}
		p.frame()
		data := [8]byte{}
		binary.BigEndian.PutUint64(data[:], pingDrain)
		p.must(p.fr.WritePing(true, data))
		p.want("GOAWAY 1 NO_ERROR")
		_ = p.nc.(*net.TCPConn).CloseWrite()
		if err := <-p.ended; !errors.Is(err, ErrClosed) {
			t.Errorf("the connection ended with %v", err)
		}
	})
	t.Run("close", func(t *testing.T) {
		p := newParkBed(t, time.Minute)
		why := errors.New("why")
		p.conn.Close(why)
		if err := <-p.ended; !errors.Is(err, why) {
			t.Errorf("the connection ended with %v", err)
		}
	})
	t.Run("the client closes", func(t *testing.T) {
		p := newParkBed(t, time.Minute)
		p.nc.Close()
		if err := <-p.ended; !errors.Is(err, io.EOF) {
			t.Errorf("the connection ended with %v", err)
		}
	})
	t.Run("half a frame", func(t *testing.T) {
		p := newParkBed(t, time.Minute)
		p.get(1)
		p.frame()
		p.frame()
		if _, err := p.nc.Write([]byte{0, 0, 9}); err != nil {
			t.Fatal(err)
		}
		_ = p.nc.(*net.TCPConn).CloseWrite()
		if err := <-p.ended; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the connection ended with %v", err)
		}
	})
	t.Run("the parker closes", func(t *testing.T) {
		p := newParkBed(t, time.Minute)
		p.parker.Close()
		p.want("GOAWAY 2147483647 NO_ERROR")
		p.nc.Close()
		<-p.ended
	})
}

// TestParkedMemory: what a parked connection holds is little, and nothing of the
// requests that it served.
func TestParkedMemory(t *testing.T) {
	p := newParkBed(t, time.Minute)
	gone := make(chan struct{})
	user := func(st *Stream) {
		session := new([1 << 10]byte)
		runtime.AddCleanup(session, func(struct{}) { close(gone) }, struct{}{})
		st.User = session
	}
	p.user.Store(&user)
	p.get(1)
	p.frame()
	p.frame()
	<-p.parked
	for {
		runtime.GC()
		select {
		case <-gone:
			return
		default: // the test's time limit ends this
			runtime.Gosched()
		}
	}
}
