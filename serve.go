package cirque

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/listen"
)

// ListenAndServe listens on Addr and serves until Shutdown or Close. It always
// returns an error, ErrServerClosed after these.
func (srv *Server) ListenAndServe() error {
	l, err := srv.listen(":8080")
	if err != nil {
		return err
	}
	return srv.Serve(l)
}

// ListenAndServeTLS is ListenAndServe for HTTPS, by default on ":8443". The
// certificate chain and its key come from PEM files; they may be empty if TLS
// has certificates.
func (srv *Server) ListenAndServeTLS(certFile, keyFile string) error {
	t := srv.TLS
	if certFile != "" || keyFile != "" {
		t = &listen.TLS{}
		if srv.TLS != nil {
			*t = *srv.TLS
		}
		var err error
		if t.Certificates, err = listen.LoadCertificates(listen.KeyPair{Cert: certFile, Key: keyFile}); err != nil {
			return err
		}
	}
	l, err := srv.listen(":8443")
	if err != nil {
		return err
	}
	return srv.ServeTLS(l, t)
}

func (srv *Server) listen(def string) (net.Listener, error) {
	addr := srv.Addr
	if addr == "" {
		addr = def
	}
	return listen.Listen(context.Background(), addr, listen.Options{})
}

// listener is what the connections of a listener have in common. Immutable.
type listener struct {
	name string
	tls  *listen.Acceptor // nil: plain
}

// Serve accepts on l until Shutdown or Close, and closes it. It always returns
// an error, ErrServerClosed after these. A listener with a method Name() string
// is called by it in s.Listener().
func (srv *Server) Serve(l net.Listener) error { return srv.serve(l, nil) }

// ServeTLS is Serve for HTTPS. If t is nil, it is the field TLS.
func (srv *Server) ServeTLS(l net.Listener, t *listen.TLS) error {
	if t == nil {
		t = srv.TLS
	}
	if t == nil {
		t = &listen.TLS{} // which says what is missing
	}
	return srv.serve(l, t)
}

func (srv *Server) serve(l net.Listener, t *listen.TLS) error {
	srv.init()
	served := &listener{name: l.Addr().String()}
	if n, ok := l.(interface{ Name() string }); ok {
		served.name = n.Name()
	}
	if t != nil {
		var err error
		if served.tls, err = t.Acceptor(served.name); err != nil {
			l.Close()
			return err
		}
	}
	srv.mu.Lock()
	if srv.closing {
		srv.mu.Unlock()
		l.Close()
		return ErrServerClosed
	}
	srv.listeners[l] = struct{}{}
	srv.mu.Unlock()
	defer func() {
		srv.mu.Lock()
		delete(srv.listeners, l)
		srv.mu.Unlock()
		l.Close()
	}()
	return srv.accept(l, served)
}

// accept is the accept loop of one listener.
func (srv *Server) accept(l net.Listener, served *listener) error {
	var pause time.Duration
	for {
		if srv.tooMany != nil {
			srv.tooMany <- struct{}{}
		}
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			go srv.serveConn(nc, served, srv.leave)
			continue
		case srv.isClosing():
			return ErrServerClosed
		case !passing(err):
			srv.leave()
			return err
		}
		srv.leave()
		// The process or the machine is out of descriptors or memory. Sessions
		// that end give some back; asking at once again would take the CPU that
		// they need.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		srv.logger().Warn("accept failed", "listener", served.name, "error", err, "pause", pause)
		time.Sleep(pause)
	}
}

// leave gives the place of a connection back.
func (srv *Server) leave() {
	if srv.tooMany != nil {
		<-srv.tooMany
	}
}

// passing reports whether an accept that failed may succeed later.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (srv *Server) isClosing() bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.closing
}

// Shutdown stops listening, closes idle connections, lets running requests
// finish and tunnels go on for TunnelDrain, and returns when there is nothing left.
// If ctx ends first it returns ctx's error; connections that still run are left to
// Close.
func (srv *Server) Shutdown(ctx context.Context) error {
	empty := srv.beginClose(clientConn.Drain)
	srv.drainTunnels()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops listening and cuts all connections.
func (srv *Server) Close() error {
	<-srv.beginClose(clientConn.Kill)
	return nil
}

// beginClose stops accepting and calls end for each connection. The channel
// that it returns is closed when none is left.
func (srv *Server) beginClose(end func(clientConn)) <-chan struct{} {
	srv.init()
	srv.mu.Lock()
	srv.closing = true
	listeners := slices.Collect(maps.Keys(srv.listeners))
	empty := srv.emptyc
	if empty == nil {
		empty = make(chan struct{})
		if len(srv.conns)+len(srv.handshakes) == 0 {
			close(empty)
		} else {
			srv.emptyc = empty
		}
	}
	conns := slices.Collect(maps.Keys(srv.conns))
	for nc := range srv.handshakes {
		nc.Close() // nothing was asked on it yet
	}
	srv.mu.Unlock()
	for _, c := range conns {
		end(c)
	}
	// Who is refused a connection shall find that the others are draining.
	for _, l := range listeners {
		l.Close()
	}
	if srv.parker != nil {
		srv.parker.Close()
	}
	return empty
}

// ServerStats are a Server's counters since its start and its present numbers.
type ServerStats struct {
	Accepted int64 // connections
	Refused  int64 // connections that AcceptConn refused
	Requests int64 // sessions that are over
	Panics   int64 // in hooks

	ConnsNew, ConnsActive, ConnsIdle, ConnsParked int64 // connections now

	Failures map[Reason]int64 // sessions that ended with an error, by reason
	Ends     map[Reason]int64 // connections that ended, by reason
}

// Stats returns the counters. It looks at each open connection, so it is for
// a scrape now and then.
func (srv *Server) Stats() ServerStats {
	srv.init()
	st := ServerStats{
		Accepted: srv.accepted.Load(), Refused: srv.refused.Load(), Requests: srv.requests.Load(),
		Panics: srv.panics.Load(), Failures: map[Reason]int64{}, Ends: map[Reason]int64{},
	}
	for r := range srv.failures {
		if n := srv.failures[r].Load(); n > 0 {
			st.Failures[Reason(r)] = n
		}
		if n := srv.ends[r].Load(); n > 0 {
			st.Ends[Reason(r)] = n
		}
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	st.ConnsNew = int64(len(srv.handshakes))
	for c := range srv.conns {
		switch c.State() {
		case downstream.StateNew:
			st.ConnsNew++
		case downstream.StateActive:
			st.ConnsActive++
		case downstream.StateIdle:
			st.ConnsIdle++
		case downstream.StateParked:
			st.ConnsParked++
		}
	}
	return st
}
