package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
)

func do(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestPaths(t *testing.T) {
	answer := func(s string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
	}
	ill := func() error { return errors.New("upstream api: no peer is up") }
	cases := []struct {
		name         string
		o            Options
		method, path string
		status       int
		body         string
	}{
		{"health", Options{}, "GET", "/healthz", 200, "ok\n"},
		{"health of a process that is not ready", Options{Ready: ill}, "GET", "/healthz", 200, "ok\n"},
		{"ill", Options{Healthy: ill}, "GET", "/healthz", 503, "upstream api: no peer is up\n"},
		{"always ready", Options{}, "GET", "/readyz", 200, "ok\n"},
		{"ready", Options{Ready: func() error { return nil }}, "GET", "/readyz", 200, "ok\n"},
		{"not ready", Options{Ready: ill}, "GET", "/readyz", 503, "upstream api: no peer is up\n"},
		{"draining", Options{Ready: func() error { return ErrDraining }}, "GET", "/readyz", 503, "draining\n"},
		{"head", Options{Ready: ill}, "HEAD", "/readyz", 503, "upstream api: no peer is up\n"}, // net/http's server drops the body
		{"metrics", Options{Metrics: answer("x 1\n")}, "GET", "/metrics", 200, "x 1\n"},
		{"no metrics", Options{}, "GET", "/metrics", 404, "404 page not found\n"},
		{"index", Options{Metrics: answer("")}, "GET", "/", 200, "/healthz\n/metrics\n/readyz\n/version\n"},
		{"no such path", Options{}, "GET", "/secret", 404, "404 page not found\n"},
		{"it changes nothing", Options{}, "POST", "/readyz", 405, "Method Not Allowed\n"},
		{"more", Options{Handlers: map[string]http.Handler{"/peers": answer("up\n")}}, "GET", "/peers", 200, "up\n"},
		{"more in the index", Options{Handlers: map[string]http.Handler{"/peers": answer("up\n")}}, "GET", "/", 200,
			"/healthz\n/peers\n/readyz\n/version\n"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			w := do(New(tc.o), tc.method, tc.path)
			if w.Code != tc.status || w.Body.String() != tc.body {
				t.Errorf("%d %q, want %d %q", w.Code, w.Body, tc.status, tc.body)
			}
		})
	}
}

func TestReadyIsAskedEachTime(t *testing.T) {
	var err error
	h := New(Options{Ready: func() error { return err }})
	for _, want := range []int{200, 503, 200} {
		if w := do(h, "GET", "/readyz"); w.Code != want {
			t.Errorf("%d, want %d", w.Code, want)
		}
		if err == nil {
			err = ErrDraining
		} else {
			err = nil
		}
	}
}

func TestVersion(t *testing.T) {
	for set, want := range map[string]string{"v1.2.3": "v1.2.3", "": "unknown"} {
		var got map[string]string
		w := do(New(Options{Version: set}), "GET", "/version")
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got["version"] != want || got["go"] != runtime.Version() || !strings.Contains(got["platform"], "/") {
			t.Errorf("%v", got)
		}
	}
}

func TestFieldsOfAnswers(t *testing.T) {
	for _, path := range []string{"/healthz", "/readyz", "/version", "/"} {
		h := do(New(Options{}), "GET", path).Header()
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Type") == "" {
			t.Errorf("%s: %v", path, h)
		}
	}
}
