package main

import (
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/balance"
	"time"
)

func newDemo() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a proxy in front of embedded origins, to try it out",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			var web []string
			for _, name := range []string{"web-1", "web-2"} {
				web = append(web, demoOrigin(name))
			}
			srv := demoServer(balance.RoundRobin(web...), balance.RoundRobin(demoOrigin("api")))
			fmt.Fprintf(cmd.OutOrStdout(), demoText, l.Addr(), web[0], web[1])
			return serveUntilSignal(cmd.Context(), srv, l, 10*time.Second)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "`address` to listen on")
	return cmd
}

const demoText = `Cirque listens on http://%[1]s and has three origins of its own behind it:
web-1 (%[2]s) and web-2 (%[3]s) in turn, and one for /api/.

Try:
  curl -i http://%[1]s/                      web-1 and web-2, in turn
  curl -i http://%[1]s/api/hello             another route, another origin
  curl -i http://%[1]s/headers               what an origin sees of you
  curl -i -d 'some text' http://%[1]s/echo   a request body and back
  curl -i http://%[1]s/secret                a filter of seven lines says 401
  curl -i http://%[1]s/dead                  an origin that does not answer: 502 with a reason

Stop with Ctrl-C.
`

// demoServer is what a program on the framework looks like.
func demoServer(web, api *balance.Group) *cirque.Server {
	dead := balance.RoundRobin("127.0.0.1:1")
	guard := cirque.Filter{Name: "guard", Request: func(s *cirque.Session) error {
		if s.Request().HasPathPrefix("/secret") && !s.Request().Header.Has("Authorization") {
			s.Response().Header.Set("WWW-Authenticate", `Basic realm="demo"`)
			return s.Respond(http.StatusUnauthorized, "who are you?\n")
		}
		return nil
	}}
	return &cirque.Server{Proxy: &cirque.Proxy{
		Name:    "demo",
		Filters: []cirque.Filter{guard},
		Peer: func(s *cirque.Session) (*cirque.Peer, error) {
			switch {
			case s.Request().HasPathPrefix("/api"):
				return api.Peer(s)
			case s.Request().HasPathPrefix("/dead"):
				return dead.Peer(s)
			}
			return web.Peer(s)
		},
	}}
}

// demoOrigin starts an origin and returns its address. It lives as long as the
// process.
func demoOrigin(name string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:1" // the proxy will say what is wrong with it
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s answers %s %s\n", name, r.Method, r.URL.Path)
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Host: %s\n", r.Host)
		_ = r.Header.Write(w)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = io.Copy(w, http.MaxBytesReader(w, r.Body, 1<<20))
	})
	go func() { _ = http.Serve(l, mux) }()
	return l.Addr().String()
}
