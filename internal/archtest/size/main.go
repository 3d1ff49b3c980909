// Command size prints how large the module's functions, files and packages
// are, and what the root exports, against the budgets.
package main

import (
	"fmt"
	"os"

	"github.com/cirqueproxy/cirque/internal/archtest"
)

func main() {
	t, err := archtest.Load(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
	t.PrintSizes(os.Stdout)
}
