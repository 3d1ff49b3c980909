package cirque

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// statusClientGone is what the log says of a client that left before there was
// a response. It is never sent.
const statusClientGone = 499

// fail ends a session that has an error: with an error page while the client
// has nothing, else with a visible cut.
func (s *Session) fail(err error) {
	e := toError(err, reason.HookError)
	s.lastErr = e
	if s.down.Started() || errors.Is(err, http.ErrAbortHandler) {
		s.down.Abort(err)
		return
	}
	status := e.Status()
	if e.Reason == reason.TotalTimeout {
		s.down.ResumeBody() // what ended the wait must not end the answer
	}
	if status == 0 {
		s.resp.Status = statusClientGone
		s.down.Abort(err)
		return
	}
	if err := s.guard(func(s *Session) error { return s.errorPage(e, status) }); err != nil {
		if !s.down.Started() {
			s.resp.Status = statusClientGone
		}
		s.lastErr = toError(err, reason.HookError)
		s.down.Abort(err)
	}
}

// errorPage makes and sends the response to a failed request.
func (s *Session) errorPage(e *Error, status int) error {
	allow := s.resp.Header.Get("Allow")
	s.resp.Reset()
	s.foreign = false
	if e.Reason == reason.MethodRefused {
		s.resp.Header.Set("Allow", allow)
	}
	s.phase, s.responded, s.localFrom = phaseRequest, false, -1
	if s.proxy != nil && s.proxy.ErrorPage != nil && !s.isGRPC() {
		if err := s.proxy.ErrorPage(s, e); err != nil && !errors.Is(err, errResponded) {
			return err
		}
		s.localFrom = -1
	}
	if !s.responded {
		s.plainPage(e, status)
	}
	return s.sendLocal()
}

// plainPage is the page of the engine: status, reason and request id, and
// nothing of what is behind this proxy.
func (s *Session) plainPage(e *Error, status int) {
	h := &s.resp.Header
	h.SetID(message.IDCacheControl, []byte("private, no-store"))
	text := message.StatusText(status)
	if s.isGRPC() {
		_ = s.Respond(status, text+": "+e.Reason.String()+" (request id "+s.ID()+")")
		return
	}
	if s.wantsProblem() {
		h.SetID(message.IDContentType, []byte("application/problem+json"))
		_ = s.Respond(status, `{"type":"about:blank","title":`+strconv.Quote(text)+`,"status":`+strconv.Itoa(status)+
			`,"reason":"`+e.Reason.String()+`","request_id":"`+jsonSafe(s.ID())+"\"}\n")
		return
	}
	_ = s.Respond(status, strconv.Itoa(status)+" "+text+"\nreason: "+e.Reason.String()+"\nrequest id: "+s.ID()+"\n")
}

// jsonSafe drops what would end a JSON string: a trusted client's id is passed
// on as it came.
func jsonSafe(id string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == '\\' || r > '~' {
			return -1
		}
		return r
	}, id)
}

// wantsProblem reports whether the client takes JSON rather than text.
func (s *Session) wantsProblem() bool {
	accept := s.req.Header.Get("Accept")
	return strings.Contains(accept, "application/problem+json") ||
		(strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/"))
}
