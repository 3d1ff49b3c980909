package metrics

import (
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

// The names of routes that have none of their own.
const (
	routeNone  = "(none)"  // no Proxy, or one without a name
	routeOther = "(other)" // beyond MaxRoutes
)

// classes are the values of the label class. A status that is none of HTTP's
// counts as "other".
var classes = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func classOf(status int) int {
	if c := status / 100; c >= 1 && c <= 5 {
		return c
	}
	return 0
}

// maxShards bounds the copies of a route's hot counters: more cores than that
// share them two by two, which costs little, while each copy costs memory per
// route.
const maxShards = 16

// routes finds the counters of a route by its name. Reading takes no lock: the
// map is replaced as a whole when a name is new, which ends with the last name
// of the configuration.
type routes struct {
	byName atomic.Pointer[map[string]*route]
	mu     sync.Mutex // for who replaces it
}

// route holds the counters of one route. All of them only grow, but for those
// in flight.
type route struct {
	name   string
	shards []shard
	// failed counts what ended with a reason, by class. It is not sharded: many
	// failures at once are rare, and the table is large.
	failed [len(classes)][reason.Len]atomic.Int64
}

// shard is a copy of the counters that every request changes, so that cores do
// not wait for each other's cache lines. It is a multiple of a line in size, and
// its buckets are their own.
type shard struct {
	inFlight       atomic.Int64
	ok             [len(classes)]atomic.Int64 // reason none, by class
	received, sent atomic.Int64
	nanoseconds    atomic.Int64   // sum of durations; 292 years of them fit
	buckets        []atomic.Int64 // not cumulative; the last is for what is above all bounds
	_              [128 - (10*8+24)%128]byte
}

func newRoute(name string, buckets int) *route {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < maxShards {
		n *= 2
	}
	r := &route{name: name, shards: make([]shard, n)}
	for i := range r.shards {
		// A line before and behind, so that no two shards share one.
		all := make([]atomic.Int64, 8+buckets+1+8)
		r.shards[i].buckets = all[8 : 8+buckets+1 : 8+buckets+1]
	}
	return r
}

func (r *route) shard(i uint32) *shard { return &r.shards[i&uint32(len(r.shards)-1)] }

// get returns the counters of a route.
func (m *Metrics) get(name string) *route {
	if all := m.routes.byName.Load(); all != nil {
		if r := (*all)[name]; r != nil {
			return r
		}
	}
	return m.add(name)
}

// add makes the counters of a route that is new.
func (m *Metrics) add(name string) *route {
	m.routes.mu.Lock()
	defer m.routes.mu.Unlock()
	next := map[string]*route{}
	if all := m.routes.byName.Load(); all != nil {
		if r := (*all)[name]; r != nil {
			return r
		}
		// A name that is not the configuration's must not fill the memory of this
		// process and of Prometheus.
		if len(*all) >= m.maxRoutes {
			if r := (*all)[routeOther]; r != nil {
				return r
			}
			name = routeOther
		}
		next = maps.Clone(*all)
	}
	r := newRoute(name, len(m.buckets))
	next[name] = r
	m.routes.byName.Store(&next)
	return r
}

// begun is what a session's Request hook notes for its Done hook: a request
// whose head was refused has only the latter.
type begun struct {
	route *route
	shard uint32
}

var begunKey = cirque.NewKey[begun]("metrics")

// Filter returns the filter that counts the requests. It belongs at the front
// of a list, so that requests that other filters answer count as in flight too.
// One Filter may serve many Proxies.
func (m *Metrics) Filter() cirque.Filter {
	h := &hooks{m: m}
	return cirque.Filter{Name: "metrics", Request: h.request, Done: h.done}
}

// hooks are those of one Filter value.
type hooks struct {
	m *Metrics
	// last is the route of the last request: most filters serve one.
	last atomic.Pointer[route]
}

func (h *hooks) route(s *cirque.Session) *route {
	name := s.Route()
	if name == "" {
		name = routeNone
	}
	if r := h.last.Load(); r != nil && r.name == name {
		return r
	}
	r := h.m.get(name)
	h.last.Store(r)
	return r
}

func (h *hooks) request(s *cirque.Session) error {
	b := begun{h.route(s), rand.Uint32()}
	b.route.shard(b.shard).inFlight.Add(1)
	begunKey.Set(s, b)
	return nil
}

func (h *hooks) done(s *cirque.Session, err error) {
	b := begunKey.Get(s)
	if b.route == nil {
		b = begun{h.route(s), rand.Uint32()}
		b.route.shard(b.shard).inFlight.Add(1)
	}
	c := b.route.shard(b.shard)
	c.inFlight.Add(-1)
	class := classOf(s.Response().Status)
	if e, ok := err.(*cirque.Error); ok && e.Reason != reason.None {
		b.route.failed[class][e.Reason].Add(1)
	} else {
		c.ok[class].Add(1)
	}
	c.received.Add(s.BytesReceived())
	c.sent.Add(s.BytesSent())
	d := s.Elapsed()
	c.nanoseconds.Add(int64(d))
	c.buckets[h.m.bucket(d)].Add(1)
}

// bucket returns the index of the first bucket whose bound is not below d.
func (m *Metrics) bucket(d time.Duration) int {
	lo, hi := 0, len(m.buckets)
	for lo < hi {
		if mid := (lo + hi) / 2; m.buckets[mid] < d {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
