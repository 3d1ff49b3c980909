package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/listen"
)

// service is a server and the socket that it serves.
type service struct {
	srv *cirque.Server
	l   net.Listener
	tls *listen.TLS // nil: plain
}

func (s service) serve() error {
	if s.tls != nil {
		return s.srv.ServeTLS(s.l, s.tls)
	}
	return s.srv.Serve(s.l)
}

// serveUntilSignal is serveAll for one server.
func serveUntilSignal(ctx context.Context, srv *cirque.Server, l net.Listener, grace time.Duration) error {
	return serveAll(ctx, catchSignals(), []service{{srv: srv, l: l}}, grace, nil)
}

// catchSignals begins to collect the signals that end the process. It stays so
// till the process ends: a late one must not kill it in the middle of its last
// lines.
func catchSignals() <-chan os.Signal {
	sigc := make(chan os.Signal, 2)
	signal.Notify(sigc, syscall.SIGTERM, syscall.SIGINT)
	return sigc
}

// serveAll serves until SIGTERM, which lets running requests finish within
// grace, or SIGINT, which ends at once. A second signal ends at once too.
// Draining, if not nil, is called when no new requests are taken any more. A
// server that fails ends all.
func serveAll(ctx context.Context, sigc <-chan os.Signal, services []service, grace time.Duration, draining func()) error {
	failedc := make(chan error, len(services))
	var running sync.WaitGroup
	for _, s := range services {
		running.Go(func() {
			if err := s.serve(); !errors.Is(err, cirque.ErrServerClosed) {
				failedc <- fmt.Errorf("%s: %w", s.l.Addr(), err)
			}
		})
	}
	// Serve has closed its socket when it returns, which for unix removes the
	// file: the process ends after that.
	defer running.Wait()
	select {
	case err := <-failedc:
		closeAll(services)
		return err
	case <-ctx.Done():
		closeAll(services)
		return ctx.Err()
	case sig := <-sigc:
		if sig == syscall.SIGINT {
			closeAll(services)
			return nil
		}
	}
	if draining != nil {
		draining()
	}
	return drain(ctx, services, sigc, grace)
}

// drain ends all when their running requests have, at the latest after grace.
func drain(ctx context.Context, services []service, sigc <-chan os.Signal, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	donec := make(chan struct{})
	go func() {
		defer close(donec)
		each(services, func(s service) { _ = s.srv.Shutdown(ctx) })
	}()
	select {
	case <-donec:
		if ctx.Err() == nil {
			return nil
		}
		fmt.Fprintf(os.Stderr, "requests were still running after %s and were cut\n", grace)
	case <-sigc:
	}
	closeAll(services)
	return exitCode(1)
}

func closeAll(services []service) {
	each(services, func(s service) { _ = s.srv.Close() })
}

// each calls f for all at the same time and waits.
func each(services []service, f func(service)) {
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(func() { f(s) })
	}
	wg.Wait()
}
