package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/balance"
	"github.com/cirqueproxy/cirque/listen"
	"github.com/cirqueproxy/cirque/message"
)

func newProxy() *cobra.Command {
	var addr string
	var to []string
	var h2c bool
	var grace time.Duration
	cmd := &cobra.Command{
		Use:     "proxy --to HOST:PORT[,HOST:PORT...]",
		Short:   "Proxy to one or more origins, without a config file",
		Example: "  cirque proxy --listen :8080 --to 127.0.0.1:9000,127.0.0.1:9001",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			srv, err := proxyTo(to)
			if err != nil {
				return err
			}
			srv.H2C = h2c
			l, err := listen.Listen(cmd.Context(), addr, listen.Options{})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "proxying %s to %s\n", l.Addr(), strings.Join(to, ", "))
			return serveUntilSignal(cmd.Context(), srv, l, grace)
		},
	}
	cmd.Flags().StringVar(&addr, "listen", ":8080", "`address` to listen on: host:port, :port or unix:/path")
	cmd.Flags().StringSliceVar(&to, "to", nil, "origins to proxy to: host:port or unix:/path, in turn")
	cmd.Flags().BoolVar(&h2c, "h2c", false, "also take HTTP/2 without TLS from clients, on the same port")
	cmd.Flags().DurationVar(&grace, "grace", 30*time.Second, "how long running requests may take after SIGTERM")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

// proxyTo returns a server that gives each origin its turn.
func proxyTo(origins []string) (*cirque.Server, error) {
	for _, o := range origins {
		if err := cirque.NewPeer(o).Validate(); err != nil {
			return nil, err
		}
	}
	group := balance.RoundRobin(origins...)
	return &cirque.Server{
		Proxy: &cirque.Proxy{Name: "default", Peer: group.Peer},
		// Nothing here decides by a path.
		AllowPaths: []message.PathProblem{message.PathHiddenSeparator},
	}, nil
}
