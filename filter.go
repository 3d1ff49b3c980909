package cirque

import (
	"fmt"
	"slices"
)

// Filter is a named set of hooks. A nil hook costs nothing. Filters are
// shared by all sessions: what belongs to one session goes into a [Key].
//
// Request, Forward, Connected, UpstreamRequest and RequestBody hooks run in the
// order of Proxy.Filters, response hooks in reverse, so that each filter wraps
// those after it. A hook that returns an error ends the request: with the status
// of [Reject] if it made the error, else with 500. A hook that called
// [Session.Respond] ends it with that response.
type Filter struct {
	// Name says which filter it is, in logs and errors. It must be unique within
	// a Proxy and not empty.
	Name string

	// Request runs when the head was read and validated.
	Request func(s *Session) error
	// Forward runs when an upstream is certainly needed: the place for what is
	// costly to check.
	Forward func(s *Session) error
	// Connected runs when a connection to the peer was made or taken from the
	// pool, once per attempt.
	Connected func(s *Session) error
	// UpstreamRequest runs before the head goes out, once per attempt, on a
	// fresh copy without hop-by-hop fields; it edits s.UpstreamRequest().
	UpstreamRequest func(s *Session) error
	// RequestBody gets each piece of the request body on its way up, once per
	// request whatever the attempts. See [BodyHook]. It may run when a response is
	// on its way already, but never while another hook of the session runs: the
	// session is as it was left by the last one, its response included.
	RequestBody BodyHook

	// UpstreamResponse gets the final head as the origin sent it, in
	// s.Response(), without hop-by-hop fields. An error fails the attempt.
	UpstreamResponse func(s *Session) error
	// UpstreamResponseBody gets each piece of the body after it.
	UpstreamResponseBody BodyHook
	// Interim gets each 1xx response, in s.Response(), on its way down;
	// s.Drop() keeps it from the client.
	Interim func(s *Session) error
	// Response gets the final head about to go to the client, whoever made it,
	// once per session.
	Response func(s *Session) error
	// ResponseBody gets each piece of the body after it.
	ResponseBody BodyHook
	// ResponseTrailer runs after the last piece, when s.Response().Trailer is
	// complete and before it is sent.
	ResponseTrailer func(s *Session) error

	// Failed runs when an attempt failed. Nil leaves it to the retry ladder
	// whether there is another; an error gives up with it.
	Failed func(s *Session, err *Error) error
	// Done runs when the session is over, always and exactly once, with the
	// final error or nil. The session is invalid after it.
	Done func(s *Session, err error)
}

// BodyHook gets a piece of a body and returns what is sent in its place. B is
// borrowed until the hook returns; what is returned may be b, and is borrowed
// until the next call. Nil holds back. Exactly one call has last set, also for
// an empty body. A hook that changes the length of a body says so before the
// head goes out, with SetLength on the message.
type BodyHook func(s *Session, b []byte, last bool) ([]byte, error)

type hook[F any] struct {
	name  string
	index int // of the filter
	run   F
}

type headHook = hook[func(*Session) error]

// plan is a list of filters as one slice per phase. Immutable.
type plan struct {
	hooked bool // there is a filter at all

	request, forward, connected, upstreamRequest []headHook
	requestBody                                  []hook[BodyHook]

	// In reverse order of the filters.
	upstreamResponse, interim, response, responseTrailer []headHook
	upstreamResponseBody, responseBody                   []hook[BodyHook]

	failed []hook[func(*Session, *Error) error]
	done   []hook[func(*Session, error)]
}

// compile checks a list of filters and lays it out by phase.
func compile(filters []Filter) (*plan, error) {
	p := &plan{hooked: len(filters) > 0}
	seen := map[string]bool{}
	for i := range filters {
		f := &filters[i]
		if f.Name == "" {
			return nil, fmt.Errorf("filter %d has no name", i)
		}
		if seen[f.Name] {
			return nil, fmt.Errorf("two filters are called %q", f.Name)
		}
		seen[f.Name] = true
		p.add(f, i)
	}
	slices.Reverse(p.upstreamResponse)
	slices.Reverse(p.interim)
	slices.Reverse(p.response)
	slices.Reverse(p.responseTrailer)
	slices.Reverse(p.upstreamResponseBody)
	slices.Reverse(p.responseBody)
	return p, nil
}

func (p *plan) add(f *Filter, i int) {
	head := func(list *[]headHook, run func(*Session) error) {
		if run != nil {
			*list = append(*list, headHook{f.Name, i, run})
		}
	}
	body := func(list *[]hook[BodyHook], run BodyHook) {
		if run != nil {
			*list = append(*list, hook[BodyHook]{f.Name, i, run})
		}
	}
	head(&p.request, f.Request)
	head(&p.forward, f.Forward)
	head(&p.connected, f.Connected)
	head(&p.upstreamRequest, f.UpstreamRequest)
	head(&p.upstreamResponse, f.UpstreamResponse)
	head(&p.interim, f.Interim)
	head(&p.response, f.Response)
	head(&p.responseTrailer, f.ResponseTrailer)
	body(&p.requestBody, f.RequestBody)
	body(&p.upstreamResponseBody, f.UpstreamResponseBody)
	body(&p.responseBody, f.ResponseBody)
	if f.Failed != nil {
		p.failed = append(p.failed, hook[func(*Session, *Error) error]{f.Name, i, f.Failed})
	}
	if f.Done != nil {
		p.done = append(p.done, hook[func(*Session, error)]{f.Name, i, f.Done})
	}
}
