package cirque

import (
	"time"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/tunnel"
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
		h := &s.plan.upstreamResponse[i]
		if err := s.ran(h.name, h.index, h.run(s)); err != nil {
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
	t := tunnel.New(client, origin)
	s.server.beginTunnel(t)
	err := t.Run()
	s.server.endTunnel(t)
	s.body.read.Add(t.Up)
	s.attempt.Received += t.Down
	if s.wire == nil {
		s.attempt.Sent += t.Up // a stream's, of which nobody asks any more
	}
	s.sentBody += t.Down
	if err == errShutdown {
		// No failure of this session: the client gets an end, not a cut.
		s.down.ResumeBody()
		client.SetIdle(shutdownWrite)
		_ = client.CloseWrite()
		return nil
	}
	return err
}

// shutdownWrite is how long the end of a tunnel may take that a shutdown ended: its
// client may not be reading.
const shutdownWrite = 2 * time.Second

// beginTunnel notes a tunnel, which ends at once where the time for them is over.
func (srv *Server) beginTunnel(t *tunnel.Relay) {
	srv.mu.Lock()
	srv.tunnels[t] = struct{}{}
	over := srv.noTunnels
	srv.mu.Unlock()
	if over {
		t.End(errShutdown)
	}
}

// endTunnel forgets a tunnel: it is not told anything after this has returned.
func (srv *Server) endTunnel(t *tunnel.Relay) {
	srv.mu.Lock()
	delete(srv.tunnels, t)
	srv.mu.Unlock()
}

var errShutdown error = &reason.Error{Reason: reason.Shutdown}

// drainTunnels gives tunnels their time from now on.
func (srv *Server) drainTunnels() {
	d := pick(srv.TunnelDrain, 10*time.Second)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if d > 0 && srv.tunnelsEnd == nil {
		srv.tunnelsEnd = time.AfterFunc(d, srv.endTunnels)
	}
}

// endTunnels ends them. What End locks is never held by who wants mu.
func (srv *Server) endTunnels() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.noTunnels = true
	for t := range srv.tunnels {
		t.End(errShutdown)
	}
}
