//go:build linux

package main

import (
	"fmt"
	"os"
	"time"
)

// foreignLimit is the share of the proxy's CPU that others may take before a
// round is dropped.
const foreignLimit = 0.15

// round is what one measurement of one proxy says.
type round struct {
	Scenario string `json:"scenario"`
	Peer     string `json:"peer"`
	Round    int    `json:"round"`

	Requests   int64            `json:"requests"`
	Seconds    float64          `json:"seconds"`
	Rate       float64          `json:"requests_per_second"`
	CPU        float64          `json:"cpu_us_per_request"`
	Machine    float64          `json:"machine_us_per_request"` // of all CPUs, and of everyone on them
	Busy       float64          `json:"proxy_busy"`             // share of its CPUs that the proxy used
	Foreign    float64          `json:"foreign"`                // share of them that others used
	P50        float64          `json:"p50_us"`
	P99        float64          `json:"p99_us"`
	P999       float64          `json:"p999_us"`
	PeakRSS    int64            `json:"peak_rss_bytes"`
	Errors     map[string]int64 `json:"errors,omitempty"`
	OfferedPS  float64          `json:"offered_per_second,omitempty"`
	AllDone    int64            `json:"requests_with_warmup"`
	OriginSaw  int64            `json:"origin_requests_with_warmup"`
	NewOrigin  int64            `json:"new_origin_connections"`
	NewPer1000 float64          `json:"new_origin_connections_per_1000"`
	Resumed    int64            `json:"handshakes_resumed,omitempty"`
	MiBps      float64          `json:"mib_per_second,omitempty"`
	CPUPerMiB  float64          `json:"cpu_us_per_mib,omitempty"`

	IdleConns   int     `json:"idle_connections,omitempty"`
	IdleOpen    int     `json:"idle_still_open,omitempty"`
	IdleOrigin  int64   `json:"idle_origin_connections,omitempty"`
	RSSPerIdle  float64 `json:"rss_bytes_per_idle_connection,omitempty"`
	Dropped     bool    `json:"dropped,omitempty"`
	Problem     string  `json:"problem,omitempty"`
	AccessLines int64   `json:"access_log_bytes,omitempty"`
}

func (r round) String() string {
	s := fmt.Sprintf("%-12s %2d  %8.1f µs  %7.0f/s  p50 %6.0f p99 %6.0f µs  busy %3.0f%%  foreign %2.0f%%",
		r.Peer, r.Round, r.CPU, r.Rate, r.P50, r.P99, 100*r.Busy, 100*r.Foreign)
	if r.MiBps > 0 {
		s = fmt.Sprintf("%-12s %2d  %8.1f µs/MiB  %7.0f MiB/s  busy %3.0f%%  foreign %2.0f%%", r.Peer, r.Round, r.CPUPerMiB, r.MiBps, 100*r.Busy, 100*r.Foreign)
	}
	if r.IdleConns > 0 {
		s = fmt.Sprintf("%-12s %2d  %.1f KiB for each of %d idle connections", r.Peer, r.Round, r.RSSPerIdle/1024, r.IdleConns)
	}
	if r.Dropped {
		s += "  dropped"
	}
	if r.Problem != "" {
		s += "  PROBLEM: " + r.Problem
	}
	return s
}

// measure runs one round.
func (b *bench) measure(s *scenario, r *running, n int) (round, error) {
	if s.idle {
		return b.measureIdle(s, r, n)
	}
	if s.transfer {
		return b.measureTransfer(s, r, n)
	}
	out := round{Scenario: s.name, Peer: r.peer.name, Round: n}
	spec := b.loadOf(s, r)
	if s.latency {
		spec.rate = b.saturated / 2
		out.OfferedPS = spec.rate
	}
	before, err := r.ask()
	if err != nil {
		return out, err
	}
	var from, to probe
	var fromOrigin, toOrigin originStats
	res, err := runShakesOrLoad(s, spec, func(end bool) {
		if end {
			to, toOrigin = takeProbe(r.pids), must(r.ask())
		} else {
			fromOrigin, from = must(r.ask()), takeProbe(r.pids)
		}
	})
	if err != nil {
		return out, err
	}
	after, err := r.ask()
	if err != nil {
		return out, err
	}
	out.fill(res, from, to, b.proxyCPUs(s))
	out.NewOrigin = toOrigin.Connections - fromOrigin.Connections
	out.NewPer1000 = 1000 * float64(out.NewOrigin) / float64(max(1, res.completed))
	out.PeakRSS = memoryOf(r.pids, "VmHWM")
	out.OriginSaw = after.Requests - before.Requests
	if s.grpc() {
		out.OriginSaw = after.Messages - before.Messages
	}
	out.prove(res, after.Bad-before.Bad, after.FirstBad)
	out.proveOrigin(s, after)
	out.proveShakes(s, res)
	if s.twoCPUs {
		// The load and the origin are on the proxy's CPUs: no telling who is foreign.
		out.Foreign = 0
	}
	// What reuse counts does not depend on who else had the CPU.
	out.Dropped = out.Foreign > foreignLimit && !b.opts.Quick && s.originIdle == 0
	if r.logFile != "" {
		out.checkLog(r)
	}
	return out, nil
}

// loadOf is what clients do in s.
func (b *bench) loadOf(s *scenario, r *running) loadSpec {
	spec := s.load
	if spec.addr = r.front; spec.addr == "" {
		spec.addr = r.listen
	}
	spec.tls = b.tlsOf(s)
	spec.measure = b.opts.Measure * time.Duration(max(1, s.stretch))
	if spec.warm = s.warm; spec.warm == 0 {
		spec.warm = time.Second
	}
	if b.opts.Quick {
		spec.measure, spec.warm = b.opts.Measure, b.opts.Measure/2
	}
	return spec
}

func runShakesOrLoad(s *scenario, spec loadSpec, edge func(end bool)) (*loadResult, error) {
	if s.shakes != noShakes {
		return runHandshakes(spec, s.shakes == resumedShakes, edge), nil
	}
	return runLoad(spec, edge)
}

// waitQuiet waits until the proxy's CPU has been quiet for a moment, or for as
// long as it may. What comes after may still be noise, and is dropped then.
func (b *bench) waitQuiet() {
	const moment = 200 * time.Millisecond
	for end := time.Now().Add(b.opts.QuietWait); time.Now().Before(end); {
		from := busy()[b.opts.ProxyCPU]
		time.Sleep(moment)
		if float64(busy()[b.opts.ProxyCPU]-from) < foreignLimit*float64(moment) {
			return
		}
	}
}

// must turns an origin that cannot be asked into one that saw nothing, which
// no round survives.
func must(s originStats, err error) originStats {
	if err != nil {
		return originStats{}
	}
	return s
}

func (r *round) fill(res *loadResult, from, to probe, cpus []int) {
	r.Requests, r.AllDone = res.completed, res.all
	r.Seconds = res.elapsed.Seconds()
	r.Rate = float64(res.completed) / r.Seconds
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(1, res.completed)) }
	r.CPU = per(to.proxy - from.proxy)
	r.Machine = per(machine(from, to))
	r.Busy = float64(to.proxy-from.proxy) / float64(to.at.Sub(from.at)) / float64(len(cpus))
	r.Foreign = foreign(from, to, cpus)
	us := func(q float64) float64 { return float64(res.latency.quantile(q)) / 1000 }
	r.P50, r.P99, r.P999 = us(0.50), us(0.99), us(0.999)
	if len(res.errors) > 0 {
		r.Errors = res.errors
	}
}

// prove says what is wrong if the requests did not all go to the origin, each
// once, and come back right. The load generator has checked status, length and
// content.
func (r *round) prove(res *loadResult, bad int64, firstBad string) {
	switch errors := res.errorCount(); {
	case errors > 0:
		r.Problem = fmt.Sprintf("%d errors of %d: %v", errors, errors+res.all, res.errors)
	case res.completed == 0:
		r.Problem = "no request was answered"
	case bad > 0:
		r.Problem = fmt.Sprintf("the origin refused %d requests: %s", bad, firstBad)
	case r.OriginSaw != res.all:
		r.Problem = fmt.Sprintf("%d answers, but the origin counted %d requests", res.all, r.OriginSaw)
	}
}

// proveOrigin says what is wrong if the proxy spoke another protocol to the
// origin than the one that is measured.
func (r *round) proveOrigin(s *scenario, o originStats) {
	wrong := o.H2Connections
	if s.h2Origin {
		wrong = o.H1Connections
	}
	if wrong > 0 && r.Problem == "" {
		r.Problem = fmt.Sprintf("%d connections to the origin were HTTP/1, %d HTTP/2", o.H1Connections, o.H2Connections)
	}
}

// proveShakes says what is wrong if sessions were resumed that should not be,
// or the other way around.
func (r *round) proveShakes(s *scenario, res *loadResult) {
	if s.shakes == noShakes {
		return
	}
	r.Resumed = res.resumed
	want := int64(0)
	if s.shakes == resumedShakes {
		want = res.completed
	}
	if r.Resumed != want && r.Problem == "" {
		r.Problem = fmt.Sprintf("%d of %d handshakes resumed a session", r.Resumed, res.completed)
	}
}

// checkLog proves that an access log was written, and empties it.
func (r *round) checkLog(run *running) {
	if st, err := os.Stat(run.logFile); err == nil {
		r.AccessLines = st.Size()
	}
	if r.AccessLines < 20*r.Requests && r.Problem == "" {
		r.Problem = fmt.Sprintf("the access log has %d bytes after %d requests", r.AccessLines, r.Requests)
	}
	_ = os.Truncate(run.logFile, 0)
}

// saturate finds out how much nginx can do, for the rate of the open loop.
func (b *bench) saturate(s *scenario, all []*running) error {
	from := all[0]
	for _, r := range all {
		if r.peer.name == "nginx" {
			from = r
		}
	}
	closed := *s
	closed.latency, closed.stretch = false, 1
	var best float64
	for kept, tries := 0, 0; kept < min(3, b.opts.Rounds) && tries < 3*b.opts.Rounds; tries++ {
		b.waitQuiet()
		one, err := b.measure(&closed, from, 0)
		if err != nil {
			return err
		}
		best = max(best, one.Rate)
		if !one.Dropped {
			kept++
		}
	}
	b.saturated = best
	b.note("latency: %s saturates at %.0f requests a second; all get half of that", from.peer.name, best)
	return nil
}

// measureIdle reads the memory that connections hold which have had a request
// each, all at the same time, and are idle since.
func (b *bench) measureIdle(s *scenario, r *running, n int) (round, error) {
	out := round{Scenario: s.name, Peer: r.peer.name, Round: n}
	// The proxy needs two descriptors for each, and so few more that this does.
	conns := min(b.opts.Idle, (b.files-1000)/2)
	if conns < b.opts.Idle && n == 1 && r.peer.name == "cirque" {
		b.note(s.name+": %d connections, not %d: the limit is %d descriptors", conns, b.opts.Idle, b.files)
	}
	spec := b.loadOf(s, r)
	spec.conns = conns
	before, err := r.ask()
	if err != nil {
		return out, err
	}
	empty := memoryOf(r.pids, "VmRSS")
	l, err := newLoader(spec)
	if err != nil {
		return out, err
	}
	defer l.close()
	l.counts = true
	l.until(2*time.Minute, func() bool { return l.flying == 0 && l.free.n == 0 })
	l.res.elapsed = time.Duration(l.clock())
	l.until(time.Duration(l.clock())+b.opts.IdleWait, edgeNone)
	l.drain()
	after, err := r.ask()
	if err != nil {
		return out, err
	}
	out.Requests, out.AllDone, out.OriginSaw = l.res.completed, l.res.all, after.Requests-before.Requests
	out.Seconds = l.res.elapsed.Seconds()
	out.PeakRSS = memoryOf(r.pids, "VmHWM")
	out.IdleConns, out.IdleOpen, out.IdleOrigin = conns, l.res.open, after.Open
	out.RSSPerIdle = float64(memoryOf(r.pids, "VmRSS")-empty) / float64(conns)
	if len(l.res.errors) > 0 {
		out.Errors = l.res.errors
	}
	out.prove(&l.res, after.Bad-before.Bad, after.FirstBad)
	if out.Problem == "" && out.IdleOpen < conns {
		out.Problem = fmt.Sprintf("only %d of %d connections are still open", out.IdleOpen, conns)
	}
	return out, nil
}
