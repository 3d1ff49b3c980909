//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run of the command.
type bench struct {
	opts      *options
	root      string // the checkout
	dir       string // for this run's files, removed at the end
	out       string // where results are kept
	commit    string
	date      time.Time
	files     int // the limit of descriptors
	peers     []*peer
	versions  map[string]string // of those that were measured, by name
	scenarios []scenario
	missing   map[string]string // peers that cannot be had, and why
	notes     []string
	rounds    []round
	saturated float64 // requests a second of nginx, for the open loop
	cert      *certificate
}

func newBench(o *options) (*bench, error) {
	b := &bench{opts: o, date: time.Now().UTC(), versions: map[string]string{}, missing: map[string]string{}}
	if n := runtime.NumCPU(); n < 2 {
		return nil, errors.New("two CPUs are needed: one for the proxy, one for load and origin")
	}
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return nil, fmt.Errorf("find the checkout: %w", err)
	}
	b.root = strings.TrimSpace(string(root))
	if b.out = o.Out; b.out == "" {
		b.out = filepath.Join(b.root, "bench", "results")
	}
	b.commit = gitCommit(b.root)
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	// Workers of nginx may run as another user.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return nil, err
	}
	if b.cert, err = makeCertificate(b.dir); err != nil {
		return nil, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("ask for the limit of descriptors: %w", err)
	}
	b.files = int(min(limit.Cur, 100_000))
	if o.GoOn != "" {
		if err := b.goOn(o.GoOn); err != nil {
			return nil, err
		}
	}
	b.scenarios = choose(scenarios(), o.Scenarios)
	if len(b.scenarios) == 0 {
		return nil, fmt.Errorf("no scenario has %q in its name", o.Scenarios)
	}
	return b, nil
}

// gitCommit names the commit that the built code has, with a mark if files
// outside of the bench differ from it.
func gitCommit(root string) string {
	id, err := exec.Command("git", "-C", root, "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := strings.TrimSpace(string(id))
	if exec.Command("git", "-C", root, "diff", "--quiet", "HEAD", "--", ".", ":!bench").Run() != nil {
		commit += "-dirty"
	}
	return commit
}

// choose returns the scenarios that a list asks for: by name, or else by a part
// of the name.
func choose(all []scenario, list string) []scenario {
	if list == "" {
		return all
	}
	var chosen []scenario
	wanted := strings.Split(list, ",")
	for _, s := range all {
		for _, w := range wanted {
			if s.name == w || !isName(all, w) && strings.Contains(s.name, w) {
				chosen = append(chosen, s)
				break
			}
		}
	}
	return chosen
}

func isName(all []scenario, name string) bool {
	for _, s := range all {
		if s.name == name {
			return true
		}
	}
	return false
}

// preparePeers builds and finds the proxies. One that cannot be had is left
// out and named in the report.
func (b *bench) preparePeers() {
	for _, p := range append(allPeers(), otherBuilds(b.opts.Also)...) {
		if b.opts.Peers != "" && p.name != "cirque" && !p.asked && !strings.Contains(","+b.opts.Peers+",", ","+p.name+",") {
			continue
		}
		b.say("preparing %s", p.name)
		var err error
		if p.path, p.version, err = p.prepare(b); err != nil {
			b.missing[p.name] = err.Error()
			b.say("%s cannot be had: %v", p.name, err)
			continue
		}
		b.peers = append(b.peers, p)
		b.versions[p.name] = p.version
	}
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// pinSelf moves all threads of this process, and so all that it starts from
// here on, to one CPU and one priority.
func pinSelf(cpu, nice int) error {
	// Only a session of our own may be favoured: a shared one has others in it.
	if _, err := unix.Setsid(); err == nil {
		favour(os.Getpid(), nice)
	}
	var set unix.CPUSet
	set.Set(cpu)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, _ := strconv.Atoi(t.Name())
		if err := unix.SchedSetaffinity(tid, &set); err != nil {
			return fmt.Errorf("move to CPU %d: %w", cpu, err)
		}
		if nice == 0 {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil {
			return fmt.Errorf("take priority %d: %w", nice, err)
		}
	}
	return nil
}

// running is a proxy in a scenario with its own origin.
type running struct {
	peer    *peer
	proxy   *process
	origin  *process
	pids    []int
	relay   *process // nil: none
	listen  string
	front   string // where clients connect: listen, or the relay's address
	control string // of the origin
	logFile string
}

func (r *running) stop() {
	for _, p := range []*process{r.relay, r.proxy, r.origin} {
		if p != nil {
			p.stop()
		}
	}
}

// proxyCPUs are the CPUs that the proxy has in s.
func (b *bench) proxyCPUs(s *scenario) []int {
	if s.twoCPUs {
		return []int{b.opts.ProxyCPU, b.opts.LoadCPU}
	}
	return []int{b.opts.ProxyCPU}
}

// startAll starts every proxy with an origin of its own. Those that do not run
// are idle: they cost nothing but a little memory.
func (b *bench) startAll(s *scenario) ([]*running, error) {
	var all []*running
	for _, p := range b.peers {
		if why := s.without[p.name]; why != "" {
			b.note("%s is not in %s: %s", p.name, s.name, why)
			continue
		}
		r, err := b.start(p, s)
		if err == nil {
			all = append(all, r)
			continue
		}
		if p.name == "cirque" && !s.logs {
			stopAll(all)
			return nil, err
		}
		b.note("%s is missing from %s: %v", p.name, s.name, err)
	}
	return all, nil
}

func stopAll(all []*running) {
	for _, r := range all {
		r.stop()
	}
}

func (b *bench) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.say("%s", text)
	if !slices.Contains(b.notes, text) { // of an earlier piece
		b.notes = append(b.notes, text)
	}
}

func (b *bench) start(p *peer, s *scenario) (*running, error) {
	dir, err := os.MkdirTemp(b.dir, p.name+"-")
	if err != nil {
		return nil, err
	}
	r := &running{peer: p}
	addr, err := b.startOrigin(r, s, filepath.Join(dir, "origin"))
	if err != nil {
		return nil, err
	}
	if r.listen, err = freeAddr(); err != nil {
		r.stop()
		return nil, err
	}
	var cpus []string
	for _, n := range b.proxyCPUs(s) {
		cpus = append(cpus, strconv.Itoa(n))
	}
	set := &setup{Listen: r.listen, Origin: addr, Threads: max(s.threads, len(cpus)), CPUs: strings.Join(cpus, ","),
		Dir: dir, Bench: filepath.Join(b.root, "bench"), Files: b.files, Connections: (b.files - 600) / 2, Nice: b.opts.Nice,
		H2: s.h2(), H2Origin: s.h2Origin, GRPC: s.grpc(), Transfer: s.transfer, tls: b.tlsOf(s)}
	if s.tls {
		set.TLS, set.Cert, set.Key, set.CertKey = true, b.cert.cert, b.cert.key, b.cert.both
	}
	if s.logs {
		r.logFile = filepath.Join(dir, "access.log")
		set.Log = r.logFile
	}
	if r.proxy, err = p.start(set); err != nil {
		r.stop()
		return nil, err
	}
	r.pids = tree(r.proxy.cmd.Process.Pid)
	r.front = r.listen
	if err := b.startRelay(r, s, filepath.Join(dir, "relay")); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

func (b *bench) startOrigin(r *running, s *scenario, log string) (string, error) {
	p, addrs, err := b.startHelper(log, 2, "origin", "-idle", s.originIdle.String())
	if err != nil {
		return "", err
	}
	r.origin, r.control = p, addrs[1]
	return addrs[0], nil
}

// startHelper starts this program in another role, which says so many
// addresses when it is ready.
func (b *bench) startHelper(log string, addrs int, args ...string) (*process, []string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	p, err := startProcess(strconv.Itoa(b.opts.LoadCPU), log, b.opts.Nice, nil, append([]string{self}, args...)...)
	if err != nil {
		return nil, nil, err
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if f := strings.Fields(p.output()); len(f) == addrs {
			return p, f, nil
		}
	}
	p.stop()
	return nil, nil, fmt.Errorf("the %s does not start: %s", args[0], p.output())
}

// ask returns what the origin has seen.
func (r *running) ask() (originStats, error) {
	var stats originStats
	resp, err := http.Get("http://" + r.control + "/")
	if err != nil {
		return stats, fmt.Errorf("ask the origin: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, &stats)
	}
	return stats, err
}

// runScenario runs rounds of all proxies in turn until each has as many as are
// wanted, or has dropped too many.
func (b *bench) runScenario(ctx context.Context, s scenario) error {
	b.say("%s: %s", s.name, s.about)
	all, err := b.startAll(&s)
	if err != nil {
		return err
	}
	defer func() { stopAll(all) }()
	if s.latency {
		if err := b.saturate(&s, all); err != nil {
			return err
		}
	}
	if s.transfer {
		if err := b.ceiling(&s); err != nil {
			return err
		}
	}
	kept := map[string]int{}
	for n := 1; n <= 3*b.opts.Rounds; n++ {
		if s.idle && n > 1 {
			// What a process took in an earlier round it has already.
			stopAll(all)
			if all, err = b.startAll(&s); err != nil {
				return err
			}
		}
		for _, r := range all {
			if kept[r.peer.name] >= b.opts.Rounds {
				continue
			}
			b.waitQuiet()
			if ctx.Err() != nil {
				return nil // what is measured so far is worth keeping
			}
			one, err := b.measure(&s, r, n)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", s.name, r.peer.name, err)
			}
			b.rounds = append(b.rounds, one)
			b.say("  %s", one)
			if !one.Dropped {
				kept[r.peer.name]++
			}
		}
	}
	return nil
}

// verdict is an error if any run did not proxy as it should. Of a peer a few
// failed requests are a finding, and stand in the table; of Cirque they are an
// error.
func (b *bench) verdict() error {
	var bad []string
	for _, r := range b.rounds {
		var failed int64
		for _, n := range r.Errors {
			failed += n
		}
		few := r.Peer != "cirque" && failed > 0 && failed < r.AllDone/1000
		if r.Problem != "" && !few {
			bad = append(bad, fmt.Sprintf("%s, %s, round %d: %s", r.Scenario, r.Peer, r.Round, r.Problem))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("some runs did not proxy as they should:\n  %s", strings.Join(bad, "\n  "))
}
