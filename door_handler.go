package cirque

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cirqueproxy/cirque/message"
)

// This file is the first door to net/http: a Handler that runs inside a Session.

// sniffBytes is how much of a response is looked at before its head goes out:
// as much as net/http keeps back to know a short body's length, and more than
// http.DetectContentType wants.
const sniffBytes = 2048

// ServeHTTP answers the request with an http.Handler, on the session's
// goroutine, as net/http's server would: the body streams both ways, and all of
// http.ResponseController works. The response passes the Response, ResponseBody
// and ResponseTrailer hooks of the filters before the present one. A hook
// returns its result. It is for Request and Forward hooks.
func (s *Session) ServeHTTP(h http.Handler) error {
	s.keepOut = true // the handler may keep the *http.Request
	s.answering = true
	req, err := s.httpRequest()
	if err != nil {
		return Reject(http.StatusBadRequest, err)
	}
	// The handler's context ends when the client leaves.
	s.down.Watch(contextCanceler{s.cancelCtx})
	defer s.down.Unwatch()
	w := &responseWriter{s: s, header: http.Header{}, req: req}
	// A goroutine of the handler's that outlives it must not read or write what
	// belongs to the connection's next request.
	defer w.close()
	h.ServeHTTP(w, req)
	if w.hijacked {
		return errResponded
	}
	return w.finish()
}

// contextCanceler lets a session's context be ended as an exchange.Canceler.
type contextCanceler struct{ end context.CancelCauseFunc }

// Cancel implements exchange.Canceler.
func (c contextCanceler) Cancel(cause error) { c.end(cause) }

// httpRequest returns the request as net/http has it.
func (s *Session) httpRequest() (*http.Request, error) {
	r := (&http.Request{
		Method: s.req.Method(), Proto: s.Protocol(), ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Host: s.req.Authority(), RequestURI: s.req.Target(),
		ContentLength: s.req.Length(), TLS: s.conn.state(),
	}).WithContext(s.Context())
	if s.Protocol() == "HTTP/1.0" {
		r.ProtoMinor = 0
	}
	if a := s.ClientAddr(); a.IsValid() {
		r.RemoteAddr = a.String()
	}
	var err error
	if r.URL, err = url.ParseRequestURI(s.req.Target()); err != nil {
		return nil, err
	}
	for name, value := range s.req.Header.All() {
		if !strings.EqualFold(name, "Host") {
			key := http.CanonicalHeaderKey(name)
			r.Header[key] = append(r.Header[key], value)
		}
	}
	r.Body = http.NoBody
	if r.ContentLength != 0 {
		r.Body = &requestReader{s: s, req: r}
	}
	return r, nil
}

// close ends what the handler may have kept.
func (w *responseWriter) close() {
	if r, ok := w.req.Body.(*requestReader); ok {
		r.Close()
	}
	w.over = true
}

// requestReader is the request body as an io.ReadCloser.
type requestReader struct {
	s    *Session
	req  *http.Request
	rest []byte
	err  error
}

// Read implements io.Reader.
func (r *requestReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *requestReader) fill() {
	b := &r.s.body
	if !b.continued {
		b.continued = true
		if !r.s.down.BodyReady() {
			if r.err = r.s.down.Continue(); r.err != nil {
				return
			}
		}
	}
	piece, err := b.next(r.s)
	switch {
	case err != nil:
		r.err = err
	case b.last:
		r.err = io.EOF
		for name, value := range r.s.req.Trailer.All() {
			if r.req.Trailer == nil {
				r.req.Trailer = http.Header{}
			}
			r.req.Trailer.Add(name, value)
		}
	}
	r.rest = append(r.rest[:0], piece...)
}

// Close implements io.Closer.
func (r *requestReader) Close() error {
	r.rest, r.err = nil, http.ErrBodyReadAfterClose
	return nil
}

// responseWriter answers a Session through net/http's interface.
type responseWriter struct {
	s        *Session
	req      *http.Request
	header   http.Header
	live     http.Header // what Header returns once header is settled: for trailers
	trailers []string    // announced by the Trailer field
	early    []byte      // written before the head went out
	status   int         // 0: WriteHeader was not called
	left     int64       // of an announced length; -1: none
	sent     bool        // the head went out
	hijacked bool
	over     bool // the handler has returned
	duplex   bool // the request is read beside the response
	err      error
}

// Header implements http.ResponseWriter.
func (w *responseWriter) Header() http.Header {
	if w.live != nil {
		return w.live
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter.
func (w *responseWriter) WriteHeader(status int) {
	switch {
	case w.hijacked || w.status != 0:
		return
	case status < 100 || status > 999:
		panic("cirque: invalid status " + strconv.Itoa(status))
	case status < 200 && status != http.StatusSwitchingProtocols:
		w.interim(status)
		return
	}
	w.status = status
	w.left = -1
	w.live, w.header = w.header, w.header.Clone()
	if v := w.header.Get("Content-Length"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			w.header.Del("Content-Length")
		} else {
			w.left = n
		}
	}
	for _, v := range w.header["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			w.trailers = append(w.trailers, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
}

func (w *responseWriter) interim(status int) {
	r := &message.Response{Status: status}
	w.copyFields(&r.Header)
	if err := w.s.down.WriteInterim(r); err != nil {
		w.err = err
	}
}

// Write implements http.ResponseWriter.
func (w *responseWriter) Write(b []byte) (int, error) {
	if w.hijacked {
		return 0, http.ErrHijacked
	}
	if w.over {
		return 0, http.ErrHandlerTimeout
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.status == 204 || w.status == 304 {
		return 0, http.ErrBodyNotAllowed
	}
	if w.left >= 0 {
		if w.left -= int64(len(b)); w.left < 0 {
			w.left = 0
			return 0, http.ErrContentLength
		}
	}
	if !w.sent && len(w.early)+len(b) <= sniffBytes {
		w.early = append(w.early, b...)
		return len(b), w.err
	}
	if err := w.begin(b, false); err != nil {
		return 0, err
	}
	return len(b), w.body(b, false)
}

// WriteString implements io.StringWriter.
func (w *responseWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// begin sends the head and what was held back. Next is what the body goes on
// with; whole says that nothing else follows.
func (w *responseWriter) begin(next []byte, whole bool) error {
	if w.sent || w.err != nil {
		return w.err
	}
	w.sent = true
	s := w.s
	sample := w.early
	if len(sample) == 0 {
		sample = next
	}
	if _, ok := w.header["Content-Type"]; !ok && len(sample) > 0 && w.header.Get("Content-Encoding") == "" {
		w.header.Set("Content-Type", http.DetectContentType(sample))
	}
	s.resp.Reset()
	s.resp.Status = w.status
	length := int64(-1)
	if v := w.header.Get("Content-Length"); v != "" {
		length, _ = strconv.ParseInt(v, 10, 64)
	} else if whole && len(w.trailers) == 0 && (len(w.early) > 0 || !s.noBody()) {
		length = int64(len(w.early))
	}
	w.copyFields(&s.resp.Header)
	if w.header.Get("Connection") == "close" {
		s.CloseAfter()
	}
	s.resp.SetLength(length)
	if !s.resp.Header.HasID(message.IDDate) {
		s.resp.Header.SetID(message.IDDate, s.date())
	}
	s.phase = phaseResponse
	w.endRequest()
	if w.err = s.runResponse(); w.err == nil {
		w.err = s.down.WriteHead(&s.resp)
	}
	if w.err == nil && len(w.early) > 0 {
		w.err = w.body(w.early, false)
	}
	w.early = nil
	return w.err
}

// copyFields copies the handler's fields, in the order in which net/http sends
// them.
func (w *responseWriter) copyFields(h *message.Header) {
	names := make([]string, 0, len(w.header))
	for name := range w.header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, http.TrailerPrefix) || slices.Contains(w.trailers, name) || name == "Connection" || name == "Transfer-Encoding" {
			continue
		}
		for _, v := range w.header[name] {
			h.Add(name, newlines.Replace(v))
		}
	}
}

// newlines does to a value what net/http does.
var newlines = strings.NewReplacer("\n", " ", "\r", " ")

// body sends a piece through the hooks.
func (w *responseWriter) body(b []byte, last bool) error {
	s := w.s
	if s.noBody() {
		b = nil
	}
	if len(s.plan.responseBody) > 0 {
		var err error
		if b, err = s.runBody(s.plan.responseBody, b, last); err != nil {
			w.err = err
			return err
		}
	}
	var trailer *message.Header
	if last {
		w.copyTrailers(&s.resp.Trailer)
		if w.err = s.runTrailer(); w.err != nil {
			return w.err
		}
		trailer = &s.resp.Trailer
	}
	if len(b) == 0 && !last {
		return nil
	}
	s.sentBody += int64(len(b))
	w.err = s.down.WriteBody(b, last, trailer)
	return w.err
}

func (w *responseWriter) copyTrailers(h *message.Header) {
	for _, name := range w.trailers {
		for _, v := range w.live[name] {
			h.Add(name, newlines.Replace(v))
		}
	}
	for name, values := range w.live {
		if t, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			for _, v := range values {
				h.Add(t, newlines.Replace(v))
			}
		}
	}
}

// finish completes the response when the handler has returned.
func (w *responseWriter) finish() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if err := w.begin(nil, true); err != nil {
		return err
	}
	if w.left > 0 && !w.s.noBody() {
		// The handler promised more than it wrote: the client must see that.
		w.s.down.Abort(nil)
		return io.ErrUnexpectedEOF
	}
	if err := w.body(nil, true); err != nil {
		return err
	}
	return errResponded
}

// Flush implements http.Flusher.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController's Flush calls.
func (w *responseWriter) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if err := w.begin(nil, false); err != nil {
		return err
	}
	return w.s.down.Flush()
}

// EnableFullDuplex is what http.ResponseController's method calls: the request
// body can be read while the response is written.
func (w *responseWriter) EnableFullDuplex() error {
	w.duplex = true
	return nil
}

// endRequest ends the reading of the request body when the response begins, as
// net/http does: a handler that did not read it does not want it.
func (w *responseWriter) endRequest() {
	r, ok := w.req.Body.(*requestReader)
	if !ok || w.duplex || w.s.down.BodyEnded() {
		return
	}
	w.s.dropBody()
	r.rest, r.err = nil, http.ErrBodyReadAfterClose
}

// SetReadDeadline is what http.ResponseController's method calls.
func (w *responseWriter) SetReadDeadline(t time.Time) error { return w.s.conn.setReadDeadline(t) }

// SetWriteDeadline is what http.ResponseController's method calls.
func (w *responseWriter) SetWriteDeadline(t time.Time) error { return w.s.conn.setWriteDeadline(t) }

var errHijackLate = errors.New("cirque: the response has begun, the connection cannot be taken over")

// Hijack implements http.Hijacker.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.sent {
		return nil, nil, errHijackLate
	}
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	if w.s.conn.h1 == nil {
		return nil, nil, http.ErrNotSupported
	}
	w.hijacked = true
	nc := w.s.conn.h1.Hijack()
	return nc, bufio.NewReadWriter(bufio.NewReader(nc), bufio.NewWriter(nc)), nil
}
