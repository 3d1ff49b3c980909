package cirque

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// switchProtocols passes a 101 on and relays bytes until both sides ended. Which
// protocols carry the two sides is theirs to know: to a session every upgrade looks
// as HTTP/1.1 has it.
//
// RFC 9110, section 7.8: a server switches only to a protocol that the client
// offered.
func (s *Session) switchProtocols() error {
	if !s.conn.tunnels() || !upgradeWanted(s) {
		return &reason.Error{Reason: reason.UpstreamUnexpectedSwitch}
	}
	cleanResponse(&s.resp, false)
	s.phase = phaseResponse
	for i := range s.plan.upstreamResponse {
		if err := s.turned(&s.plan.upstreamResponse[i]); err != nil {
			return err
		}
	}
	if err := s.runResponse(); err != nil {
		return err
	}
	return s.tunnel()
}

// openTunnel answers a CONNECT with the bare connection to the peer.
//
// RFC 9110, section 9.3.6: any 2xx means that the tunnel begins right after the
// head.
func (s *Session) openTunnel() error {
	if err := s.runHead(s.plan.connected); err != nil {
		return err
	}
	s.resp.Reset()
	s.resp.Status = 200
	s.resp.SetReason("Connection established")
	s.phase = phaseResponse
	if err := s.runResponse(); err != nil {
		return err
	}
	return s.tunnel()
}

// tunnel sends the head of the response and relays. What the client sent behind its
// request is read, and goes out, only now that the origin has agreed.
func (s *Session) tunnel() error {
	up := s.up
	origin := up.Tunnel()
	client, err := s.down.Tunnel(&s.resp)
	if err != nil {
		return err
	}
	if origin == nil || client == nil {
		return &reason.Error{Reason: reason.UpstreamUnexpectedSwitch}
	}
	s.up, s.h1up = nil, nil // the connection carries another protocol from here on
	defer up.Close()
	if err := s.down.WriteHead(&s.resp); err != nil {
		return err
	}
	if err := s.down.Flush(); err != nil {
		return err
	}
	s.down.Unwatch() // a FIN is passed on from here
	return s.relayTunnel(client, origin)
}

// relayTunnel moves bytes both ways until both directions ended, or nothing
// moved for the tunnel's timeout.
func (s *Session) relayTunnel(client, origin exchange.Tunnel) error {
	idle := positive(s.timeoutsTo(s.peer).Tunnel)
	client.SetIdle(idle)
	origin.SetIdle(idle)
	t := &tunnel{client: client, origin: origin}
	s.server.beginTunnel(t)
	var wg sync.WaitGroup
	wg.Go(func() { t.move(origin, client, &t.up) })
	t.move(client, origin, &t.down)
	wg.Wait()
	client.Unwatch()
	origin.Unwatch()
	s.server.endTunnel(t)
	s.body.read.Add(t.up)
	s.attempt.Received += t.down
	if s.wire == nil {
		s.attempt.Sent += t.up // a stream's, of which nobody asks any more
	}
	s.sentBody += t.down
	if t.err == errShutdown {
		// No failure of this session: the client gets an end, not a cut.
		s.down.ResumeBody()
		client.SetIdle(shutdownWrite)
		_ = client.CloseWrite()
		return nil
	}
	return t.err
}

// shutdownWrite is how long the end of a tunnel may take that a shutdown ended: its
// client may not be reading.
const shutdownWrite = 2 * time.Second

// tunnel is the state of a relay. Each direction has its goroutine; an error of
// one ends both.
type tunnel struct {
	client, origin exchange.Tunnel
	up, down       int64 // each owned by its direction

	mu  sync.Mutex
	err error // Guarded by mu.
}

// move relays one direction and counts in n. Its end is passed on as a half-close,
// so that the other direction can end by itself.
func (t *tunnel) move(dst, src exchange.Tunnel, n *int64) {
	var err error
	if d, s := dst.Wire(), src.Wire(); d != nil && s != nil {
		err = t.splice(d, s, n)
	} else {
		err = t.copy(dst, src, n)
	}
	if err != nil {
		t.fail(&reason.Error{Reason: reason.TunnelEnded, Err: err})
		return
	}
	_ = dst.CloseWrite()
	src.Watch(func(cause error) { t.fail(&reason.Error{Reason: reason.TunnelEnded, Err: cause}) })
}

// splice moves between two connections that carry the bytes as they are.
func (t *tunnel) splice(dst, src *wire.Conn, n *int64) error {
	for {
		if b := src.Buffered(); len(b) > 0 {
			if _, err := dst.Write(b); err != nil {
				return err
			}
			*n += int64(len(b))
			src.Discard(len(b))
		}
		src.ReleaseBuffer()
		seen := t.moved()
		taken, moved, err := wire.Splice(dst, src, nil, -1)
		*n += moved
		switch {
		case err == nil, errors.Is(err, io.EOF):
			return nil
		case taken == moved && errors.Is(err, wire.ErrTimeout) && t.moved() != seen:
			// The other direction is alive, and nothing was lost in a pipe.
		default:
			return err
		}
	}
}

// copy moves between ends of which one has frames.
func (t *tunnel) copy(dst, src exchange.Tunnel, n *int64) error {
	for {
		seen := t.moved()
		b, last, err := src.Read()
		switch {
		case errors.Is(err, wire.ErrTimeout) && t.moved() != seen:
			continue
		case err != nil:
			return err
		}
		if len(b) > 0 {
			if err := dst.Write(b); err != nil {
				return err
			}
			*n += int64(len(b))
		}
		if last {
			return nil
		}
	}
}

// moved is a figure that changes when anything moves.
func (t *tunnel) moved() int64 { return t.client.Received() + t.origin.Received() }

// fail ends both directions. The first cause stands.
func (t *tunnel) fail(err error) {
	t.mu.Lock()
	first := t.err == nil
	if first {
		t.err = err
	}
	t.mu.Unlock()
	if first {
		t.client.Interrupt(err)
		t.origin.Interrupt(err)
	}
}

// beginTunnel notes a tunnel, which ends at once where the time for them is over.
func (srv *Server) beginTunnel(t *tunnel) {
	srv.mu.Lock()
	srv.tunnels[t] = struct{}{}
	over := srv.noTunnels
	srv.mu.Unlock()
	if over {
		t.fail(errShutdown)
	}
}

// endTunnel forgets a tunnel: it is not told anything after this has returned.
func (srv *Server) endTunnel(t *tunnel) {
	srv.mu.Lock()
	delete(srv.tunnels, t)
	srv.mu.Unlock()
}

var errShutdown = &reason.Error{Reason: reason.Shutdown}

// drainTunnels gives tunnels their time from now on.
func (srv *Server) drainTunnels() {
	d := pick(srv.TunnelDrain, 10*time.Second)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if d > 0 && srv.tunnelsEnd == nil {
		srv.tunnelsEnd = time.AfterFunc(d, srv.endTunnels)
	}
}

// endTunnels ends them. What fail locks is never held by who wants mu.
func (srv *Server) endTunnels() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.noTunnels = true
	for t := range srv.tunnels {
		t.fail(errShutdown)
	}
}
