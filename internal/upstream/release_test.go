package upstream

import (
	"bufio"
	"net"
	"runtime"
	"testing"
	"weak"

	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
)

// TestReleaseForgets: an idle connection keeps nothing of its last session
// alive.
func TestReleaseForgets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		r := bufio.NewReader(nc)
		for line := ""; line != "\r\n" && err == nil; {
			line, err = r.ReadString('\n')
		}
		_, _ = nc.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
		_, _ = r.ReadByte() // until the pool closes
	}()
	limits := h1.Limits{HeadBytes: 1 << 16, Fields: 100, TargetBytes: 1 << 14}
	p := NewPool(Config{Sweep: wire.NewSweep(0)})
	defer p.Close()
	target := &Target{Network: "tcp", Address: l.Addr().String(), Key: "a", Limits: limits}
	resp := weak.Make(exchangeOn(t, p, target))
	if p.Stats().Idle != 1 {
		t.Fatalf("the connection is not in the pool: %+v", p.Stats())
	}
	runtime.GC()
	if resp.Value() != nil {
		t.Error("the response is still reachable")
	}
}

// exchangeOn makes one exchange and gives the connection back.
func exchangeOn(t *testing.T, p *Pool, target *Target) *message.Response {
	t.Helper()
	req, resp := new(message.Request), new(message.Response)
	if err := h1.ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), &target.Limits, &h1.RequestRules{}, req, &h1.RequestMeta{}); err != nil {
		t.Fatal(err)
	}
	u, _, err := p.Get(p.Entry(target.Key), target, Want{})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Send(req, nil, true); err != nil {
		t.Fatal(err)
	}
	if err := u.ReadHead(resp); err != nil {
		t.Fatal(err)
	}
	if b, last, err := u.ReadBody(); string(b) != "ok" || !last || err != nil {
		t.Fatalf("%q, %v, %v", b, last, err)
	}
	u.Release()
	return resp
}
