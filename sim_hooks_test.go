package cirque_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

// simSession is what the hooks know of a session.
type simSession struct {
	q        *simReq // nil: the head was refused
	busy     atomic.Int32
	done     atomic.Bool
	logged   int
	response int // calls of the Response hook
	upLast   int // calls of the RequestBody hook with last
	downLast int
	slept    time.Duration
	ctx      context.Context
	buffered bool
	up, down bytes.Buffer // held back
}

var simKey = cirque.NewKey[*simSession]("simulation")

// simSessions are those of a run, and what the observers learned.
type simSessions struct {
	mu       sync.Mutex
	all      []*simSession // Guarded by mu.
	done     int           // Guarded by mu.
	failed   int           // Guarded by mu.
	attempts int           // Guarded by mu: as the sessions count them.

	began, ended atomic.Int64 // attempts, as the observers count them
}

func (y *simSessions) running() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.all) - y.done
}

// of returns the session's record.
func (y *simSessions) of(s *sim, x *cirque.Session) *simSession {
	rec := simKey.Get(x)
	if rec == nil {
		rec = &simSession{q: s.reqs[x.Request().Header.Get("X-Sim-Id")]}
		simKey.Set(x, rec)
		y.mu.Lock()
		y.all = append(y.all, rec)
		y.mu.Unlock()
	}
	return rec
}

// enter begins a hook; what it returns ends it.
func (s *sim) enter(x *cirque.Session, phase string) (*simSession, func()) {
	rec := s.sessions.of(s, x)
	if !rec.busy.CompareAndSwap(0, 1) {
		s.failf("request %s: the hook %s runs while another does", rec.id(), phase)
	}
	if rec.done.Load() {
		s.failf("request %s: the hook %s runs after Done", rec.id(), phase)
	}
	// Whoever may run beside this hook gets the chance to.
	for range 3 {
		runtime.Gosched()
	}
	return rec, func() { rec.busy.Store(0) }
}

func (rec *simSession) id() string {
	if rec.q == nil {
		return "none"
	}
	return rec.q.id
}

// logged returns the Proxy's LogError.
func (y *simSessions) logged(s *sim) func(*cirque.Session, *cirque.Error) {
	return func(x *cirque.Session, e *cirque.Error) {
		rec := y.of(s, x)
		rec.logged++
		s.note(rec.id(), "error: %v", e)
	}
}

// filters returns the hooks, in an order of the seed's.
func (s *sim) filters() []cirque.Filter {
	list := []cirque.Filter{s.chaosFilter(), s.watchFilter("watch"), {Name: "use", Request: s.useHook}}
	if s.set.upperUp {
		list = append(list, cirque.Filter{Name: "upper up", RequestBody: func(_ *cirque.Session, b []byte, _ bool) ([]byte, error) {
			return bytes.ToUpper(b), nil
		}})
	}
	if s.set.upperDown {
		list = append(list, cirque.Filter{Name: "upper down", UpstreamResponseBody: func(_ *cirque.Session, b []byte, _ bool) ([]byte, error) {
			return bytes.ToUpper(b), nil
		}})
	}
	if s.set.holdUp {
		list = append(list, cirque.Filter{Name: "hold up", RequestBody: func(x *cirque.Session, b []byte, last bool) ([]byte, error) {
			return holdBack(&s.sessions.of(s, x).up, b, last), nil
		}})
	}
	if s.set.holdDown {
		list = append(list, cirque.Filter{Name: "hold down", ResponseBody: func(x *cirque.Session, b []byte, last bool) ([]byte, error) {
			return holdBack(&s.sessions.of(s, x).down, b, last), nil
		}})
	}
	if s.set.growDown {
		list = append(list, s.growFilter())
	}
	s.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// useHook uses what a Session offers besides.
func (s *sim) useHook(x *cirque.Session) error {
	rec, exit := s.enter(x, "use")
	defer exit()
	r := newSimRand(s.seed, "use", rec.id())
	if r.chance(15) {
		rec.ctx = x.Context()
	}
	if r.chance(10) {
		x.Keep()
	}
	if rec.q == nil || s.set.calm || !r.chance(10) {
		return nil
	}
	b, err := x.BufferRequest(50_000)
	if err == nil && !bytes.Equal(b, rec.q.body) {
		s.failf("request %s: a hook read a body of %d bytes, want %d", rec.id(), len(b), len(rec.q.body))
	}
	if err == nil {
		s.tally.add("buffered")
	}
	rec.buffered = true
	return err
}

func holdBack(held *bytes.Buffer, b []byte, last bool) []byte {
	held.Write(b)
	if !last {
		return nil
	}
	return held.Bytes()
}

// growFilter makes the bodies of origins longer.
func (s *sim) growFilter() cirque.Filter {
	grows := func(x *cirque.Session) bool {
		switch x.Response().Status {
		case 101, 204, 304:
			return false
		}
		return x.Request().Method() != "HEAD" && x.Request().Method() != "CONNECT"
	}
	return cirque.Filter{
		Name: "grow",
		UpstreamResponse: func(x *cirque.Session) error {
			if grows(x) {
				x.Response().SetLength(-1)
			}
			return nil
		},
		UpstreamResponseBody: func(x *cirque.Session, b []byte, last bool) ([]byte, error) {
			if last && grows(x) {
				b = append(bytes.Clone(b), simGrown(s.sessions.of(s, x).id())...)
			}
			return b, nil
		},
	}
}

// watchFilter checks when hooks run.
func (s *sim) watchFilter(name string) cirque.Filter {
	head := func(phase string) func(*cirque.Session) error {
		return func(x *cirque.Session) error {
			_, exit := s.enter(x, phase)
			exit()
			return nil
		}
	}
	return cirque.Filter{
		Name: name, Request: head("request"), Forward: head("forward"), Connected: head("connected"),
		UpstreamRequest: head("upstreamRequest"), UpstreamResponse: head("upstreamResponse"),
		Interim: head("interim"), ResponseTrailer: head("trailer"),
		RequestBody: func(x *cirque.Session, b []byte, last bool) ([]byte, error) {
			rec, exit := s.enter(x, "requestBody")
			defer exit()
			s.countLast(rec, "request", &rec.upLast, last)
			s.look(x, rec)
			return b, nil
		},
		ResponseBody: func(x *cirque.Session, b []byte, last bool) ([]byte, error) {
			rec, exit := s.enter(x, "responseBody")
			defer exit()
			s.countLast(rec, "response", &rec.downLast, last)
			s.look(x, rec)
			return b, nil
		},
		Failed: func(x *cirque.Session, e *cirque.Error) error {
			rec, exit := s.enter(x, "failed")
			defer exit()
			s.note(rec.id(), "attempt failed: %v sent %v reused %v", e, e.Sent, e.Reused)
			return nil
		},
		Done: s.doneHook,
	}
}

// look looks at all that a hook may, and changes what does no harm: the race
// detector sees it where the other goroutine of the session does so too.
func (s *sim) look(x *cirque.Session, rec *simSession) {
	n := x.Snapshot()
	if n.Attempt.Number != x.Attempts() || n.Status != x.Response().Status || rec.q != nil && n.Request.Header.Get("X-Sim-Id") != rec.id() {
		s.failf("request %s: a hook sees attempt %d of %d, status %d of %d", rec.id(), n.Attempt.Number, x.Attempts(), n.Status, x.Response().Status)
	}
	x.Response().Header.Set("X-Sim-Seen", "yes")
	x.Request().Header.Set("X-Sim-Seen", "yes")
}

func (s *sim) countLast(rec *simSession, what string, n *int, last bool) {
	if *n > 0 {
		s.failf("request %s: a %s body goes on after its last piece", rec.id(), what)
	}
	if last {
		*n++
	}
}

// chaosFilter misbehaves where the request says so.
func (s *sim) chaosFilter() cirque.Filter {
	head := func(phase string) func(*cirque.Session) error {
		return func(x *cirque.Session) error {
			rec, exit := s.enter(x, phase)
			defer exit()
			if phase == "response" {
				if rec.response++; rec.response > 1 {
					s.failf("request %s: the Response hook runs again", rec.id())
				}
			}
			return s.chaos(x, rec, phase)
		}
	}
	body := func(phase string) cirque.BodyHook {
		return func(x *cirque.Session, b []byte, last bool) ([]byte, error) {
			rec, exit := s.enter(x, phase)
			defer exit()
			if !last && newSimRand(s.seed, "at the end", rec.id()).chance(50) {
				return b, nil
			}
			return b, s.chaos(x, rec, phase)
		}
	}
	return cirque.Filter{
		Name: "chaos", Request: head("request"), Forward: head("forward"), Connected: head("connected"),
		UpstreamRequest: head("upstreamRequest"), UpstreamResponse: head("upstreamResponse"),
		Interim: head("interim"), Response: head("response"), ResponseTrailer: head("trailer"),
		RequestBody: body("requestBody"), ResponseBody: body("responseBody"),
		Failed: func(x *cirque.Session, _ *cirque.Error) error { return head("failed")(x) },
		Done:   func(x *cirque.Session, _ error) { s.chaosDone(x) },
	}
}

func (s *sim) chaosDone(x *cirque.Session) {
	// After the hook that ends the record, where that comes first.
	if rec := s.sessions.of(s, x); rec.q.panicsAtEnd() {
		panic("done")
	}
}

// panicsAtEnd reports whether a Done hook panics, which is logged besides.
func (q *simReq) panicsAtEnd() bool { return q != nil && q.phase == "done" && q.chaos == chaosPanic }

var errChaos = errors.New("chaos")

// chaos is what the request's hook does. A hook that is called while another may
// wait for its turn does not sleep: who waits for a lock stops fake time.
func (s *sim) chaos(x *cirque.Session, rec *simSession, phase string) error {
	if rec.q == nil || rec.q.phase != phase || rec.q.chaos == chaosNone {
		return nil
	}
	s.note(rec.id(), "hook %s does %d", phase, rec.q.chaos)
	switch rec.q.chaos {
	case chaosSleep:
		switch phase {
		case "request", "forward", "connected", "upstreamRequest", "failed", "peer":
			d := newSimRand(s.seed, "sleep", rec.id()).between(0, 3*time.Second)
			rec.slept += d
			time.Sleep(d)
		}
		return nil
	case chaosRespond:
		err := x.Respond(200, "local "+rec.id()+"\n")
		var e *cirque.Error
		switch {
		case phase == "requestBody" && errors.As(err, &e):
			s.tally.add("too late for a body hook to respond")
		case phase == "requestBody":
			s.tally.add("a body hook responded")
		}
		return err
	case chaosReject:
		return cirque.Reject(418, errChaos)
	case chaosError:
		return errChaos
	}
	panic("chaos")
}

// choose is Proxy.Peer.
func (s *sim) choose(x *cirque.Session) (*cirque.Peer, error) {
	rec, exit := s.enter(x, "peer")
	defer exit()
	if err := s.chaos(x, rec, "peer"); err != nil {
		return nil, err
	}
	n := newSimRand(s.seed, "peer", rec.id()).IntN(len(s.peers))
	return s.peers[(n+x.Attempts())%len(s.peers)], nil
}

// errorPage is Proxy.ErrorPage in some runs.
func (s *sim) errorPage(x *cirque.Session, e *cirque.Error) error {
	rec, exit := s.enter(x, "errorPage")
	defer exit()
	x.Response().Header.Set("X-Sim-Page", rec.id())
	return x.Respond(e.Status(), "page\nreason: "+e.Reason.String()+"\n")
}

// doneHook is the end of a session.
func (s *sim) doneHook(x *cirque.Session, err error) {
	rec, exit := s.enter(x, "done")
	defer exit()
	if rec.done.Swap(true) {
		s.failf("request %s: Done runs twice", rec.id())
	}
	y := &s.sessions
	y.mu.Lock()
	y.done++
	y.attempts += x.Attempts()
	if err != nil {
		y.failed++
	}
	y.mu.Unlock()
	s.note(rec.id(), "done: status %d, %d attempts, %v", x.Response().Status, x.Attempts(), err)
	if x.Attempts() > 1 {
		s.tally.add("retried")
	}
	if x.Attempt().Reused {
		s.tally.add("reused")
	}
	s.checkDone(x, rec, err)
}

func (s *sim) checkDone(x *cirque.Session, rec *simSession, err error) {
	limit := s.set.total + rec.slept + 2*time.Second
	if rec.q != nil && rec.q.faulty.Load() {
		limit += s.set.write // a client that does not read its error page
	}
	if s.set.total > 0 && x.Attempts() > 0 && x.Elapsed() > limit {
		s.failf("request %s: took %v, with a total timeout of %v and hooks that slept %v", rec.id(), x.Elapsed(), s.set.total, rec.slept)
	}
	if rec.ctx != nil && rec.ctx.Err() != nil && err == nil {
		s.failf("request %s: the context ended before the session, which did not fail", rec.id())
	}
	if err == nil {
		if rec.logged != 0 && !rec.q.panicsAtEnd() {
			s.failf("request %s: an error was logged for a session without one", rec.id())
		}
		return
	}
	var e *cirque.Error
	if !errors.As(err, &e) || e.Reason == reason.None {
		s.failf("request %s: Done got %v, which has no reason", rec.id(), err)
		return
	}
	s.tally.add("error " + e.Reason.String())
	if rec.logged != 1 && !rec.q.panicsAtEnd() {
		s.failf("request %s: the error %v was logged %d times", rec.id(), e, rec.logged)
	}
	if s.set.calm && e.Reason != reason.MethodRefused {
		s.failf("request %s: failed in a calm run: %v", rec.id(), e)
	}
	s.checkReason(rec, e)
}

// checkReason checks that nobody is blamed who did nothing.
func (s *sim) checkReason(rec *simSession, e *cirque.Error) {
	q := rec.q
	if q == nil {
		return
	}
	ok := true
	switch e.Reason {
	case reason.ClientGone, reason.ClientReset:
		ok = q.faulty.Load() || s.isClosed()
	case reason.HookError, reason.HookPanic, reason.Refused:
		ok = q.chaos > chaosSleep
	case reason.BodyTooLarge:
		ok = s.set.maxBody > 0 && int64(len(q.body)) > s.set.maxBody || rec.buffered && len(q.body) > 50_000
	case reason.TotalTimeout:
		ok = s.set.total > 0
	case reason.MethodRefused:
		ok = q.connect
	case reason.ConnectionLimit:
		ok = s.tr.MaxConns > 0
	case reason.BadHookField, reason.BadHookBody, reason.NoRoute, reason.Loop, reason.UpstreamInterimLimit,
		reason.UpstreamTrailerTooLarge, reason.BadExpect, reason.BadHost, reason.BadFraming, reason.BadVersion, reason.BadPath, reason.BadChunk:
		ok = false
	}
	if !ok {
		s.failf("request %s: ended with %v for no reason", rec.id(), e)
	}
}

// check is done when all is over.
func (y *simSessions) check(s *sim) {
	y.mu.Lock()
	defer y.mu.Unlock()
	st := s.srv.Stats()
	var failures int64
	for _, n := range st.Failures {
		failures += n
	}
	donePanics := 0
	for _, rec := range y.all {
		if rec.ctx != nil && rec.ctx.Err() == nil {
			s.failf("request %s: the context lives on", rec.id())
		}
		if rec.q.panicsAtEnd() {
			donePanics++
		}
	}
	if len(y.all) != y.done || st.Requests != int64(y.done) {
		s.failf("%d sessions, %d Done hooks, %d counted", len(y.all), y.done, st.Requests)
	}
	if n := failures - int64(y.failed); n < 0 || n > int64(donePanics) {
		s.failf("%d sessions failed, %d counted, %d panics in Done", y.failed, failures, donePanics)
	}
	if b, e := y.began.Load(), y.ended.Load(); b != e || b != int64(y.attempts) {
		s.failf("%d attempts: the observers learned of %d beginnings and %d ends", y.attempts, b, e)
	}
}

// simObserver is a peer's.
type simObserver struct {
	s        *sim
	inFlight atomic.Int64
}

// Began implements cirque.Observer.
func (o *simObserver) Began(*cirque.Peer) {
	o.inFlight.Add(1)
	o.s.sessions.began.Add(1)
}

// Ended implements cirque.Observer.
func (o *simObserver) Ended(a cirque.Attempt) {
	if o.inFlight.Add(-1) < 0 {
		o.s.failf("an observer learns of an end without a beginning")
	}
	if a.Peer == nil || a.Number < 1 || a.Total < 0 {
		o.s.failf("an observer gets %+v", a)
	}
	o.s.sessions.ended.Add(1)
}
