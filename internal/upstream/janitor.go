package upstream

import (
	"errors"
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
)

// startJanitor has check called while there are idle connections.
func (p *Pool) startJanitor() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startJanitorLocked()
}

func (p *Pool) startJanitorLocked() {
	if p.janitor == nil && !p.closed {
		p.janitor = time.AfterFunc(checkEvery, p.check)
	}
}

// check looks at every idle connection once, and has itself called again while
// there is something to look at.
func (p *Pool) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for key, e := range p.entries {
		e.mu.Lock()
		p.checkLocked(e)
		e.unused++
		if e.total == 0 && len(e.waiters) == 0 && e.unused > forgetAfter {
			e.dead = true
			delete(p.entries, key)
		}
		e.mu.Unlock()
	}
	if p.idle.Load() > 0 || len(p.entries) > 0 {
		p.janitor.Reset(checkEvery)
		return
	}
	p.janitor = nil
}

// checkLocked closes the idle connections of an entry that can no longer be
// used.
func (p *Pool) checkLocked(e *Entry) {
	now := p.sweep.NowExact()
	p.checkH2Locked(e, now)
	kept := e.idle[:0]
	for _, u := range e.idle {
		err := error(nil)
		expired := u.expired(now)
		if !expired {
			err = u.wc.Stray()
		}
		switch {
		case expired:
			p.retired.Add(1)
		case errors.Is(err, wire.ErrStray):
			p.strays.Add(1)
		case err == nil:
			kept = append(kept, u)
			continue
		}
		p.idle.Add(-1)
		p.dropLocked(e, u)
	}
	clear(e.idle[len(kept):])
	e.idle = kept
}

// CloseIdle closes all idle connections.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeIdleLocked()
}

func (p *Pool) closeIdleLocked() {
	for _, e := range p.entries {
		e.mu.Lock()
		for _, u := range e.idle {
			p.idle.Add(-1)
			p.dropLocked(e, u)
		}
		clear(e.idle)
		e.idle = e.idle[:0]
		e.drainH2Locked()
		e.mu.Unlock()
	}
}

// Close closes all idle connections, and each busy one when its exchange ends.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.shut.Store(true)
	if p.janitor != nil {
		p.janitor.Stop()
	}
	p.closeIdleLocked()
	for key, e := range p.entries {
		e.mu.Lock()
		e.dead = true
		e.mu.Unlock()
		delete(p.entries, key)
	}
}
