//go:build linux

// Command bench measures Cirque beside other proxies: CPU for each request,
// rate, latency and memory, in interleaved rounds, with the proxy alone on one
// CPU and the load and the origin on another.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && (os.Args[1] == "origin" || os.Args[1] == "relay") {
		if err := helperMain(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench "+os.Args[1]+":", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := benchMain(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// helperMain is what the command does in the processes that it starts itself.
func helperMain(what string, args []string) error {
	fs := flag.NewFlagSet(what, flag.ContinueOnError)
	idle := fs.Duration("idle", 0, "close connections that are idle for so long; 0: never")
	to := fs.String("to", "", "where the relay goes on to")
	hold := fs.Duration("hold", 0, "how long the relay holds bytes")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if what == "relay" {
		return runRelay(os.Stdout, *to, *hold)
	}
	return runOrigin(os.Stdout, *idle)
}

// options are the flags.
type options struct {
	Scenarios string        `json:"scenarios"`
	Peers     string        `json:"peers"`
	Also      string        `json:"also,omitempty"`
	Rounds    int           `json:"rounds"`
	Measure   time.Duration `json:"measure"`
	IdleWait  time.Duration `json:"idle_wait"`
	Idle      int           `json:"idle_connections"`
	ProxyCPU  int           `json:"proxy_cpu"`
	LoadCPU   int           `json:"load_cpu"`
	Out       string        `json:"-"`
	GoOn      string        `json:"-"`
	Nice      int           `json:"nice"`
	QuietWait time.Duration `json:"quiet_wait"`
	Quick     bool          `json:"quick"`
	List      bool          `json:"-"`
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.Scenarios, "scenarios", "", "comma-separated `names` or parts of names; empty: all")
	fs.StringVar(&o.Peers, "peers", "", "comma-separated `names`; empty: all that can be had; cirque is always there")
	fs.StringVar(&o.Also, "also", "", "comma-separated `name=path` of other builds of cirque to measure beside this one, as peers")
	fs.IntVar(&o.Rounds, "rounds", 5, "rounds to keep of each scenario")
	fs.DurationVar(&o.Measure, "measure", 5*time.Second, "the measured part of a round; some scenarios take a multiple")
	fs.DurationVar(&o.IdleWait, "idle-wait", 30*time.Second, "how long connections are idle before memory is read")
	fs.IntVar(&o.Idle, "idle-connections", 10_000, "how many idle connections; the limit of descriptors may allow fewer")
	fs.IntVar(&o.ProxyCPU, "proxy-cpu", 0, "the CPU that the proxy has for itself")
	fs.IntVar(&o.LoadCPU, "load-cpu", 1, "the CPU of the load generator and the origin")
	fs.StringVar(&o.Out, "out", "", "`directory` for the results; empty: bench/results")
	fs.StringVar(&o.GoOn, "go-on", "", "the JSON `file` of an earlier run of the same commit, to which the rounds are added")
	fs.IntVar(&o.Nice, "nice", 0, "priority of everything that is measured; below 0 needs to be root and keeps others out")
	fs.DurationVar(&o.QuietWait, "quiet-wait", 10*time.Second, "how long a round waits for the proxy's CPU to be quiet")
	fs.BoolVar(&o.Quick, "quick", false, "one short round of each: shows that it works, measures nothing")
	fs.BoolVar(&o.List, "list", false, "list the scenarios and end")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if o.Quick {
		o.Rounds, o.Measure, o.IdleWait, o.QuietWait = 1, 500*time.Millisecond, 2*time.Second, 0
	}
	if o.Rounds < 1 || o.Measure <= 0 {
		return nil, errors.New("-rounds and -measure must be positive")
	}
	return o, nil
}

func benchMain(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if o.List {
		for _, s := range scenarios() {
			fmt.Printf("%-18s %s\n", s.name, s.about)
		}
		return nil
	}
	b, err := newBench(o)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.preparePeers()
	if err := pinSelf(o.LoadCPU, o.Nice); err != nil {
		return err
	}
	for _, s := range b.scenarios {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := b.runScenario(ctx, s); err != nil {
			return err
		}
		// Written after each, so that an end in the middle loses little.
		if err := b.write(s.name); err != nil {
			return err
		}
	}
	return b.verdict()
}
