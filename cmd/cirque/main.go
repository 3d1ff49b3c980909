// Command cirque is the proxy server: flags and wiring, no policy.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// exitCode is an error that says with which code to exit, after what was to be
// printed has been.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	err := newRoot().Execute()
	var code exitCode
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintln(os.Stderr, "cirque:", err)
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "cirque",
		Short:         "A programmable HTTP proxy",
		Long:          "Cirque is a programmable HTTP proxy: one static binary with a clear config file.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	root.AddCommand(newProxy(), newRun(), newCheck(), newExplain(), newDemo(), newVersion())
	return root
}
