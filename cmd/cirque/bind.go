package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// namedListener is a listener that tells its server what the configuration
// calls it.
type namedListener struct {
	net.Listener
	name string
}

// Name makes cirque.Server say it in Session.Listener.
func (l namedListener) Name() string { return l.name }

// bind listens on host:port, :port or unix:/path.
func bind(address string) (net.Listener, error) {
	// Keep-alive probes cost four system calls per connection and find nothing
	// that the timeouts do not.
	lc := net.ListenConfig{KeepAlive: -1}
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return lc.Listen(context.Background(), "tcp", address)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The file must not be open to others even for the moment between bind and
	// a chmod, so the process creates it with the mode 0777 &^ 0117 = 0660.
	old := syscall.Umask(0o117)
	defer syscall.Umask(old)
	return lc.Listen(context.Background(), "unix", path)
}

// removeStale removes the socket file of a process that is gone. What answers,
// and what is no socket, stays and is an error.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
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
