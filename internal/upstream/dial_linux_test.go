package upstream

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cirqueproxy/cirque/internal/wire"
)

// TestLoopbackCongestion: decision 0010, for connections to origins.
func TestLoopbackCongestion(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := NewPool(Config{Sweep: wire.NewSweep(0)})
	nc, err := p.cfg.Dial(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	_ = raw.Control(func(fd uintptr) { name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) })
	if name = strings.TrimRight(name, "\x00"); err != nil || name != "reno" {
		t.Errorf("the congestion control is %q, %v", name, err)
	}
}
