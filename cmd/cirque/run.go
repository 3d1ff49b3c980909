package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cirqueproxy/cirque/config"
	"github.com/cirqueproxy/cirque/listen"
)

func newRun() *cobra.Command {
	var file string
	var grace time.Duration
	cmd := &cobra.Command{
		Use:     "run -c FILE",
		Short:   "Run the server that a config file describes",
		Example: "  cirque run -c cirque.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd, file, grace)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().DurationVar(&grace, "grace", 30*time.Second, "how long running requests may take after SIGTERM")
	return cmd
}

// run serves what the file says. Nothing is bound before the whole file is
// known to be good, and nothing is served before everything is bound.
func run(cmd *cobra.Command, file string, grace time.Duration) error {
	c, err := load(cmd, file)
	if err != nil {
		return err
	}
	logger := newLogger(cmd.ErrOrStderr(), c.Log)
	w, err := newWatch(c, logger)
	if err != nil {
		return err
	}
	defer w.close()
	b, err := c.Build(config.Options{Logger: logger, Filters: w.filters})
	if err != nil {
		return err
	}
	secrets, err := openKeyLog(c.Pool.SSLKeyLog)
	if err != nil {
		return err
	}
	if secrets != nil {
		defer secrets.Close()
		logger.Warn("the secrets of TLS connections to peers are written", "file", secrets.Name())
		b.Transport.KeyLog = secrets
	}
	sigc := catchSignals()
	services, err := bindAll(b)
	if err != nil {
		return err
	}
	stop, err := w.serveAdmin(c, b)
	if err != nil {
		closeSockets(services)
		return err
	}
	defer stop()
	defer b.Transport.Close()
	defer keepReady(b)()
	defer followFiles(b, logger)()
	// The sockets take connections since they were bound. Who reads of it in the
	// log finds /readyz ready.
	w.phase.Store(serving)
	for i, s := range services {
		logger.Info("listening", "listener", b.Servers[i].Name, "address", s.l.Addr().String())
	}
	err = serveAll(context.Background(), sigc, services, grace, func() {
		w.phase.Store(draining)
		logger.Info("draining", "grace", grace)
	})
	logger.Info("stopped")
	return err
}

// keepReady begins to make the connections that shall be ready, and returns what
// ends that.
func keepReady(b *config.Built) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { b.KeepReady(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// openKeyLog opens the file that SSLKEYLOGFILE names, where the configuration
// wants it.
func openKeyLog(on bool) (*os.File, error) {
	path := os.Getenv("SSLKEYLOGFILE")
	switch {
	case !on:
		return nil, nil
	case path == "":
		return nil, errors.New("pool.ssl_key_log is on and the environment has no SSLKEYLOGFILE")
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
}

// bindAll binds all listeners, or none.
func bindAll(b *config.Built) ([]service, error) {
	var services []service
	for _, s := range b.Servers {
		l, err := listen.Listen(context.Background(), s.Address, s.Socket)
		if err != nil {
			closeSockets(services)
			return nil, fmt.Errorf("listener %s: %w", s.Name, err)
		}
		services = append(services, service{s.Server, namedListener{l, s.Name}, s.TLS})
	}
	return services, nil
}

func closeSockets(services []service) {
	for _, s := range services {
		s.l.Close()
	}
}

// newLogger returns the operational log.
func newLogger(w io.Writer, l config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // checked when it was read
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
