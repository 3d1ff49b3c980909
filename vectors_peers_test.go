//go:build outer

package cirque_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// vecPeerWait is how long a party may think about a vector before its verdict
// is `stuck`. It is shorter than every timeout that we give to the parties.
const vecPeerWait = 2 * time.Second

const vecDifferences = "testdata/vectors/differences.txt"

// vecDifference is a line of the list: a party that judges a vector in another
// way than we do, and why ours is right.
type vecDifference struct{ vector, party, theirs, ours, why string }

// TestVectorPeers gives the request vectors to Go's server, nginx and HAProxy.
// Each verdict that is not ours must be in the list, and nothing else may be.
func TestVectorPeers(t *testing.T) {
	listed := loadVecDifferences(t)
	parties := []struct {
		name  string
		start func(t *testing.T) string
	}{{"net/http", startVecGo}, {"nginx", startVecNginx}, {"haproxy", startVecHAProxy}}
	vectors := loadVectors(t, "requests-")
	for _, p := range parties {
		t.Run(p.name, func(t *testing.T) {
			addr := p.start(t)
			theirs := vecAskAll(t, addr, vectors)
			for i, v := range vectors {
				key := v.name + " " + p.name
				ours := vecSummary(v.status, v.conn)
				d, known := listed[key]
				switch {
				case !known && theirs[i] != ours:
					t.Errorf("%s: not listed:\n%s | %s | %s | %s | ", key, v.name, p.name, theirs[i], ours)
				case known && d.ours != ours:
					t.Errorf("%s: ours is %q, listed is %q", key, ours, d.ours)
				case known && !slices.Contains(strings.Split(d.theirs, " or "), theirs[i]):
					t.Errorf("%s: theirs is %q, listed is %q", key, theirs[i], d.theirs)
				}
				delete(listed, key)
			}
		})
	}
	for key := range listed {
		t.Errorf("%s: there is no such vector or party", key)
	}
}

func vecSummary(status []string, conn string) string {
	if len(status) == 0 {
		status = []string{"-"}
	}
	return strings.Join(status, " ") + " " + conn
}

// vecAskAll returns a party's verdicts, asking for a few at a time.
func vecAskAll(t *testing.T, addr string, vectors []*vector) []string {
	t.Helper()
	theirs := make([]string, len(vectors))
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, v := range vectors {
		slots <- struct{}{}
		wg.Go(func() {
			got := vecExchange(t, addr, v, false, vecPeerWait)
			theirs[i] = vecSummary(got.status, got.conn)
			<-slots
		})
	}
	wg.Wait()
	return theirs
}

// loadVecDifferences reads lines `vector | party | theirs | ours | why`. Theirs
// is `one or another` where a party's verdict depends on its timing.
func loadVecDifferences(t *testing.T) map[string]vecDifference {
	t.Helper()
	f, err := os.Open(vecDifferences)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]vecDifference{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if lines.Text() == "" || strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		part := strings.SplitN(lines.Text(), " | ", 5)
		if len(part) != 5 || len(part[4]) < 20 {
			t.Fatalf("%s:%d: not five parts, or no reason", vecDifferences, n)
		}
		d := vecDifference{part[0], part[1], part[2], part[3], part[4]}
		key := d.vector + " " + d.party
		if _, twice := all[key]; twice {
			t.Errorf("%s:%d: %s is listed twice", vecDifferences, n, key)
		}
		all[key] = d
	}
	return all
}

// startVecGo starts net/http's server with a handler that reads the body and
// names the target, like the scripted origin.
func startVecGo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		MaxHeaderBytes: 60 << 10, // and 4 KiB of slack that it adds: 64 KiB
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				w.Header().Set("Connection", "close")
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("X-Target", r.RequestURI)
			fmt.Fprint(w, r.RequestURI)
		}),
	}
	servedc := make(chan error, 1)
	go func() { servedc <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-servedc
	})
	return l.Addr().String()
}

// startVecNginx starts a real nginx as a proxy before the scripted origin.
func startVecNginx(t *testing.T) string {
	const conf = `
daemon off;
master_process off;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 512; }
http {
	access_log off;
	# The limits that Cirque has: a head of 64 KiB, a target of 16 KiB.
	large_client_header_buffers 4 64k;
	# Room for the origin's answer, which names the target.
	proxy_buffer_size 64k;
	proxy_buffers 4 64k;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	upstream origin { server %[3]s; keepalive 16; }
	server {
		listen %[2]s;
		location / {
			proxy_pass http://origin;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
		}
	}
}
`
	return startVecProgram(t, "nginx", conf, func(dir, file string) []string {
		return []string{"-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", file}
	})
}

// startVecHAProxy starts a real HAProxy as a proxy before the scripted origin.
func startVecHAProxy(t *testing.T) string {
	const conf = `
# %[1]s
global
	maxconn 512
	# Room for a head of 64 KiB, as Cirque has.
	tune.bufsize 66560
	tune.http.maxhdr 101
defaults
	mode http
	timeout connect 30s
	timeout client 30s
	timeout server 30s
frontend front
	bind %[2]s
	default_backend origin
backend origin
	server one %[3]s
`
	return startVecProgram(t, "haproxy", conf, func(_, file string) []string {
		return []string{"-db", "-f", file}
	})
}

// startVecProgram writes the configuration (its arguments: a directory, where
// to listen, the origin), runs the program and waits until it listens.
func startVecProgram(t *testing.T, name, conf string, args func(dir, file string) []string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("the outer ring needs %s: %v", name, err)
	}
	origin := newVecOrigin(t, &vector{}, false)
	t.Cleanup(origin.stop)
	dir := t.TempDir()
	addr := vecFreeAddr(t)
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, conf, dir, addr, origin.Addr()), 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd := exec.Command(path, args(dir, file)...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exitedc := make(chan struct{})
	go func() {
		defer close(exitedc)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exitedc
	})
	vecAwait(t, addr, exitedc, &said)
	return addr
}

// vecFreeAddr returns an address that was free a moment ago.
func vecFreeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// vecAwait returns when something listens at addr.
func vecAwait(t *testing.T, addr string, exitedc chan struct{}, said *strings.Builder) {
	t.Helper()
	late := time.After(vecWait)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return
		}
		select {
		case <-exitedc:
			t.Fatalf("it ended:\n%s", said)
		case <-late:
			t.Fatalf("it does not listen on %s", addr)
		case <-again.C:
		}
	}
}
