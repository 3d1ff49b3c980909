// Package metrics counts what a proxy does, for Prometheus: requests by route,
// status class and reason, how long they took, bytes, requests in flight, and at
// each scrape the numbers of Servers and Transports. It is a filter on the
// public API alone.
//
// Counting a request allocates nothing and looks no label up: the hooks add to
// padded atomics of their route, and only a scrape gives them names.
//
// All labels are bounded. Route, server and transport names come from the
// configuration; routes beyond Options.MaxRoutes are counted together. Status
// classes and reasons are closed lists. There is no label for anything that a
// client chooses, such as a host or a path.
package metrics

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cirqueproxy/cirque"
)

// Options say what is counted and how finely. The zero value works.
type Options struct {
	// Buckets are the upper bounds of the duration histogram, rising. If empty,
	// they are those of [DefaultBuckets]. At most 64 are allowed.
	Buckets []time.Duration

	// MaxRoutes bounds the values of the label route, each of which takes a few
	// KiB here and many series in Prometheus. Requests of further routes are
	// counted as "(other)". If zero or negative, 1,000.
	MaxRoutes int

	// NoRuntime leaves out the numbers of the Go runtime and of the process.
	NoRuntime bool
}

// DefaultBuckets returns the bounds of the duration histogram when Options says
// nothing else.
func DefaultBuckets() []time.Duration {
	const ms = time.Millisecond
	return []time.Duration{
		ms / 2, ms, 5 * ms / 2, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		1000 * ms, 2500 * ms, 5000 * ms, 10 * time.Second, 30 * time.Second, 60 * time.Second,
	}
}

const (
	defaultMaxRoutes = 1000
	// maxBuckets bounds a histogram: each bucket is a series per route.
	maxBuckets = 64
)

// Metrics are the counters of a process. They serve all its Servers, Proxies
// and Transports at once, and outlive them: a Proxy that takes another's place
// under the same name goes on with its numbers.
//
// Metrics is a prometheus.Collector, for programs with a registry of their own.
type Metrics struct {
	// Immutable after New.
	buckets   []time.Duration
	maxRoutes int
	registry  *prometheus.Registry

	routes routes

	mu         sync.Mutex
	servers    map[string]*cirque.Server    // Guarded by mu.
	transports map[string]*cirque.Transport // Guarded by mu.
}

// New returns Metrics, or what is wrong with the options.
func New(o Options) (*Metrics, error) {
	m := &Metrics{
		buckets: slices.Clone(o.Buckets), maxRoutes: o.MaxRoutes, registry: prometheus.NewRegistry(),
		servers: map[string]*cirque.Server{}, transports: map[string]*cirque.Transport{},
	}
	if len(m.buckets) == 0 {
		m.buckets = DefaultBuckets()
	}
	if m.maxRoutes <= 0 {
		m.maxRoutes = defaultMaxRoutes
	}
	if err := checkBuckets(m.buckets); err != nil {
		return nil, err
	}
	cs := []prometheus.Collector{m}
	if !o.NoRuntime {
		cs = append(cs, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	for _, c := range cs {
		if err := m.registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: register: %w", err)
		}
	}
	return m, nil
}

func checkBuckets(buckets []time.Duration) error {
	if len(buckets) > maxBuckets {
		return fmt.Errorf("metrics: %d buckets, at most %d are allowed", len(buckets), maxBuckets)
	}
	last := time.Duration(0)
	for _, b := range buckets {
		if b <= last {
			return errors.New("metrics: the buckets must be positive and rise")
		}
		last = b
	}
	return nil
}

// Handler returns what answers a scrape. Several may run at once.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Registerer returns where a program adds metrics of its own, which Handler then
// shows too. Their labels are the program's to bound.
func (m *Metrics) Registerer() prometheus.Registerer { return m.registry }

// AddServer shows the numbers of a server under a name, that of the
// configuration. A server of that name that was there before is forgotten.
func (m *Metrics) AddServer(name string, srv *cirque.Server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.servers[name] = srv
}

// AddTransport shows the numbers of a transport under a name. A transport of
// that name that was there before is forgotten.
func (m *Metrics) AddTransport(name string, t *cirque.Transport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.transports[name] = t
}
