package listen

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mustListen(t *testing.T, addr string, o Options) net.Listener {
	t.Helper()
	l, err := Listen(context.Background(), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// accepted returns the server's end of a connection.
func accepted(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

func option(t *testing.T, c any, level, opt int) int {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	v := 0
	_ = raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, opt) })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestOptions: row L3: what was set is seen on accepted sockets.
func TestOptions(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0", Options{
		ReusePort: true, FastOpen: 17, DSCP: 46, ReceiveBuffer: 50000, SendBuffer: 60000,
		KeepAlive: KeepAlive{Idle: 1500 * time.Millisecond, Interval: 3 * time.Second, Count: 4, UserTimeout: 5 * time.Second},
	})
	nc := accepted(t, l)
	for _, c := range []struct {
		name             string
		on               any
		level, opt, want int
	}{
		{"SO_REUSEPORT", l, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{"TCP_FASTOPEN", l, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 17},
		{"TCP_NODELAY", nc, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_KEEPALIVE", nc, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", nc, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2},
		{"TCP_KEEPINTVL", nc, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 3},
		{"TCP_KEEPCNT", nc, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		{"TCP_USER_TIMEOUT", nc, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 5000},
		{"IP_TOS", nc, unix.IPPROTO_IP, unix.IP_TOS, 46 << 2},
		{"SO_RCVBUF", nc, unix.SOL_SOCKET, unix.SO_RCVBUF, 100000}, // the kernel doubles it
		{"SO_SNDBUF", nc, unix.SOL_SOCKET, unix.SO_SNDBUF, 120000},
	} {
		if got := option(t, c.on, c.level, c.opt); got != c.want {
			t.Errorf("%s is %d, want %d", c.name, got, c.want)
		}
	}
	second := mustListen(t, l.Addr().String(), Options{ReusePort: true})
	if second.Addr().String() != l.Addr().String() {
		t.Error("the address is not shared")
	}
}

func TestDefaults(t *testing.T) {
	nc := accepted(t, mustListen(t, "127.0.0.1:0", Options{}))
	if option(t, nc, unix.IPPROTO_TCP, unix.TCP_NODELAY) != 1 || option(t, nc, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
		t.Error("NODELAY is off, or probes are on")
	}
}

// TestFamilies: row L1.
func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		addr   string
		only   bool
		v4, v6 bool
	}{
		{"127.0.0.1:0", false, true, false},
		{"[::1]:0", false, false, true},
		{"[::]:0", false, true, true},
		{"[::]:0", true, false, true},
		{":0", false, true, true},
	} {
		l := mustListen(t, c.addr, Options{IPv6Only: c.only})
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for host, want := range map[string]bool{"127.0.0.1": c.v4, "::1": c.v6} {
			nc, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if (err == nil) != want {
				t.Errorf("%s, IPv6Only %v: a connection to %s: %v", c.addr, c.only, host, err)
			}
			if err == nil {
				nc.Close()
			}
		}
	}
}

// TestUnix: row L2: mode, a stale file is removed, a live one refused.
func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := mustListen(t, "unix:"+path, Options{})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen(t.Context(), "unix:"+path, Options{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a live socket: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	mustListen(t, "unix:"+path, Options{Mode: 0o600}).Close()

	os.WriteFile(path, nil, 0o600)
	if _, err := Listen(t.Context(), "unix:"+path, Options{}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
}

func TestErrors(t *testing.T) {
	for addr, o := range map[string]Options{"nonsense": {}, "unix:": {}, "127.0.0.1:0": {DSCP: 64}} {
		if l, err := Listen(t.Context(), addr, o); err == nil {
			l.Close()
			t.Errorf("%s %+v was accepted", addr, o)
		}
	}
}

func congestion(t *testing.T, c any) string {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	_ = raw.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(name, "\x00")
}

// TestLoopbackCongestion: decision 0010: only a loopback address changes what
// the system chose, and accepted connections inherit it.
func TestLoopbackCongestion(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for addr, want := range map[string]string{"127.0.0.1:0": "reno", "[::1]:0": "reno", ":0": congestion(t, plain)} {
		if got := congestion(t, accepted(t, mustListen(t, addr, Options{}))); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
}
