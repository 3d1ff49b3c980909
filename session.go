package cirque

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/internal/downstream"
	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/upstream"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// Session is one proxied request, from its head to the end of its response.
// Hooks get it; it is invalid after Done. Its methods must only be called from
// hooks and from the functions of its Proxy.
//
// What a method returns as a string may be kept. What it returns as bytes, and
// the messages themselves, are borrowed until the hook returns.
type Session struct {
	// Immutable for as long as the connection lives.
	server *Server
	conn   *conn
	down   exchange.Down

	// Owned by the session's goroutine.
	proxy     *Proxy
	plan      *plan
	req       *message.Request
	upReq     message.Request
	resp      message.Response
	peer      *Peer
	tried     []*Peer
	up        exchange.Up
	h1up      *upstream.H1 // the same, when it is a connection
	wire      *wire.Conn   // below h1up, also when that is a tunnel
	upConn    net.Conn     // of the attempt, of either protocol
	attempt   Attempt
	attempts  int
	began     time.Time
	attemptAt time.Duration // since began
	// sentBefore is what the connection had sent when the attempt began.
	sentBefore int64
	phase      phase
	local      []byte // body of a local response
	responded  bool   // Respond was called in this phase
	localFrom  int    // index of the filter that responded; -1: the engine
	respHooks  bool   // the Response hooks ran
	dropped    bool   // Drop was called for the present interim response
	noRetry    bool
	own        own  // what the session set for itself alone
	upward     bool // a RequestBody hook runs
	answering  bool // an http.Handler answers
	foreign    bool // resp holds what an origin sent
	// failedByHook is set when an UpstreamResponse hook failed the attempt.
	failedByHook bool
	stale        int  // attempts on pooled connections that were dead
	newConn      bool // an attempt on a pooled one was lost: the next needs a new one
	keepOut      bool // the Session is not reused
	lastErr      *Error
	sentBody     int64 // bytes of response body sent to the client
	interims     int
	slots        []slot
	id           [32]byte
	idLen        int
	ctx          context.Context
	cancelCtx    context.CancelCauseFunc
	total        *totalTimer // nil: the session may take as long as its waits

	body requestBody

	// turn guards all of the above while shared is set; see turn.go.
	turn     sync.Mutex
	duplex   bool              // a pump exists
	shared   bool              // it runs hooks
	incoming *message.Response // what is read from the origin while shared
}

// phase is how far a session has come.
type phase uint8

const (
	phaseRequest  phase = iota // no final head yet
	phaseResponse              // there is a final head in s.resp
	phaseDone
)

// Request returns the request as the client sent it, as changed by Request and
// Forward hooks.
func (s *Session) Request() *message.Request { return s.req }

// UpstreamRequest returns what the present attempt sends. It is empty before
// the first attempt.
func (s *Session) UpstreamRequest() *message.Request { return &s.upReq }

// Response returns the response. Before there is one, its fields are those
// that Respond will send.
func (s *Session) Response() *message.Response { return &s.resp }

// Peer returns the peer of the present or last attempt, or nil.
func (s *Session) Peer() *Peer { return s.peer }

// Tried reports whether an attempt of this session was made on the peer.
func (s *Session) Tried(p *Peer) bool {
	for _, t := range s.tried {
		if t == p {
			return true
		}
	}
	return false
}

// Attempts returns how many attempts were begun.
func (s *Session) Attempts() int { return s.attempts }

// Attempt returns the facts of the present or last attempt, as far as they are
// known.
func (s *Session) Attempt() Attempt { return s.attempt }

// Proxy returns the Proxy that serves the session.
func (s *Session) Proxy() *Proxy { return s.proxy }

// Route returns the name of the Proxy, or "" when the request matched none.
func (s *Session) Route() string {
	if s.proxy == nil {
		return ""
	}
	return s.proxy.Name
}

// ClientAddr returns the address of the client's end of the connection. It is
// not valid for sockets without an IP address.
func (s *Session) ClientAddr() netip.AddrPort { return s.conn.clientAddr }

// ClientIP returns the client's address without its port, or "" when it has
// none. It does not allocate.
func (s *Session) ClientIP() string { return s.conn.clientIP }

// LocalAddr returns the address of our end of the client's connection.
func (s *Session) LocalAddr() net.Addr { return s.conn.localAddr }

// Listener returns the name that the server gave to the listener.
func (s *Session) Listener() string { return s.conn.listener }

// UpstreamAddr returns the two ends of the present attempt's connection to the
// peer; nil before there is one, and for a peer with a RoundTripper.
func (s *Session) UpstreamAddr() (local, remote net.Addr) {
	if s.upConn == nil {
		return nil, nil
	}
	return s.upConn.LocalAddr(), s.upConn.RemoteAddr()
}

// ID returns the request id: the one that the client brought if it is trusted,
// else a new one.
func (s *Session) ID() string { return string(s.IDView()) }

// IDView is ID, borrowed until the session is done.
func (s *Session) IDView() []byte {
	if s.idLen == 0 {
		s.newID()
	}
	return s.id[:s.idLen]
}

// Began returns when the head of the request had been read.
func (s *Session) Began() time.Time { return s.began }

// Elapsed returns the time since Began.
func (s *Session) Elapsed() time.Duration { return time.Since(s.began) }

// BytesReceived returns how many bytes of request body were read from the
// client.
func (s *Session) BytesReceived() int64 { return s.body.read.Load() }

// BytesSent returns how many bytes of response body were sent to the client.
func (s *Session) BytesSent() int64 { return s.sentBody }

// Protocol returns the protocol of the request: "HTTP/1.0" or "HTTP/1.1".
func (s *Session) Protocol() string { return s.conn.protocol(s) }

// ConnRequests returns how many requests the client's connection brought, this
// one included.
func (s *Session) ConnRequests() int { return s.conn.requests() }

// Err returns the error of the last failed attempt, or of the session in its
// Done hooks; nil if there is none.
func (s *Session) Err() *Error { return s.lastErr }

// Respond ends the request with a local response: a hook returns its result.
// Fields set before on s.Response() are sent; a Content-Type of text/plain is
// added where none is. Called when there is a response already, it takes that
// one's place, with new fields. It fails once the head has gone out: from the
// body hooks of a response on only an error can end it, with a visible cut. In a
// RequestBody hook it works until the final head has come from the origin, which
// may answer before it has the whole body; the error with which it fails then ends
// the request in the same way.
//
// A response made in a hook of filter i passes the response hooks of the
// filters before i.
func (s *Session) Respond(status int, body string) error {
	return s.respond(status, append(s.local[:0], body...))
}

// RespondBytes is Respond for a body that is not a string; it is copied.
func (s *Session) RespondBytes(status int, body []byte) error {
	return s.respond(status, append(s.local[:0], body...))
}

func (s *Session) respond(status int, body []byte) error {
	if status < 200 || status > 999 {
		return &Error{Reason: reason.HookError, Err: errBadStatus}
	}
	if s.upward && !s.mayAnswer() {
		return &Error{Reason: reason.HookError, Err: errUpward}
	}
	if s.down.Started() {
		return &Error{Reason: reason.HookError, Err: errBegun}
	}
	if s.phase == phaseResponse || s.foreign {
		s.resp.Reset()
		s.foreign = false
	}
	s.resp.Status = status
	s.resp.SetReason("")
	s.local = body
	s.responded = true
	if len(body) > 0 && !s.resp.Header.HasID(message.IDContentType) {
		s.resp.Header.SetID(message.IDContentType, textPlain)
	}
	return errResponded
}

var textPlain = []byte("text/plain; charset=utf-8")

// Drop keeps the present interim response from the client. It means something
// in Interim hooks only.
func (s *Session) Drop() { s.dropped = true }

// NoRetry forbids further attempts for the session.
func (s *Session) NoRetry() { s.noRetry = true }

// CloseAfter closes the client's connection after this response.
func (s *Session) CloseAfter() { s.conn.closeAfter() }

// Keep takes the Session out of reuse: what points to it stays valid memory
// after Done, though its methods mean nothing any more.
func (s *Session) Keep() { s.keepOut = true }

// Context returns a context that ends when the session does, or when the client
// leaves. It is built at the first call.
func (s *Session) Context() context.Context {
	if s.ctx == nil {
		s.keepOut = true
		base := context.Background()
		if s.server != nil && s.server.BaseContext != nil {
			base = s.server.BaseContext()
		}
		s.ctx, s.cancelCtx = context.WithCancelCause(base)
	}
	return s.ctx
}

// BufferRequest reads the whole request body, which the caller may keep until
// Done, and sends the 100 (Continue) that a client may wait for. A body over max
// bytes ends the request with 413. It is for Request and Forward hooks.
func (s *Session) BufferRequest(max int64) ([]byte, error) { return s.body.buffer(s, max) }

// Snapshot returns a copy of what is known of the session, to keep.
func (s *Session) Snapshot() Snapshot {
	n := Snapshot{
		ID: s.ID(), Route: s.Route(), ClientAddr: s.ClientAddr(), Began: s.began, Elapsed: s.Elapsed(),
		Status: s.resp.Status, Received: s.BytesReceived(), Sent: s.BytesSent(), Attempt: s.attempt, Err: s.lastErr,
	}
	n.Request.CopyFrom(s.req)
	n.Response.CopyFrom(&s.resp)
	return n
}

// Snapshot is a copy of a Session's facts.
type Snapshot struct {
	ID         string
	Route      string
	ClientAddr netip.AddrPort
	Began      time.Time
	Elapsed    time.Duration
	Request    message.Request
	Response   message.Response
	Status     int
	Received   int64
	Sent       int64
	Attempt    Attempt // the last
	Err        *Error
}

var _ exchange.Down = (*downstream.H1)(nil)
