package upstream

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/h1io"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// A response after a large one is likely to be large too: of it only about a
// head is read, the rest is left to be spliced.
const (
	largeBody = 32 << 10
	headGuess = 1 << 10
)

// H1 is one HTTP/1 connection to an origin and, while it is busy, the
// exchange.Up of one attempt. It belongs to the pool or to the exchange that
// took it; never to both.
type H1 struct {
	// facts is what Facts keeps. Owned by the exchange, or by the pool.
	facts any

	// Immutable after dial.
	pool  *Pool
	entry *Entry
	wc    *wire.Conn
	made  time.Duration // on the sweep's clock

	// Guarded by the entry's lock while the connection is idle, else owned by
	// the exchange.
	target    *Target
	idleSince time.Duration
	usedAt    int64         // the pool's count of uses then
	idleLimit time.Duration // what the origin asked for; 0: nothing
	requests  int
	reused    bool

	// Owned by the exchange. headGuess bounds the first read, so that a body which
	// is likely to be large enters the process as little as possible.
	headGuess              int
	firstByte, read, write time.Duration

	// Owned by the exchange's reading goroutine.
	in       h1io.Reader
	meta     h1.ResponseMeta
	req      *message.Request
	received bool   // the final head was read
	first    []byte // what Exchange sends, then tail
	tail     []byte
	pending  bool // a whole request waits for ReadHead
	sentAny  bool

	// Owned by the goroutine that writes the request.
	out  h1io.Writer
	sent bool // the request was written to its end
}

// Facts implements Up.
func (u *H1) Facts(make func(net.Conn) any) any {
	if u.facts == nil {
		u.facts = make(u.NetConn())
	}
	return u.facts
}

// NetConn implements Up.
func (u *H1) NetConn() net.Conn { return u.wc.NetConn() }

// Wire returns the connection, for its addresses and for tunnels.
func (u *H1) Wire() *wire.Conn { return u.wc }

// Age returns for how long the connection has been open.
func (u *H1) Age() time.Duration { return u.pool.sweep.Now() - u.made }

// Tunnel implements exchange.Up.
func (u *H1) Tunnel() exchange.Tunnel { return h1io.NewTunnel(u.wc) }

// Reused implements exchange.Up.
func (u *H1) Reused() bool { return u.reused }

// Cancel implements exchange.Canceler.
func (u *H1) Cancel(cause error) {
	u.wc.InterruptRead(cause)
	u.wc.InterruptWrite(cause)
}

// expired reports whether an idle connection may no longer be used.
func (u *H1) expired(now time.Duration) bool {
	t := u.target
	idle := t.IdleTimeout
	if u.idleLimit > 0 && (idle == 0 || u.idleLimit < idle) {
		idle = u.idleLimit
	}
	return (idle > 0 && now-u.idleSince >= idle) || u.wornOut(now)
}

// wornOut reports whether the connection did all that it may do.
func (u *H1) wornOut(now time.Duration) bool {
	t := u.target
	return (t.MaxAge > 0 && now-u.made >= t.MaxAge) || (t.MaxRequests > 0 && u.requests >= t.MaxRequests)
}

// SetTimeouts implements exchange.Up.
func (u *H1) SetTimeouts(firstByte, read, write time.Duration) {
	u.firstByte, u.read, u.write = firstByte, read, write
	if u.received {
		u.wc.SetReadTimeout(read)
	} else {
		u.wc.SetReadTimeout(firstByte)
	}
}

// Send implements exchange.Up.
func (u *H1) Send(req *message.Request, body []byte, last bool) error {
	u.begin(req)
	f := requestFraming(req)
	pend, err := h1.AppendRequestHead(u.out.Pending(), req, f)
	if err != nil {
		return &reason.Error{Reason: reason.BadHookField, Err: err}
	}
	u.out.Head(pend, f.Kind, f.Length)
	if last && f.Kind != h1.Chunked {
		out, tail, err := u.out.Gather(body)
		if err != nil {
			return &reason.Error{Reason: reason.BadHookBody, Err: err}
		}
		u.first, u.tail, u.pending, u.sent = out, tail, true, true
		return nil
	}
	if u.reused {
		if err := u.stray(u.wc.Stray()); err != nil {
			return err
		}
	}
	u.sentAny = true
	if len(body) == 0 && !last {
		return u.WriteError(u.out.Flush())
	}
	return u.SendBody(body, last, &req.Trailer)
}

func (u *H1) begin(req *message.Request) {
	u.requests++
	u.req = req
	u.received, u.pending, u.sent, u.sentAny = false, false, false, false
	u.tail = nil
	u.out.Start(u.wc)
	u.in.Start(u.wc, h1.None, 0, nil)
	u.wc.SetReadTimeout(u.firstByte)
	u.wc.SetWriteTimeout(u.write)
	u.wc.LimitFirst(u.headGuess)
	u.wc.SetPiece(0)
}

// requestFraming says how a request body is framed.
//
// RFC 9112, section 6.3: a request without either field has no body; a method
// that anticipates one says Content-Length: 0 when it is empty
// (RFC 9110, section 8.6).
func requestFraming(req *message.Request) h1.OutFraming {
	f := h1.OutFraming{Kind: h1.Length, Length: req.Length()}
	switch {
	case f.Length < 0:
		f.Kind = h1.Chunked
	case f.Length == 0 && !req.Header.HasID(message.IDContentLength):
		f.Kind = h1.None
		if m := req.Method(); m == "POST" || m == "PUT" || m == "PATCH" {
			f.Kind = h1.Length
		}
	}
	if req.Header.HasID(message.IDUpgrade) {
		f.Connection = "upgrade"
	}
	return f
}

// stray counts what the check of an idle connection found.
func (u *H1) stray(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wire.ErrStray):
		u.pool.strays.Add(1)
		return &reason.Error{Reason: reason.StrayBytes, Err: err}
	default:
		return u.headError(err)
	}
}

// SendBody implements exchange.Up.
func (u *H1) SendBody(b []byte, last bool, trailer *message.Header) error {
	if len(b) == 0 && !last {
		return nil
	}
	err := u.out.Body(b, last, trailer)
	if errors.Is(err, h1io.ErrLength) {
		return &reason.Error{Reason: reason.BadHookBody, Err: err}
	}
	u.sent = u.sent || (last && err == nil)
	return u.WriteError(err)
}

// WriteError gives a failed write of the request its reason.
func (u *H1) WriteError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wire.ErrTimeout):
		return &reason.Error{Reason: reason.UpstreamWriteTimeout, Err: err}
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return &reason.Error{Reason: reason.UpstreamReset, Err: err}
	case isAlert(err):
		return &reason.Error{Reason: reason.UpstreamTLSAlert, Err: err}
	default:
		return reason.Wrap(reason.UpstreamReset, err)
	}
}

// ReadHead implements exchange.Up.
func (u *H1) ReadHead(resp *message.Response) error {
	if u.pending {
		if err := u.exchange(); err != nil {
			return err
		}
	}
	end, err := u.completeHead()
	if err != nil {
		return err
	}
	err = h1.ParseResponse(u.wc.Buffered()[:end], &u.target.Limits, u.req.Method(), &u.target.Rules, resp, &u.meta)
	if err != nil {
		return u.parseError(err)
	}
	u.wc.Discard(end)
	if resp.Status < 200 && !u.meta.Upgraded {
		return nil
	}
	u.received = true
	u.in.Start(u.wc, u.meta.Framing, resp.Length(), &resp.Trailer)
	u.wc.SetReadTimeout(u.read)
	u.headGuess = 0
	if resp.Length() >= largeBody {
		u.headGuess = headGuess
	}
	u.honourKeepAlive(resp)
	return nil
}

// completeHead reads until a head is whole and returns its length. From its
// first byte on it has to come within the time that the first byte had: an
// origin that sends a byte now and then would hold its session for ever.
func (u *H1) completeHead() (int, error) {
	end, next, err := h1.HeadEnd(u.wc.Buffered(), 0)
	defer u.wc.SetReadDeadline(0)
	for bounded := false; end < 0 && err == nil; {
		if !bounded && u.firstByte > 0 && len(u.wc.Buffered()) > 0 {
			bounded = true
			u.wc.SetReadDeadline(u.pool.sweep.Now() + u.firstByte)
		}
		if err := u.wc.Fill(); err != nil {
			return -1, u.headError(err)
		}
		end, next, err = h1.HeadEnd(u.wc.Buffered(), next)
	}
	if err != nil {
		return -1, u.parseError(err)
	}
	return end, nil
}

// exchange sends the pending request and waits for the first byte of an answer.
func (u *H1) exchange() error {
	u.pending = false
	n, err := u.wc.Exchange(u.first, u.tail, &u.out)
	u.sentAny = n > 0
	u.first, u.tail = nil, nil
	switch {
	case err == nil:
		return nil
	case !u.sentAny && u.reused:
		return u.stray(err)
	default:
		return u.headError(err)
	}
}

// headError gives a read that failed before the end of a head its reason.
func (u *H1) headError(err error) error {
	r := reason.UpstreamReset
	switch {
	case errors.Is(err, wire.ErrTimeout):
		r = reason.UpstreamTimeout
	case errors.Is(err, io.EOF):
		r = reason.UpstreamClosed
	case errors.Is(err, wire.ErrFull):
		r = reason.UpstreamHeadTooLarge
	case isAlert(err):
		r = reason.UpstreamTLSAlert
	}
	return reason.Wrap(r, err)
}

func (u *H1) parseError(err error) error {
	var he *h1.Error
	if !errors.As(err, &he) {
		return reason.Wrap(reason.UpstreamBadHead, err)
	}
	r := he.Reason
	switch {
	case r.Side() == reason.Upstream:
	case r == reason.HeadTooLarge:
		r = reason.UpstreamHeadTooLarge
	default:
		r = reason.UpstreamBadHead
	}
	return &reason.Error{Reason: r, Err: err}
}

// honourKeepAlive takes the origin's word for how long it keeps an idle
// connection, less a second for the way.
func (u *H1) honourKeepAlive(resp *message.Response) {
	if !resp.Header.HasID(message.IDKeepAlive) {
		return
	}
	if n := keepAliveTimeout(resp.Header.ViewID(message.IDKeepAlive)); n >= 0 {
		u.idleLimit = max(time.Duration(n-1)*time.Second, time.Millisecond)
	}
}

// keepAliveTimeout returns the timeout parameter of a Keep-Alive field in
// seconds, or -1.
func keepAliveTimeout(v []byte) int {
	const name = "timeout="
	for i := 0; i+len(name) < len(v); i++ {
		if string(v[i:i+len(name)]) != name {
			continue
		}
		n, digits := 0, 0
		for _, c := range v[i+len(name):] {
			if c < '0' || c > '9' || digits == 6 {
				break
			}
			n, digits = n*10+int(c-'0'), digits+1
		}
		if digits > 0 {
			return n
		}
	}
	return -1
}

// ReadBody implements exchange.Up.
func (u *H1) ReadBody() ([]byte, bool, error) {
	b, last, err := u.in.Next()
	if err == nil {
		return b, last, nil
	}
	return b, last, u.BodyError(err)
}

// BodyError gives a read that failed inside the response body its reason.
func (u *H1) BodyError(err error) error {
	var he *h1.Error
	r := reason.UpstreamReset
	switch {
	case errors.Is(err, wire.ErrTimeout):
		r = reason.UpstreamReadTimeout
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		r = reason.UpstreamTruncated
	case errors.Is(err, wire.ErrFull):
		r = reason.UpstreamTrailerTooLarge
	case errors.As(err, &he) && he.Reason == reason.TrailerTooLarge:
		r = reason.UpstreamTrailerTooLarge
	case errors.As(err, &he):
		r = reason.UpstreamBadFraming
	}
	return reason.Wrap(r, err)
}

// BodyReady implements exchange.Up.
func (u *H1) BodyReady() bool { return u.in.Ready() }

// Framing returns how the body of the response is framed.
func (u *H1) Framing() h1.Framing { return u.in.Framing() }

// Upgraded reports whether the final head was a 101.
func (u *H1) Upgraded() bool { return u.meta.Upgraded && u.received }

// BeginRawIn implements exchange.Up.
func (u *H1) BeginRawIn() (*wire.Conn, int64) { return u.in.BeginRaw() }

// EndRawIn implements exchange.Up.
func (u *H1) EndRawIn(n int64) { u.in.EndRaw(n) }

// BeginRawOut implements exchange.Up.
func (u *H1) BeginRawOut(n int64) (*wire.Conn, []byte, error) {
	wc, first, err := u.out.BeginRaw(n)
	return wc, first, u.WriteError(err)
}

// EndRawOut implements exchange.Up.
func (u *H1) EndRawOut(n int64) { u.out.EndRaw(n) }

// Sent implements exchange.Up.
func (u *H1) Sent() bool { return u.sentAny }

// Release implements exchange.Up.
func (u *H1) Release() {
	if u.req == nil { // nothing was begun on it
		u.pool.put(u)
		return
	}
	u.in.Settle()
	switch {
	case !u.sent, !u.received, !u.in.Ended(), !u.meta.KeepAlive, u.meta.Upgraded, u.in.Framing() == h1.Close, u.target.NoReuse:
	case len(u.wc.Buffered()) > 0:
		u.pool.strays.Add(1) // more than the response: nobody knows what it answers
	case u.wornOut(u.pool.sweep.Now()):
		u.pool.retired.Add(1)
	default:
		u.out.Release()
		u.req = nil
		u.in.Start(u.wc, h1.None, 0, nil) // it pointed into the session, and would keep it
		u.wc.ReleaseBuffer()
		// A client that left, or a pump that was stopped, may have interrupted
		// waits that were over already: the next exchange must not find that.
		u.wc.ClearInterrupt()
		u.pool.put(u)
		return
	}
	u.Close()
}

// Close implements exchange.Up.
func (u *H1) Close() {
	u.out.Release()
	u.req = nil
	u.pool.drop(u)
}
