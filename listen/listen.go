// Package listen binds the sockets that a Server accepts on, with the options
// that an operator may want on them. It does not accept, and knows no protocol.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options are a socket's. Its zero value is what an expert would choose.
// Accepted TCP connections always have TCP_NODELAY; they inherit the other
// options from the listening socket, so that none costs a system call per
// connection.
type Options struct {
	// Mode is the mode of a Unix socket's file. If zero, 0660.
	Mode fs.FileMode
	// IPv6Only makes a socket on [::] take IPv6 alone. Otherwise it takes IPv4
	// too.
	IPv6Only bool
	// ReusePort lets several sockets, also of several processes, share the
	// address; the kernel spreads connections over them. Linux only.
	ReusePort bool
	// FastOpen is how many connections with data in their SYN may wait. If zero,
	// TCP Fast Open is off. Linux only.
	FastOpen int
	// KeepAlive are the probes on silent connections. If zero, there are none:
	// timeouts find what probes would.
	KeepAlive KeepAlive
	// DSCP is the class of the packets, 0 to 63.
	DSCP int
	// ReceiveBuffer and SendBuffer are the kernel's buffers of a connection in
	// bytes. If zero, the kernel sizes them as it sees need.
	ReceiveBuffer, SendBuffer int
}

// KeepAlive says when a silent connection is probed. Probes are on if Idle is
// positive.
type KeepAlive struct {
	Idle        time.Duration // silence before the first probe; whole seconds
	Interval    time.Duration // between probes; if zero, 15 s
	Count       int           // unanswered probes that end the connection; if zero, 9
	UserTimeout time.Duration // how long sent data may stay unacknowledged; if zero, the kernel's
}

// Listen binds an address: host:port, :port, or unix:/path. The file of a Unix
// socket that nobody listens on any more is removed; anything else at the path
// is an error.
func Listen(ctx context.Context, address string, o Options) (net.Listener, error) {
	if o.DSCP < 0 || o.DSCP > 63 {
		return nil, fmt.Errorf("the DSCP %d is not between 0 and 63", o.DSCP)
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return listenUnix(ctx, path, o)
	}
	network := "tcp"
	if o.IPv6Only {
		network = "tcp6"
	}
	lc := net.ListenConfig{
		KeepAlive: -1, // set on the listening socket instead
		Control: func(network, address string, c syscall.RawConn) error {
			var err error
			cerr := c.Control(func(fd uintptr) { err = setOptions(fd, network, address, o) })
			return errors.Join(cerr, err)
		},
	}
	return lc.Listen(ctx, network, address)
}

// umaskMu: the umask belongs to the process.
var umaskMu sync.Mutex

func listenUnix(ctx context.Context, path string, o Options) (net.Listener, error) {
	if path == "" {
		return nil, errors.New("the address unix: has no path")
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	mode := o.Mode
	if mode == 0 {
		mode = 0o660
	}
	// The file must not be open to more than its mode says even for the moment
	// between bind and a chmod.
	umaskMu.Lock()
	old := syscall.Umask(int(0o777 &^ mode.Perm()))
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	syscall.Umask(old)
	umaskMu.Unlock()
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, mode.Perm())
}

// removeStale removes the socket file of a process that is gone. What answers,
// and what is no socket, stays and is an error.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("unix:%s is there and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("another process listens on unix:%s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("unix:%s is there and it is not certain that nobody uses it: %w", path, err)
	}
	return os.Remove(path)
}
