// Package admin is the operator's view of a proxy as a plain http.Handler:
// metrics, health, readiness and version. It changes nothing and shows no
// secrets, but it belongs on a listener that clients cannot reach.
package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
)

// Options say what is shown. The zero value works.
type Options struct {
	// Metrics answers /metrics. If nil, that is 404.
	Metrics http.Handler

	// Ready says why the process should get no traffic, or nil: /readyz is 503
	// with that error's text, or 200. It is called for each request, by several
	// at once, and must not block. If nil, the process is always ready.
	//
	// A process that drains is not ready: see [ErrDraining].
	Ready func() error

	// Healthy says why the process should be restarted, or nil, for /healthz. If
	// it is nil, an answer is proof enough. It is called as Ready is.
	Healthy func() error

	// Version is what /version says. If empty, it is "unknown".
	Version string

	// Handlers are further ones, by path. A path may be a pattern of
	// http.ServeMux. One that is there already makes New panic, as in ServeMux.
	Handlers map[string]http.Handler
}

// ErrDraining is what Options.Ready returns while the process finishes what runs
// and takes no more.
var ErrDraining error = drainingError{}

type drainingError struct{}

func (drainingError) Error() string { return "draining" }

// New returns the handler. It answers GET and HEAD on
//
//	/metrics   what Options.Metrics says
//	/healthz   200, or 503 with the reason: should it be restarted?
//	/readyz    200, or 503 with the reason: should it get traffic?
//	/version   version of the program and of Go, as JSON
//	/          the list of these
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	paths := []string{"/healthz", "/readyz", "/version"}
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
		paths = append(paths, "/metrics")
	}
	mux.HandleFunc("GET /healthz", check(o.Healthy))
	mux.HandleFunc("GET /readyz", check(o.Ready))
	mux.HandleFunc("GET /version", version(o.Version))
	for path, h := range o.Handlers {
		mux.Handle(path, h)
		paths = append(paths, path)
	}
	slices.Sort(paths)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusOK, strings.Join(paths, "\n"))
	})
	return mux
}

// check answers with what f says at the moment.
func check(f func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if f != nil {
			if err := f(); err != nil {
				text(w, http.StatusServiceUnavailable, err.Error())
				return
			}
		}
		text(w, http.StatusOK, "ok")
	}
}

func version(v string) http.HandlerFunc {
	if v == "" {
		v = "unknown"
	}
	body, _ := json.Marshal(map[string]string{ // strings always can be
		"version": v, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
	})
	return func(w http.ResponseWriter, _ *http.Request) {
		head(w, "application/json")
		fmt.Fprintf(w, "%s\n", body)
	}
}

func text(w http.ResponseWriter, status int, s string) {
	head(w, "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, s)
}

func head(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	// The answer is about this moment, and an error's text is not ours to trust.
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}
