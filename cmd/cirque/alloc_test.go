package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cirqueproxy/cirque/config"
)

// fixedOrigin answers every request, whose body if any is the last thing that it
// ends with, by one fixed response. It allocates nothing per request.
func fixedOrigin(t *testing.T, end, response []byte) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				b := make([]byte, 64<<10)
				for n := 0; ; {
					k, err := c.Read(b[n:])
					if n += k; err != nil {
						return
					}
					if bytes.HasSuffix(b[:n], end) {
						n = 0
						if _, err := c.Write(response); err != nil {
							return
						}
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// TestAllocsWithLogAndMetrics: the bar of the steady state: a proxied request
// allocates nothing on its whole way, with the access log, metrics, header edits
// and a route found among others, as `cirque run` sets them up.
func TestAllocsWithLogAndMetrics(t *testing.T) {
	body := strings.Repeat("b", 1024)
	response := []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Tue, 24 Nov 2026 02:00:00 GMT\r\nContent-Type: text/plain\r\n" +
		"Content-Length: 1024\r\nConnection: keep-alive\r\nETag: \"abc\"\r\n\r\n" + strings.Repeat("x", 1024))
	const head = "Host: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n" +
		"Referer: https://www.example.com/\r\nCookie: session=0123456789abcdef\r\n"
	for name, tt := range map[string]struct{ request, end string }{
		"GET":  {"GET /assets/app.js?v=42 HTTP/1.1\r\n" + head + "\r\n", "\r\n\r\n"},
		"POST": {"POST /assets/form HTTP/1.1\r\n" + head + "Content-Length: 1024\r\n\r\n" + body, body},
	} {
		for _, format := range []string{"json", "combined"} {
			t.Run(name+"/"+format, func(t *testing.T) {
				logFile := filepath.Join(t.TempDir(), "access.log")
				c, scrape := startInProcess(t, fmt.Sprintf(`
listeners: {web: {address: "127.0.0.1:0"}}
routes:
  - match: {host: www.example.com, path_prefix: /assets}
    name: assets
    upstream: web
    response_headers: {set: {X-Proxy: cirque}}
  - match: {host: other.example.com}
    upstream: web
  - upstream: web
upstreams: {web: {peers: [%q]}}
admin: {address: "127.0.0.1:0"}
log: {access: {output: %q, format: %s}}
`, fixedOrigin(t, []byte(tt.end), response), logFile, format))
				request, got := []byte(tt.request), make([]byte, 4096)
				ask := func() {
					if _, err := c.Write(request); err != nil {
						t.Fatal(err)
					}
					for n := 0; !bytes.HasSuffix(got[:n], []byte("xxxxxxxx")) || n < 1024; {
						k, err := c.Read(got[n:])
						if n += k; err != nil {
							t.Fatal(err)
						}
					}
				}
				for range 200 {
					ask()
				}
				if !bytes.Contains(got, []byte("X-Proxy: cirque\r\n")) {
					t.Fatalf("got %q", got)
				}
				if n := testing.AllocsPerRun(1000, ask); n > 0 && !raceEnabled {
					t.Errorf("%v allocations per request, want 0", n)
				}
				// Everything was on: each request, the runs' first one too, is counted and
				// has its line.
				const requests = 200 + 1 + 1000
				numbers := scrape()
				for _, want := range []string{
					fmt.Sprintf("cirque_requests_total{class=\"2xx\",reason=\"none\",route=\"assets\"} %d\n", requests),
					fmt.Sprintf("cirque_upstream_reuses_total{transport=\"pool\"} %d\n", requests-1),
				} {
					if !strings.Contains(numbers, want) {
						t.Errorf("the metrics have no %s", want)
					}
				}
				lines, err := os.ReadFile(logFile)
				if n := bytes.Count(lines, []byte("\n")); n != requests || err != nil {
					t.Errorf("%d lines in the access log (%v), want %d", n, err, requests)
				}
				if t.Failed() {
					t.Log(numbers)
				}
			})
		}
	}
}

// startInProcess runs a configuration as `cirque run` does, in this process. It
// returns a connection to its listener and what ends it and returns its metrics.
func startInProcess(t *testing.T, file string) (net.Conn, func() string) {
	c, err := config.Parse("cirque.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	w, err := newWatch(c, logger)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Build(config.Options{Logger: logger, Filters: w.filters})
	if err != nil {
		t.Fatal(err)
	}
	services, err := bindAll(b)
	if err != nil {
		t.Fatal(err)
	}
	admin := w.adminHandler(b)
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(func() { _ = s.serve() })
	}
	nc, err := net.Dial("tcp", services[0].l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		nc.Close()
		closeAll(services)
		wg.Wait()
		w.close()
	})
	t.Cleanup(func() { end(); b.Transport.Close() })
	return nc, func() string {
		end()
		r := httptest.NewRecorder()
		admin.ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
		return r.Body.String()
	}
}
