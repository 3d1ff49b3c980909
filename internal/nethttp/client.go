package nethttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
	"github.com/cirqueproxy/cirque/internal/exchange"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

const (
	// maxWhole is what of a request body is read before its head goes out: it
	// then leaves in one write with it, and can be sent again.
	maxWhole = 64 << 10
	// maxInterim bounds the 1xx responses: an origin that sends them without end
	// would hold its client for good.
	maxInterim = 100
	// lastWrite is how long the rest of an upload may take when its response is
	// complete: the origin has most likely read everything.
	lastWrite = 100 * time.Millisecond
)

var errOver = errors.New("the response is complete")

// Body is the body of a client's request over all attempts to send it. It belongs
// to the goroutine of RoundTrip, but for what it says.
type Body struct {
	r       *http.Request
	length  int64  // -1: unknown
	whole   []byte // all of it, where it is short
	touched bool   // something of it was given to a connection

	// Of the present attempt.
	donec chan struct{} // closed when upload has ended; nil: there is none
	close sync.Once
}

// NewBody takes over the body of r.
func NewBody(r *http.Request) (*Body, error) {
	b := &Body{r: r, length: r.ContentLength}
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		b.length = 0
		return b, nil
	case b.length == 0, len(r.Trailer) > 0:
		b.length = -1 // so net/http has it for requests that go out
	}
	if b.length < 0 || b.length > maxWhole {
		return b, nil
	}
	defer b.Close()
	whole, err := io.ReadAll(io.LimitReader(r.Body, b.length+1))
	if err != nil {
		return nil, err
	}
	if int64(len(whole)) != b.length {
		return nil, fmt.Errorf("http: ContentLength=%d with Body length %d", b.length, len(whole))
	}
	b.whole = whole
	return b, nil
}

// Close closes the body, as RoundTrip has to.
func (b *Body) Close() {
	b.close.Do(func() {
		if b.r.Body != nil {
			_ = b.r.Body.Close()
		}
	})
}

// Rewind reports whether another attempt can send the body.
func (b *Body) Rewind() bool { return !b.touched }

// sent reports whether all of it goes out with the head.
func (b *Body) sent() bool { return b.length == 0 || b.whole != nil }

// upload moves the body while the response is waited for.
func (b *Body) upload(u exchange.Up) {
	defer close(b.donec)
	defer b.Close()
	mem := buf.Get(buf.Large)
	defer mem.Free()
	for {
		n, err := b.r.Body.Read(mem.B)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			u.Cancel(err)
			return
		}
		var trailer *message.Header
		if last {
			trailer = &message.Header{}
			CopyHeader(trailer, b.r.Trailer)
		}
		if err := u.SendBody(mem.B[:n], last, trailer); err != nil {
			var re *reason.Error
			if !errors.As(err, &re) || re.Reason != reason.UpstreamReset {
				u.Cancel(err)
			}
			return // an origin that has closed may have answered before
		}
		if last {
			return
		}
	}
}

// running reports whether the upload has not ended.
func (b *Body) running() bool {
	if b.donec == nil {
		return false
	}
	select {
	case <-b.donec:
		return false
	default:
		return true
	}
}

// finish gives u back: to the pool, if keep is set and the upload ends in time.
// It does not wait: a body need not look at anything.
func (b *Body) finish(u exchange.Up, keep bool) {
	if !b.running() {
		giveBack(u, keep)
		return
	}
	go func() {
		if keep {
			timer := time.NewTimer(lastWrite)
			select {
			case <-b.donec:
			case <-timer.C:
				keep = false
			}
			timer.Stop()
		}
		if !keep {
			u.Cancel(errOver)
			b.Close()
			<-b.donec
		}
		giveBack(u, keep)
	}()
}

func giveBack(u exchange.Up, keep bool) {
	if keep {
		u.Release()
	} else {
		u.Close()
	}
}

// Ask sends a request on u and returns the response when its head is there. Its body
// goes on behind it, if need be. U is given back when the body of the response is
// over, or at once after an error; again reports that nothing was sent, on a
// connection that had served before. Proto is how the origin speaks, wrap makes the
// caller's errors.
func Ask(u exchange.Up, r *http.Request, b *Body, w *Watcher, proto string, wrap func(error) error) (resp *http.Response, again bool, err error) {
	var req message.Request
	var m message.Response
	Request(&req, r, b.length)
	if len(r.Trailer) > 0 && !req.Header.Has("Trailer") {
		req.Header.Add("Trailer", strings.Join(slices.Sorted(maps.Keys(r.Trailer)), ", "))
	}
	w.Watch(u)
	if err = u.Send(&req, b.whole, b.sent()); err == nil && !b.sent() {
		b.touched, b.donec = true, make(chan struct{})
		go b.upload(u)
	}
	if err == nil {
		err = readHead(u, b, &m)
	}
	if err == nil {
		return b.answer(u, r, &m, w, proto, wrap), false, nil
	}
	w.Unwatch()
	again = !u.Sent() && u.Reused()
	b.finish(u, false)
	if cause := r.Context().Err(); cause != nil {
		return nil, false, cause
	}
	return nil, again, wrap(err)
}

// readHead reads heads until the final one. An origin may wait for the rest of the
// body: that time is not its own.
func readHead(u exchange.Up, b *Body, m *message.Response) error {
	for interims := 0; interims <= maxInterim; {
		running := b.running()
		err := u.ReadHead(m)
		var re *reason.Error
		switch {
		case running && errors.As(err, &re) && re.Reason == reason.UpstreamTimeout:
		case err != nil:
			return err
		case m.Status == http.StatusSwitchingProtocols:
			return &reason.Error{Reason: reason.UpstreamUnexpectedSwitch}
		case m.Status >= 200:
			return nil
		default:
			interims++
		}
	}
	return &reason.Error{Reason: reason.UpstreamInterimLimit}
}

// answer returns the response that m is.
func (b *Body) answer(u exchange.Up, r *http.Request, m *message.Response, w *Watcher, proto string, wrap func(error) error) *http.Response {
	h := response(r, m, proto)
	rr := &reader{u: u, w: w, body: b, m: m, h: h, wrap: wrap}
	h.Body = rr
	if r.Method == http.MethodHead || m.Status == 204 || m.Status == 304 || m.Length() == 0 {
		if u.BodyReady() {
			if p, last, err := u.ReadBody(); err == nil && last && len(p) == 0 {
				rr.end(true)
				h.Body = http.NoBody
			}
		}
	}
	return h
}

// reader is the body of a response.
type reader struct {
	u    exchange.Up
	w    *Watcher
	body *Body
	m    *message.Response
	h    *http.Response
	wrap func(error) error

	once   sync.Once
	closed atomic.Bool

	mu   sync.Mutex // held by Read: Close may be called beside it
	rest []byte     // Guarded by mu.
	last bool       // Guarded by mu.
}

// Read implements io.Reader.
func (b *reader) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	for len(b.rest) == 0 {
		if b.last {
			b.trailers()
			b.end(true)
			return 0, io.EOF
		}
		var err error
		if b.rest, b.last, err = b.u.ReadBody(); err != nil {
			b.end(false)
			if cause := context.Cause(b.w.Context); cause != nil {
				return 0, cause
			}
			return 0, b.wrap(err)
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// trailers fills the response's Trailer, which it does once: Read has returned EOF
// then.
func (b *reader) trailers() {
	for name, value := range b.m.Trailer.All() {
		if b.h.Trailer == nil {
			b.h.Trailer = http.Header{}
		}
		b.h.Trailer.Add(name, value)
	}
	b.m.Trailer.Reset()
}

// Close implements io.Closer.
func (b *reader) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.w.Cancel(http.ErrBodyReadAfterClose) // ends a Read that waits
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(false)
	return nil
}

func (b *reader) end(keep bool) {
	b.once.Do(func() {
		b.w.Unwatch()
		b.body.finish(b.u, keep)
	})
}
