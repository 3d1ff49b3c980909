package cirque_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

// stalledOrigin accepts and reads nothing.
func stalledOrigin(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				// Hold the connection until the proxy ends it.
				_ = c.(*net.TCPConn).SetReadBuffer(4096)
				<-t.Context().Done()
				c.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// endless is a body that never ends by itself.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestUpstreamWriteTimeout: row U4: a stalled upload fails.
func TestUpstreamWriteTimeout(t *testing.T) {
	b := newBed(t, http.NotFoundHandler())
	b.peer = &cirque.Peer{Addr: stalledOrigin(t), Timeouts: cirque.Timeouts{Write: 100 * time.Millisecond}}
	c := b.client()
	resp, err := c.Post("http://"+b.addr+"/", "", endless{})
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != 504 {
			t.Errorf("got %s", resp.Status)
		}
	}
	e := b.done()
	if e == nil || e.Reason != reason.UpstreamWriteTimeout || !e.Sent {
		t.Errorf("ended with %v", e)
	}
}

// TestConnectTimeout: row U1: a black hole fails in that time, with 504.
func TestConnectTimeout(t *testing.T) {
	b := newBed(t, http.NotFoundHandler())
	b.peer = &cirque.Peer{Addr: "192.0.2.1:80", Timeouts: cirque.Timeouts{Connect: 50 * time.Millisecond},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	b.proxy.Retry.Attempts = 1
	b.want(b.client(), "GET", "/", "", 504, "connect_timeout")
	if e := b.done(); e == nil || e.Reason != reason.ConnectTimeout || e.Sent {
		t.Errorf("ended with %v", e)
	}
}

// TestClientLeavesDuringConnect: nobody waits for a connect on behalf of a client
// that left.
func TestClientLeavesDuringConnect(t *testing.T) {
	dialing := make(chan struct{})
	b := newBed(t, http.NotFoundHandler())
	b.peer = &cirque.Peer{Addr: "192.0.2.1:80", Timeouts: cirque.Timeouts{Connect: time.Minute},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(dialing)
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	c, _ := b.raw()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-dialing
	c.Close()
	if e := b.done(); e == nil || e.Reason != reason.ClientGone {
		t.Errorf("ended with %v", e)
	}
}

// TestSlowReader: row V10: a client that does not read is cut.
func TestSlowReader(t *testing.T) {
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, endless{})
	}))
	b.srv.WriteTimeout = 100 * time.Millisecond
	c, r := b.raw()
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Fatal(line, err)
	}
	if e := b.done(); e == nil || e.Reason != reason.ClientWriteStop {
		t.Errorf("ended with %v", e)
	}
}

// TestSlowUpload: row V10: a body that comes too slowly is cut, one that is slow
// because the origin is slow is not.
func TestSlowUpload(t *testing.T) {
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	}))
	b.srv.MinBodyRate, b.srv.MinBodyGrace = 1<<20, 200*time.Millisecond
	c, r := b.raw()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	})
	if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 408") {
		t.Errorf("got %q, %v", line, err)
	}
	if e := b.done(); e == nil || e.Reason != reason.ClientTooSlow {
		t.Errorf("ended with %v", e)
	}
	close(stop)
	wg.Wait()
}

// TestConnectedSeesTheConnection: row X10.
func TestConnectedSeesTheConnection(t *testing.T) {
	type seen struct {
		reused bool
		remote string
	}
	seenc := make(chan seen, 2)
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "f", Connected: func(s *cirque.Session) error {
		local, remote := s.UpstreamAddr()
		if local == nil || remote == nil {
			t.Error("no addresses")
			return nil
		}
		seenc <- seen{s.Attempt().Reused, remote.String()}
		return nil
	}})
	c := b.client()
	for i := range 2 {
		b.want(c, "GET", "/", "", 200, "hello")
		if got := <-seenc; got.reused != (i == 1) || got.remote != b.peer.Addr {
			t.Errorf("request %d: %+v", i+1, got)
		}
	}
}

// TestThrottle: row X9: a body hook may take its time, which slows that response
// alone.
func TestThrottle(t *testing.T) {
	release := make(chan struct{})
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "f", ResponseBody: func(s *cirque.Session, p []byte, _ bool) ([]byte, error) {
		if s.Request().Path() == "/slow" {
			<-release
		}
		return p, nil
	}})
	slow := b.client()
	donec := make(chan struct{})
	go func() { defer close(donec); b.want(slow, "GET", "/slow", "", 200, "hello") }()
	b.want(b.client(), "GET", "/fast", "", 200, "hello")
	close(release)
	<-donec
}

// TestByteCounters: row X18.
func TestByteCounters(t *testing.T) {
	type counts struct{ received, sent, upSent, upReceived int64 }
	gotc := make(chan counts, 1)
	b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, strings.Repeat("y", 100000))
	}), cirque.Filter{Name: "f", Done: func(s *cirque.Session, _ error) {
		a := s.Attempt()
		gotc <- counts{s.BytesReceived(), s.BytesSent(), a.Sent, a.Received}
	}})
	b.want(b.client(), "POST", "/", strings.Repeat("x", 300000), 200, "yyy")
	got := <-gotc
	if got.received != 300000 || got.sent != 100000 || got.upReceived != 100000 || got.upSent < 300000 || got.upSent > 301000 {
		t.Errorf("%+v", got)
	}
}
