//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// summary is the median of one proxy's rounds of one scenario.
type summary struct {
	Scenario string  `json:"scenario"`
	Peer     string  `json:"peer"`
	Kept     int     `json:"rounds_kept"`
	Dropped  int     `json:"rounds_dropped"`
	Noisy    bool    `json:"noisy,omitempty"` // of dropped rounds, for want of others
	CPU      float64 `json:"cpu_us_per_request"`
	Ratio    float64 `json:"cirque_to_peer"` // of the scenario's own figure
	Machine  float64 `json:"machine_us_per_request"`
	Rate     float64 `json:"requests_per_second"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	P999     float64 `json:"p999_us"`
	PeakRSS  float64 `json:"peak_rss_bytes"`
	Busy     float64 `json:"proxy_busy"`
	Errors   int64   `json:"errors"`
	NewConns float64 `json:"new_origin_connections_per_1000"`
	RSSIdle  float64 `json:"rss_bytes_per_idle_connection,omitempty"`
	MiBps    float64 `json:"mib_per_second,omitempty"`
	PerMiB   float64 `json:"cpu_us_per_mib,omitempty"`
}

// report is what is kept beside the table.
type report struct {
	Commit   string            `json:"commit"`
	Date     string            `json:"date"`
	Machine  string            `json:"machine"`
	Files    int               `json:"descriptor_limit"`
	Options  *options          `json:"options"`
	Versions map[string]string `json:"versions"`
	Missing  map[string]string `json:"missing,omitempty"`
	Notes    []string          `json:"notes,omitempty"`
	Summary  []summary         `json:"summary"`
	Rounds   []round           `json:"rounds"`
}

func (b *bench) report() *report {
	r := &report{Commit: b.commit, Date: b.date.Format(dateForm), Machine: describeMachine(), Files: b.files,
		Options: b.opts, Versions: map[string]string{}, Missing: b.missing, Notes: b.notes, Rounds: b.rounds}
	maps.Copy(r.Versions, b.versions)
	for _, s := range scenarios() {
		r.Summary = append(r.Summary, b.summarize(&s)...)
	}
	return r
}

// measured are the names of the proxies in the order of the tables.
func (b *bench) measured() []string {
	var names []string
	for _, p := range allPeers() {
		if _, ok := b.versions[p.name]; ok {
			names = append(names, p.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.versions)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// goOn takes up the report of an earlier run, so that a long measurement can be
// made in pieces. Only what was measured of the same commit goes together.
func (b *bench) goOn(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if r.Commit != b.commit {
		return fmt.Errorf("%s is of commit %s, this is %s", file, r.Commit, b.commit)
	}
	if b.date, err = time.Parse(dateForm, r.Date); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	b.out, b.rounds, b.notes = filepath.Dir(file), r.Rounds, r.Notes
	maps.Copy(b.versions, r.Versions)
	return nil
}

// dateForm is how a report has its date.
const dateForm = "2006-01-02T15:04:05Z"

func describeMachine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return fmt.Sprintf("%d CPUs, %s, Linux %s, %s", runtime.NumCPU(), cpuModel(), unix.ByteSliceToString(u.Release[:]), runtime.Version())
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// summarize returns the medians of s in the order of the proxies.
func (b *bench) summarize(s *scenario) []summary {
	var all []summary
	for _, name := range b.measured() {
		var kept, dropped []round
		sum := summary{Scenario: s.name, Peer: name}
		for _, r := range b.rounds {
			if r.Scenario != s.name || r.Peer != name {
				continue
			}
			if r.Dropped {
				dropped = append(dropped, r)
				continue
			}
			kept = append(kept, r)
			for _, n := range r.Errors {
				sum.Errors += n
			}
		}
		sum.Kept, sum.Dropped = len(kept), len(dropped)
		if len(kept) == 0 {
			kept, sum.Noisy = dropped, true
		}
		if len(kept) == 0 {
			continue
		}
		of := func(f func(round) float64) float64 { return median(kept, f) }
		sum.CPU = of(func(r round) float64 { return r.CPU })
		sum.Machine = of(func(r round) float64 { return r.Machine })
		sum.Rate = of(func(r round) float64 { return r.Rate })
		sum.P50 = of(func(r round) float64 { return r.P50 })
		sum.P99 = of(func(r round) float64 { return r.P99 })
		sum.P999 = of(func(r round) float64 { return r.P999 })
		sum.Busy = of(func(r round) float64 { return r.Busy })
		sum.PeakRSS = of(func(r round) float64 { return float64(r.PeakRSS) })
		sum.NewConns = of(func(r round) float64 { return r.NewPer1000 })
		sum.MiBps = of(func(r round) float64 { return r.MiBps })
		sum.PerMiB = of(func(r round) float64 { return r.CPUPerMiB })
		sum.RSSIdle = of(func(r round) float64 { return r.RSSPerIdle })
		all = append(all, sum)
	}
	compare(s, all)
	return all
}

// mark says that the figures are not to be trusted.
func (x *summary) mark() string {
	if x.Noisy {
		return " noisy"
	}
	return ""
}

// figure is what a scenario is about.
func (s *scenario) figure(x *summary) float64 {
	switch {
	case s.idle:
		return x.RSSIdle
	case s.transfer && s.delay > 0:
		return x.MiBps
	case s.transfer:
		return x.PerMiB
	case s.latency:
		return x.P99
	case s.originIdle > 0:
		return x.NewConns
	}
	return x.CPU
}

// compare sets the ratio of Cirque's figure to each.
func compare(s *scenario, all []summary) {
	for i := range all {
		if all[0].Peer == "cirque" && s.figure(&all[i]) > 0 {
			all[i].Ratio = s.figure(&all[0]) / s.figure(&all[i])
		}
	}
}

func median(rounds []round, f func(round) float64) float64 {
	var v []float64
	for _, r := range rounds {
		v = append(v, f(r))
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// write keeps what is known so far and prints the table of one scenario.
func (b *bench) write(name string) error {
	r := b.report()
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	base := filepath.Join(b.out, b.date.Format("20060102-150405-")+b.commit)
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(base+".json", append(raw, '\n'), 0o644); err != nil {
		return err
	}
	text := b.markdown(r)
	if _, table, ok := strings.Cut(text, "### "+name+"\n"); ok {
		table, _, _ = strings.Cut(table, "\n### ")
		fmt.Printf("### %s\n%s\n", name, table)
	}
	return os.WriteFile(base+".md", []byte(text), 0o644)
}

func (b *bench) markdown(r *report) string {
	var w strings.Builder
	fmt.Fprintf(&w, "# Cirque %s beside other proxies\n\n%s; %s; the proxy on CPU %d, load and origin on CPU %d.\n",
		r.Commit, r.Date, r.Machine, b.opts.ProxyCPU, b.opts.LoadCPU)
	fmt.Fprintf(&w, "Medians of up to %d rounds of %s (some scenarios a multiple), interleaved. CPU is user and system time of all of\n"+
		"the proxy's processes; the ratio is Cirque's figure divided by the peer's, so below 1 Cirque is better. Rounds in which\n"+
		"others took more than %.0f %% of the proxy's CPU are dropped.\n\n", b.opts.Rounds, b.opts.Measure, 100*foreignLimit)
	if b.opts.Nice != 0 {
		fmt.Fprintf(&w, "- everything that is measured ran at priority %d\n", b.opts.Nice)
	}
	for _, name := range b.measured() {
		fmt.Fprintf(&w, "- %s: %s\n", name, r.Versions[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Missing)) {
		fmt.Fprintf(&w, "- %s could not be had: %s\n", name, r.Missing[name])
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&w, "- %s\n", note)
	}
	for _, s := range scenarios() {
		b.table(&w, &s, r.Summary)
	}
	return w.String()
}

func (b *bench) table(w *strings.Builder, s *scenario, all []summary) {
	var rows []summary
	for _, x := range all {
		if x.Scenario == s.name {
			rows = append(rows, x)
		}
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### %s\n\n%s\n\n", s.name, s.about)
	if s.idle {
		w.WriteString("| proxy | KiB per idle connection | Cirque ÷ it | peak RSS, MiB | errors | rounds |\n|---|---:|---:|---:|---:|---:|\n")
		for _, x := range rows {
			fmt.Fprintf(w, "| %s | %.2f | %.2f | %.1f | %d | %d |\n", x.Peer, x.RSSIdle/1024, x.Ratio, x.PeakRSS/mib, x.Errors, x.Kept)
		}
		return
	}
	if s.transfer {
		b.transferTable(w, s, rows)
		return
	}
	fmt.Fprintf(w, "| proxy | CPU µs/%[1]s | Cirque ÷ it | machine µs/%[1]s | %[1]ss/s | p50 µs | p99 µs | p99.9 µs | new origin conns/1,000 | peak RSS MiB | busy | errors | rounds (dropped) |\n", s.per())
	w.WriteString("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, x := range rows {
		fmt.Fprintf(w, "| %s | %.1f | %.2f | %.1f | %.0f | %.0f | %.0f | %.0f | %.3f | %.1f | %.0f %% | %d | %d (%d)%s |\n", x.Peer, x.CPU, x.Ratio,
			x.Machine, x.Rate, x.P50, x.P99, x.P999, x.NewConns, x.PeakRSS/mib, 100*x.Busy, x.Errors, x.Kept, x.Dropped, x.mark())
	}
	if s.latency || s.originIdle > 0 {
		w.WriteString("\nThe ratio is of the p99 for latency, and of the new origin connections for reuse.\n")
	}
}

func (b *bench) transferTable(w *strings.Builder, s *scenario, rows []summary) {
	w.WriteString("| proxy | MiB/s | CPU µs/MiB | Cirque ÷ it | busy | peak RSS MiB | errors | rounds (dropped) |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, x := range rows {
		fmt.Fprintf(w, "| %s | %.0f | %.0f | %.2f | %.0f %% | %.1f | %d | %d (%d)%s |\n",
			x.Peer, x.MiBps, x.PerMiB, x.Ratio, 100*x.Busy, x.PeakRSS/mib, x.Errors, x.Kept, x.Dropped, x.mark())
	}
	if s.delay > 0 {
		w.WriteString("\nThe ratio is of the throughput: above 1 Cirque is better.\n")
	}
}
