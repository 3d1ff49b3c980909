package cirque

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

var errUpward = errors.New("there is a response already: a RequestBody hook can end it only with an error")

var errBegun = errors.New("the response has begun, another cannot take its place")

var errBadStatus = errors.New("the status of a local response must be between 200 and 999")

// serve runs the session. Its steps, in order:
//
//	route     find the Proxy
//	admit     what the engine itself refuses: CONNECT, a path that hides something, a loop
//	Request   hooks
//	Forward   hooks
//	forward   attempts, until one gives a response that is relayed to the client
//	finish    local response or error page, where nothing was relayed; Done hooks
func (s *Session) serve() {
	defer s.finish()
	err := s.guard((*Session).request)
	if err == nil && !s.responded {
		err = s.guard((*Session).forward)
	}
	if err == nil || errors.Is(err, errResponded) {
		err = nil
		if s.responded {
			s.lastErr = nil // a hook made something of it
			err = s.guard((*Session).sendLocal)
		}
	}
	if err != nil {
		s.fail(err)
	}
}

// guard turns a panic of a hook into an error.
func (s *Session) guard(step func(*Session) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.panicked(v)
		}
	}()
	return step(s)
}

func (s *Session) panicked(v any) error {
	s.keepOut = true // what the hook left half done must not meet another request
	if v == http.ErrAbortHandler {
		// net/http's way to cut a response: it is no accident.
		s.down.Abort(nil)
		return aborted()
	}
	e := &Error{Reason: reason.HookPanic, Err: fmt.Errorf("%v\n%s", v, debug.Stack())}
	if s.server != nil {
		s.server.panics.Add(1)
	}
	return e
}

func aborted() error { return &Error{Reason: reason.HookError, Err: http.ErrAbortHandler} }

// request is the part of a session that needs no upstream.
func (s *Session) request() error {
	if err := s.admit(); err != nil {
		return err
	}
	if err := s.runHead(s.plan.request); err != nil {
		return err
	}
	return s.runHead(s.plan.forward)
}

// runHead runs the hooks of one request phase, in list order.
func (s *Session) runHead(hooks []headHook) error {
	for i := range hooks {
		h := &hooks[i]
		s.localFrom = h.index // a response that the hook makes is this filter's
		if err := s.ran(h.name, h.index, h.run(s)); err != nil {
			return err
		}
		if s.down.Started() {
			return errResponded // an http.Handler answered, or took the connection
		}
	}
	s.localFrom = -1
	return nil
}

// ran is what follows each hook: it names the filter in an error and notes who
// responded.
func (s *Session) ran(name string, index int, err error) error {
	if s.responded {
		s.localFrom = index
		return errResponded
	}
	if err == nil || errors.Is(err, errResponded) {
		return err
	}
	e := toError(err, reason.HookError)
	if e.Hook == "" {
		c := *e
		c.Hook = name
		e = &c
	}
	return e
}

// runResponse runs the Response hooks, once per session: all of them, or for a
// response made in filter i those of the filters before it.
func (s *Session) runResponse() error {
	if s.respHooks {
		return nil
	}
	s.respHooks = true
	var replaced error
	for i := range s.plan.response {
		h := &s.plan.response[i]
		if s.localFrom >= 0 && h.index >= s.localFrom {
			continue
		}
		switch err := s.ran(h.name, h.index, h.run(s)); {
		case errors.Is(err, errResponded):
			// Another response, which the remaining hooks, all of filters before
			// this one, see.
			replaced, s.responded = err, false
		case err != nil:
			return err
		}
	}
	s.responded = replaced != nil
	return replaced
}

// runBody passes a piece through the hooks of a body phase.
func (s *Session) runBody(hooks []hook[BodyHook], b []byte, last bool) ([]byte, error) {
	for i := range hooks {
		h := &hooks[i]
		if s.localFrom >= 0 && h.index >= s.localFrom {
			continue
		}
		had := s.responded
		var err error
		b, err = h.run(s, b, last)
		switch {
		case s.responded && !had:
			s.localFrom = h.index
			return nil, errResponded
		case err != nil:
			e := *toError(err, reason.HookError)
			e.Hook = h.name
			return nil, &e
		}
	}
	return b, nil
}

// sendLocal sends the response that a hook or the error page made.
func (s *Session) sendLocal() error {
	s.phase = phaseResponse
	s.responded = false // from here on it is a response like any other
	s.grpcLocal()
	s.localFields()
	if err := s.runResponse(); errors.Is(err, errResponded) {
		s.responded = false
		s.grpcLocal()
		s.localFields()
	} else if err != nil {
		return err
	}
	body := s.local
	s.dropBody()
	if err := s.down.WriteHead(&s.resp); err != nil {
		return err
	}
	if len(s.plan.responseBody) > 0 {
		var err error
		if body, err = s.runBody(s.plan.responseBody, body, true); err != nil {
			return err
		}
	}
	if err := s.runTrailer(); err != nil {
		return err
	}
	if s.noBody() {
		body = nil
	}
	s.sentBody += int64(len(body))
	return s.down.WriteBody(body, true, &s.resp.Trailer)
}

// dropBody drops what is there of a request body that a local response did not
// ask for.
func (s *Session) dropBody() {
	if s.conn.h1 != nil && !s.duplex {
		s.conn.h1.DropReady()
	}
}

// noBody reports whether the response has no body whatever its length says.
func (s *Session) noBody() bool {
	return s.down.Bodiless(s.resp.Status)
}

func (s *Session) runTrailer() error {
	for i := range s.plan.responseTrailer {
		h := &s.plan.responseTrailer[i]
		if s.localFrom >= 0 && h.index >= s.localFrom {
			continue
		}
		if err := s.ran(h.name, h.index, h.run(s)); err != nil {
			return err
		}
	}
	return nil
}

// localFields completes a response that no origin made.
//
// RFC 9110, section 6.6.1: an origin server with a clock sends a Date; for a
// local response that is us.
func (s *Session) localFields() {
	h := &s.resp.Header
	s.resp.SetLength(int64(len(s.local)))
	if s.resp.Status == 304 {
		s.resp.SetLength(-1) // nobody said how long the other response is
	}
	if !h.HasID(message.IDDate) {
		h.SetID(message.IDDate, s.date())
	}
	if !h.HasID(message.IDServer) {
		h.SetID(message.IDServer, serverName)
	}
}

var serverName = []byte("cirque")

// finish ends the session: Done hooks, counters, the log.
func (s *Session) finish() {
	if s.total != nil {
		if s.total.stop() {
			s.down.ResumeBody() // what it interrupted is over
		}
	}
	s.phase = phaseDone
	var err error
	if s.lastErr != nil {
		err = s.lastErr
		s.logError()
	}
	for i := range s.plan.done {
		s.runDone(&s.plan.done[i], err)
	}
	if s.cancelCtx != nil {
		s.cancelCtx(errSessionDone)
	}
	s.body.release()
	if s.server != nil {
		s.server.count(s)
	}
}

var errSessionDone = errors.New("the session is done")

func (s *Session) runDone(h *hook[func(*Session, error)], err error) {
	defer func() {
		if v := recover(); v != nil {
			s.lastErr = s.panicked(v).(*Error)
			s.logError()
		}
	}()
	h.run(s, err)
}

// logError reports the session's error to who wants it.
func (s *Session) logError() {
	defer func() {
		if v := recover(); v != nil && s.server != nil {
			s.server.panics.Add(1)
			s.server.logger().Error("LogError panicked", "panic", v)
		}
	}()
	switch {
	case s.proxy != nil && s.proxy.LogError != nil:
		s.proxy.LogError(s, s.lastErr)
	case s.server != nil:
		s.server.logError(s, s.lastErr)
	}
}
