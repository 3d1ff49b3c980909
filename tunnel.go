package cirque

import (
	"errors"
	"io"
	"sync"

	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// switchProtocols passes a 101 on and relays bytes until both sides ended.
//
// RFC 9110, section 7.8: a server switches only to a protocol that the client
// offered.
func (s *Session) switchProtocols() error {
	if s.conn.h1 == nil || s.h1up == nil || !upgradeWanted(s) {
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
	up := s.h1up
	s.up, s.h1up = nil, nil // the connection carries another protocol from here on
	defer up.Close()
	return s.tunnel(up.Wire(), up.Tail())
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
	up := s.h1up
	s.up, s.h1up = nil, nil
	defer up.Close()
	return s.tunnel(up.Wire(), nil)
}

// tunnel sends the head of the response and relays. Early is what the origin
// sent behind its head; what the client sent behind its request is still in its
// connection's buffer, and goes out only now that the origin has agreed.
func (s *Session) tunnel(up *wire.Conn, early []byte) error {
	h1 := s.conn.h1
	h1.Tunnel()
	if err := s.down.WriteHead(&s.resp); err != nil {
		return err
	}
	if err := s.down.WriteBody(early, false, nil); err != nil {
		return err
	}
	if err := s.down.Flush(); err != nil {
		return err
	}
	up.Discard(len(early))
	s.down.Unwatch() // a FIN is passed on from here
	err := s.relayTunnel(h1.Wire(), up)
	_ = s.down.WriteBody(nil, true, nil)
	return err
}

// relayTunnel moves bytes both ways until both directions ended, or nothing
// moved for the tunnel's timeout.
func (s *Session) relayTunnel(client, origin *wire.Conn) error {
	idle := positive(s.timeoutsTo(s.peer).Tunnel)
	client.SetReadTimeout(idle)
	origin.SetReadTimeout(idle)
	// A reader that pauses is no reason to end a tunnel.
	client.SetWriteTimeout(idle)
	origin.SetWriteTimeout(idle)
	client.SetMinRate(0, 0)
	client.SetMinWriteRate(0, 0)
	t := &tunnel{client: client, origin: origin}
	var wg sync.WaitGroup
	wg.Go(func() { t.move(origin, client) })
	t.move(client, origin)
	wg.Wait()
	s.body.read.Add(t.up)
	s.attempt.Received += t.down
	s.sentBody += t.down
	return t.err
}

// tunnel is the state of a relay. Each direction has its goroutine; an error of
// one ends both.
type tunnel struct {
	client, origin *wire.Conn
	up, down       int64 // each owned by its direction

	mu  sync.Mutex
	err error // Guarded by mu.
}

// move relays one direction. Its end is passed on as a half-close, so that the
// other direction can end by itself.
func (t *tunnel) move(dst, src *wire.Conn) {
	n := &t.down
	if src == t.client {
		n = &t.up
	}
	for {
		if b := src.Buffered(); len(b) > 0 {
			if _, err := dst.Write(b); err != nil {
				t.fail(err)
				return
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
			_ = dst.CloseWrite()
			return
		case taken == moved && errors.Is(err, wire.ErrTimeout) && t.moved() != seen:
			// The other direction is alive, and nothing was lost in a pipe.
		default:
			t.fail(err)
			return
		}
	}
}

// moved is a figure that changes when anything moves.
func (t *tunnel) moved() int64 {
	return t.client.BytesRead() + t.origin.BytesRead()
}

func (t *tunnel) fail(err error) {
	t.mu.Lock()
	first := t.err == nil
	if first {
		t.err = &reason.Error{Reason: reason.TunnelEnded, Err: err}
	}
	t.mu.Unlock()
	if first {
		for _, c := range []*wire.Conn{t.client, t.origin} {
			c.InterruptRead(t.err)
			c.InterruptWrite(t.err)
		}
	}
}
