package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cirqueproxy/cirque/config"
)

func newCheck() *cobra.Command {
	var file string
	var dump bool
	cmd := &cobra.Command{
		Use:     "check -c FILE",
		Short:   "Check a config file without starting anything",
		Example: "  cirque check -c cirque.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(cmd, file)
			if err != nil {
				return err
			}
			if _, err := c.Build(config.Options{}); err != nil {
				return err
			}
			if dump {
				_, err = cmd.OutOrStdout().Write(config.Dump(c))
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is good: %s, %s, %s\n", file,
				plural(len(c.Listeners), "listener"), plural(len(c.Routes), "route"), plural(len(c.Upstreams), "upstream"))
			return nil
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&dump, "dump", false, "print the configuration with every value in effect")
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "config `file`")
	_ = cmd.MarkFlagRequired("config")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

// load reads a config file. What is wrong with its content is printed line by
// line.
func load(cmd *cobra.Command, file string) (*config.Config, error) {
	c, err := config.Load(file)
	if errs := (config.Errors)(nil); errors.As(err, &errs) {
		fmt.Fprintln(cmd.ErrOrStderr(), errs)
		return nil, exitCode(1)
	}
	return c, err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
