package cirque_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cirqueproxy/cirque/internal/buf"
)

// The simulation: the whole proxy on fake time over connections in memory, with
// clients, origins, timings and faults that follow from a seed. What a client
// must get follows from the id of its request and from the body that reached
// the origin, so that a response that was swapped, mixed or cut cannot pass.
//
//	go test -run TestSimulation -sim.seed=N             one seed
//	go test -run TestSimulation -sim.seed=N -sim.count=50   the same, 50 times
//	go test -run TestSimulation -sim.first=1000 -sim.count=5000   a hunt
//
// A seed decides everything but the order in which goroutines that are ready run.
// A failure that depends on it too comes back after some repetitions.

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run only this seed of TestSimulation")
	simFirst = flag.Uint64("sim.first", 1, "the first seed of TestSimulation")
	simCount = flag.Int("sim.count", 0, "how many seeds TestSimulation runs, or how often -sim.seed; 0: some hundred, or once")
	simTrace = flag.Bool("sim.trace", false, "print what happened in a run that failed")
)

// How many seeds an ordinary run has. Those under the race detector take ten times
// as long.
const (
	simSeeds     = 600
	simSeedsRace = 150
)

func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		for range max(*simCount, 1) {
			simulate(t, *simSeed, newTally())
		}
		return
	}
	seeds := knownSeeds(t)
	count := *simCount
	if count <= 0 {
		count = simSeeds
		if raceEnabled {
			count = simSeedsRace
		}
	}
	for i := range count {
		seeds = append(seeds, *simFirst+uint64(i))
	}
	total := newTally()
	for _, seed := range seeds {
		simulate(t, seed, total)
	}
	t.Log(total)
	if len(seeds) >= simSeeds && !t.Failed() {
		total.wantAll(t)
	}
}

// knownSeeds returns the seeds that once failed.
func knownSeeds(t *testing.T) (seeds []uint64) {
	f, err := os.Open("testdata/sim/seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		word, _, _ := strings.Cut(strings.TrimSpace(sc.Text()), " ")
		if word == "" || word[0] == '#' {
			continue
		}
		seed, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}

// simulate is one run.
func simulate(t *testing.T, seed uint64, total *tally) {
	t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("to run it again: go test -run 'TestSimulation' -sim.seed=%d -sim.count=20 -sim.trace", seed)
			}
		})
		synctest.Test(t, func(t *testing.T) { newSim(t, seed, total).run() })
		wantNoBuffers(t)
	})
}

// wantNoBuffers checks that all buffers came back. It is 0 without the build tag
// invariants; goroutines of earlier tests may still be giving theirs back.
func wantNoBuffers(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Second); buf.Outstanding() != 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Errorf("%d buffers were not given back", buf.Outstanding())
			return
		}
	}
}

// tally counts what happened over all runs: a simulation in which nothing
// happens would pass too.
type tally struct {
	mu sync.Mutex
	n  map[string]int // Guarded by mu.
}

func newTally() *tally { return &tally{n: map[string]int{}} }

func (y *tally) add(what string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.n[what]++
}

func (y *tally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	var lines []string
	for k, n := range y.n {
		lines = append(lines, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

// wantAll checks that the runs came by what matters.
func (y *tally) wantAll(t *testing.T) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, k := range simMust {
		if y.n[k] == 0 {
			t.Errorf("in no run: %s", k)
		}
	}
}

// simMust is what some of many runs must come by.
var simMust = []string{
	"got whole", "got cut", "got nothing", "got local", "got tunnel", "got interim", "got trailer",
	"error upstream_closed", "error upstream_reset", "error upstream_timeout", "error connect_refused",
	"error connect_timeout", "error hook_error", "error hook_panic", "error client_gone", "error client_reset",
	"error body_timeout", "error body_too_large", "error total_timeout", "error peer_limit",
	"error upstream_bad_head", "error upstream_truncated", "error upstream_read_timeout",
	"error bad_request", "error refused", "retried", "reused", "replayed body", "buffered", "calm run",
	"a body hook responded",
}
