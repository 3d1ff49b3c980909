package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cirqueproxy/cirque"
)

// serveUntilSignal serves on l until SIGTERM, which lets running requests
// finish within grace, or SIGINT, which ends at once. A second signal ends at
// once too.
func serveUntilSignal(ctx context.Context, srv *cirque.Server, l net.Listener, grace time.Duration) error {
	sigc := make(chan os.Signal, 2)
	signal.Notify(sigc, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(sigc)
	servedc := make(chan error, 1)
	go func() { servedc <- srv.Serve(l) }()
	select {
	case err := <-servedc:
		return err
	case sig := <-sigc:
		if sig == syscall.SIGINT {
			return srv.Close()
		}
	}
	return drain(ctx, srv, sigc, grace)
}

// drain ends srv when its running requests have, at the latest after grace.
func drain(ctx context.Context, srv *cirque.Server, sigc <-chan os.Signal, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	donec := make(chan error, 1)
	go func() { donec <- srv.Shutdown(ctx) }()
	select {
	case err := <-donec:
		if errors.Is(err, context.DeadlineExceeded) {
			fmt.Fprintf(os.Stderr, "requests were still running after %s and were cut\n", grace)
			_ = srv.Close()
			return exitCode(1)
		}
		return err
	case <-sigc:
		return exitCode(1)
	}
}
