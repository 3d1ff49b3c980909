//go:build !linux

// Command bench measures Cirque beside other proxies. It reads /proc, waits on
// epoll and gives processes their CPU, so it needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: needs Linux")
	os.Exit(1)
}
