package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/accesslog"
	"github.com/cirqueproxy/cirque/admin"
	"github.com/cirqueproxy/cirque/config"
	"github.com/cirqueproxy/cirque/listen"
	"github.com/cirqueproxy/cirque/metrics"
)

// watch is what looks at the running server: the access log, the metrics and
// the admin listener.
type watch struct {
	filters []cirque.Filter
	phase   atomic.Int32
	logger  *slog.Logger
	metrics *metrics.Metrics // nil without an admin listener
	access  *accesslog.Log
	file    *os.File // of the access log, if it is one of ours
}

// newWatch opens what the configuration wants.
func newWatch(c *config.Config, logger *slog.Logger) (*watch, error) {
	if c.Log.Access == nil {
		return newWatchFor(c, nil, logger)
	}
	out, file, err := openOutput(c.Log.Access.Output)
	if err != nil {
		return nil, err
	}
	w, err := newWatchFor(c, out, logger)
	if err != nil {
		return nil, err
	}
	w.file = file
	return w, nil
}

// newWatchFor makes the filters; the access log goes to out.
func newWatchFor(c *config.Config, out io.Writer, logger *slog.Logger) (*watch, error) {
	w := &watch{logger: logger}
	if c.Admin != nil { // nobody else would see the numbers
		m, err := metrics.New(metrics.Options{})
		if err != nil {
			return nil, err
		}
		w.metrics = m
		w.filters = append(w.filters, m.Filter())
	}
	if a := c.Log.Access; a != nil {
		if err := w.logTo(out, a); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// openOutput opens the access log's output, which may be a file to close.
func openOutput(name string) (io.Writer, *os.File, error) {
	switch name {
	case "stdout":
		return os.Stdout, nil, nil
	case "stderr":
		return os.Stderr, nil, nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("log.access.output: %w", err)
	}
	return f, f, nil
}

// logTo adds the filter that writes the access log.
func (w *watch) logTo(out io.Writer, a *config.AccessLog) error {
	o := accesslog.Options{Output: out, Format: a.Format, OnError: func(err error) {
		w.logger.Error("the access log cannot be written", "error", err)
	}}
	for _, f := range a.Fields {
		o.Fields = append(o.Fields, *f)
	}
	l, err := accesslog.New(o)
	if err != nil {
		return fmt.Errorf("log.access: %w", err)
	}
	w.access = l
	w.filters = append(w.filters, l.Filter())
	return nil
}

// close writes what is left of the access log.
func (w *watch) close() {
	if w.access != nil {
		if err := w.access.Close(); err != nil {
			w.logger.Error("the access log cannot be written", "error", err)
		}
	}
	if w.file != nil {
		w.file.Close()
	}
}

// serveAdmin starts the admin listener, if there is to be one. The function
// that it returns stops it.
func (w *watch) serveAdmin(c *config.Config, b *config.Built) (stop func(), err error) {
	if c.Admin == nil {
		return func() {}, nil
	}
	l, err := listen.Listen(context.Background(), c.Admin.Address, listen.Options{})
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	srv := &http.Server{Handler: w.adminHandler(b), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	donec := make(chan struct{})
	go func() {
		defer close(donec)
		_ = srv.Serve(l)
	}()
	w.logger.Info("listening", "listener", "admin", "address", l.Addr().String())
	return func() {
		srv.Close()
		<-donec
	}, nil
}

// adminHandler answers operators.
func (w *watch) adminHandler(b *config.Built) http.Handler {
	for _, s := range b.Servers {
		w.metrics.AddServer(s.Name, s.Server)
	}
	w.metrics.AddTransport("pool", b.Transport)
	return admin.New(admin.Options{Metrics: w.metrics.Handler(), Version: version(), Ready: func() error {
		switch w.phase.Load() {
		case starting:
			return errStarting
		case draining:
			return admin.ErrDraining
		}
		return nil
	}})
}

// The phases of the process.
const (
	starting int32 = iota
	serving
	draining
)

var errStarting = errors.New("the process is starting")
