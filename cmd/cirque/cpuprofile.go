//go:build cpuprofile

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// A build with the tag cpuprofile records what a server does from the second second
// to the sixth, in a file of the directory CIRQUE_CPUPROFILE: .ci/pgo makes
// default.pgo of such files. It starts and ends by time, so that the server itself
// need not know of it.
func init() {
	dir := os.Getenv("CIRQUE_CPUPROFILE")
	if dir == "" {
		return
	}
	time.AfterFunc(time.Second, func() {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.pprof", os.Getpid())))
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "cirque: cpuprofile:", err)
			return
		}
		time.AfterFunc(4*time.Second, func() {
			pprof.StopCPUProfile()
			_ = f.Close()
		})
	})
}
