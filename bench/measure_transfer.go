//go:build linux

package main

import (
	"os"
	"path/filepath"
	"time"
)

// transferLimit is how long one transfer may take.
const transferLimit = 60 * time.Second

// transfers sends or fetches one large body after another, each on a connection
// of its own, until measure is over.
func transfers(spec loadSpec) (*loadResult, error) {
	sum := &loadResult{errors: map[string]int64{}}
	for sum.elapsed < spec.measure {
		l, err := newLoader(spec)
		if err != nil {
			return sum, err
		}
		// The handshake is over, and is not what is measured.
		l.counts = true
		from := l.clock()
		l.until(time.Duration(from)+transferLimit, func() bool { return l.flying == 0 && l.free.n == 0 })
		sum.elapsed += time.Duration(l.clock() - from)
		l.drain()
		l.close()
		sum.completed += l.res.completed
		sum.all += l.res.all
		for why, n := range l.res.errors {
			sum.errors[why] += n
		}
		if l.res.errorCount() > 0 {
			break
		}
	}
	return sum, nil
}

// mibps is the throughput of a transfer's result.
func mibps(res *loadResult) float64 {
	return float64(res.completed) * transferSize / mib / res.elapsed.Seconds()
}

// measureTransfer runs one round of a transfer.
func (b *bench) measureTransfer(s *scenario, r *running, n int) (round, error) {
	out := round{Scenario: s.name, Peer: r.peer.name, Round: n}
	spec := b.loadOf(s, r)
	before, err := r.ask()
	if err != nil {
		return out, err
	}
	from := takeProbe(r.pids)
	res, err := transfers(spec)
	if err != nil {
		return out, err
	}
	to := takeProbe(r.pids)
	after, err := r.ask()
	if err != nil {
		return out, err
	}
	out.fill(res, from, to, b.proxyCPUs(s))
	out.MiBps = mibps(res)
	out.CPUPerMiB = out.CPU / (transferSize / mib)
	out.PeakRSS = memoryOf(r.pids, "VmHWM")
	out.OriginSaw = after.Requests - before.Requests
	out.prove(res, after.Bad-before.Bad, after.FirstBad)
	out.proveOrigin(s, after)
	// With a delay it is the windows that are measured, and the CPU has time.
	out.Dropped = out.Foreign > foreignLimit && !b.opts.Quick && s.delay == 0
	return out, nil
}

// ceiling measures what a transfer has without any proxy: what the load
// generator, the relay and an origin with endless windows can do.
func (b *bench) ceiling(s *scenario) error {
	bare := &running{}
	defer func() { bare.stop() }()
	dir, err := os.MkdirTemp(b.dir, "bare-")
	if err != nil {
		return err
	}
	if bare.listen, err = b.startOrigin(bare, s, filepath.Join(dir, "origin")); err != nil {
		return err
	}
	if err := b.startRelay(bare, s, filepath.Join(dir, "relay")); err != nil {
		return err
	}
	spec := b.loadOf(s, bare)
	spec.tls = nil // the origin has none
	res, err := transfers(spec)
	if err != nil {
		return err
	}
	b.note("%s: without a proxy and without TLS, load generator, relay and origin move %.0f MiB/s (%d transfers, %d errors)",
		s.name, mibps(res), res.completed, res.errorCount())
	return nil
}

// startRelay puts a relay before the proxy, if the scenario has a delay.
func (b *bench) startRelay(r *running, s *scenario, log string) error {
	if s.delay == 0 {
		return nil
	}
	hold := s.delay / 2 // in each direction
	var fields []string
	var err error
	r.relay, fields, err = b.startHelper(log, 1, "relay", "-to", r.listen, "-hold", hold.String())
	if err != nil {
		return err
	}
	r.front = fields[0]
	return nil
}
