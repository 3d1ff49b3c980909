package metrics

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cirque_"+name, help, labels, nil)
}

// What there is. The names are a promise to dashboards: changing one is a
// change of the interface.
var (
	descRequests = desc("requests_total", "Requests that are over, by route, class of the status and why they ended.", "route", "class", "reason")
	descDuration = desc("request_duration_seconds", "Time from the request head to the end of the response.", "route")
	descInFlight = desc("requests_in_flight", "Requests that are being served.", "route")
	descReceived = desc("request_body_bytes_total", "Bytes of request bodies from clients.", "route")
	descSent     = desc("response_body_bytes_total", "Bytes of response bodies to clients.", "route")

	descConns    = desc("connections", "Client connections by what they do.", "server", "state")
	descAccepted = desc("connections_accepted_total", "Client connections that were accepted.", "server")
	descRefused  = desc("connections_refused_total", "Client connections that a connection filter refused.", "server")
	descEnds     = desc("connection_ends_total", "Client connections that ended, by reason.", "server", "reason")
	descSessions = desc("server_requests_total", "Requests that are over, those that reached no route included.", "server")
	descFailures = desc("server_failures_total", "Requests that ended with an error, by reason.", "server", "reason")
	descPanics   = desc("hook_panics_total", "Panics in hooks.", "server")

	descConnects = desc("upstream_connects_total", "Connections made to origins.", "transport")
	descReuses   = desc("upstream_reuses_total", "Requests sent on a connection that had served another.", "transport")
	descStrays   = desc("upstream_strays_total", "Connections to origins dropped for bytes that nobody had asked for.", "transport")
	descEvicted  = desc("upstream_evicted_total", "Idle connections to origins dropped because there were too many.", "transport")
	descRetired  = desc("upstream_retired_total", "Connections to origins closed for age, number of requests or idle time.", "transport")
	descUpConns  = desc("upstream_connections", "Connections to origins now.", "transport", "state")
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRequests, descDuration, descInFlight, descReceived, descSent,
		descConns, descAccepted, descRefused, descEnds, descSessions, descFailures, descPanics,
		descConnects, descReuses, descStrays, descEvicted, descRetired, descUpConns,
	} {
		c <- d
	}
}

func counter(c chan<- prometheus.Metric, d *prometheus.Desc, n int64, labels ...string) {
	c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func gauge(c chan<- prometheus.Metric, d *prometheus.Desc, n int64, labels ...string) {
	c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	if all := m.routes.byName.Load(); all != nil {
		for _, r := range *all {
			m.collectRoute(c, r)
		}
	}
	m.mu.Lock()
	servers, transports := maps.Clone(m.servers), maps.Clone(m.transports)
	m.mu.Unlock()
	for name, srv := range servers {
		collectServer(c, name, srv)
	}
	for name, t := range transports {
		collectTransport(c, name, t)
	}
}

// collectRoute adds the shards up. Counters that are zero for now are left out,
// but for that of success: a series per reason would be noise.
func (m *Metrics) collectRoute(c chan<- prometheus.Metric, r *route) {
	var ok [len(classes)]int64
	var inFlight, received, sent, ns int64
	counts := make([]int64, len(m.buckets)+1)
	for i := range r.shards {
		s := &r.shards[i]
		inFlight += s.inFlight.Load()
		received += s.received.Load()
		sent += s.sent.Load()
		ns += s.nanoseconds.Load()
		for j := range ok {
			ok[j] += s.ok[j].Load()
		}
		for j := range counts {
			counts[j] += s.buckets[j].Load()
		}
	}
	for class, n := range ok {
		if n > 0 || class == 2 {
			counter(c, descRequests, n, r.name, classes[class], reason.None.String())
		}
		for why := range r.failed[class] {
			if n := r.failed[class][why].Load(); n > 0 {
				counter(c, descRequests, n, r.name, classes[class], cirque.Reason(why).String())
			}
		}
	}
	gauge(c, descInFlight, max(inFlight, 0), r.name)
	counter(c, descReceived, received, r.name)
	counter(c, descSent, sent, r.name)
	total, bounds := uint64(0), make(map[float64]uint64, len(m.buckets))
	for i, n := range counts {
		total += uint64(n)
		if i < len(m.buckets) {
			bounds[m.buckets[i].Seconds()] = total
		}
	}
	c <- prometheus.MustNewConstHistogram(descDuration, total, float64(ns)/1e9, bounds, r.name)
}

func collectServer(c chan<- prometheus.Metric, name string, srv *cirque.Server) {
	st := srv.Stats()
	gauge(c, descConns, st.ConnsNew, name, "new")
	gauge(c, descConns, st.ConnsActive, name, "active")
	gauge(c, descConns, st.ConnsIdle, name, "idle")
	gauge(c, descConns, st.ConnsParked, name, "parked")
	counter(c, descAccepted, st.Accepted, name)
	counter(c, descRefused, st.Refused, name)
	counter(c, descSessions, st.Requests, name)
	counter(c, descPanics, st.Panics, name)
	for _, why := range slices.Sorted(maps.Keys(st.Ends)) {
		counter(c, descEnds, st.Ends[why], name, why.String())
	}
	for _, why := range slices.Sorted(maps.Keys(st.Failures)) {
		counter(c, descFailures, st.Failures[why], name, why.String())
	}
}

func collectTransport(c chan<- prometheus.Metric, name string, t *cirque.Transport) {
	st := t.Stats()
	counter(c, descConnects, st.Connects, name)
	counter(c, descReuses, st.Reuses, name)
	counter(c, descStrays, st.Strays, name)
	counter(c, descEvicted, st.Evicted, name)
	counter(c, descRetired, st.Retired, name)
	gauge(c, descUpConns, st.Idle, name, "idle")
	gauge(c, descUpConns, max(st.Conns-st.Idle, 0), name, "busy")
}
