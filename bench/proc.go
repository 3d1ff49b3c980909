//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat: USER_HZ, which is 100 on every
// architecture that Go runs on.
const tick = 10 * time.Millisecond

// tree returns pid and all that descend from it.
func tree(pid int) []int {
	pids := []int{pid}
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				pids = append(pids, tree(child)...)
			}
		}
	}
	return pids
}

// cpuOf is the user and system time that the processes have used.
func cpuOf(pids []int) time.Duration {
	var ticks int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The name may hold anything, so fields count from its last bracket.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 12 {
			user, _ := strconv.ParseInt(f[11], 10, 64)
			system, _ := strconv.ParseInt(f[12], 10, 64)
			ticks += user + system
		}
	}
	return time.Duration(ticks) * tick
}

// memoryOf returns a field of /proc/PID/status, in bytes, summed: VmRSS is what
// is resident now, VmHWM the most that ever was.
func memoryOf(pids []int, key string) int64 {
	var sum int64
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, key+":"); ok {
				kb, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				sum += kb << 10
			}
		}
	}
	return sum
}

// busy is how long each CPU has been doing anything, by its number.
func busy() map[int]time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	cpus := map[int]time.Duration{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 9 || !strings.HasPrefix(f[0], "cpu") || f[0] == "cpu" {
			continue
		}
		n, err := strconv.Atoi(f[0][3:])
		if err != nil {
			continue
		}
		var ticks int64
		for i, v := range f[1:9] {
			if i == 3 || i == 4 { // idle, waiting for a disk
				continue
			}
			t, _ := strconv.ParseInt(v, 10, 64)
			ticks += t
		}
		cpus[n] = time.Duration(ticks) * tick
	}
	return cpus
}

// probe is a point in time of all that is measured from outside.
type probe struct {
	at    time.Time
	proxy time.Duration
	cpus  map[int]time.Duration
}

func takeProbe(pids []int) probe {
	return probe{at: time.Now(), proxy: cpuOf(pids), cpus: busy()}
}

// foreign is the share of the CPUs in set that others than the proxy took
// between two probes.
func foreign(a, b probe, set []int) float64 {
	var used time.Duration
	for _, n := range set {
		used += b.cpus[n] - a.cpus[n]
	}
	wall := b.at.Sub(a.at) * time.Duration(len(set))
	return max(0, float64(used-(b.proxy-a.proxy))/float64(wall))
}

// machine is the time that all CPUs were busy between two probes.
func machine(a, b probe) time.Duration {
	var used time.Duration
	for n := range b.cpus {
		used += b.cpus[n] - a.cpus[n]
	}
	return used
}
