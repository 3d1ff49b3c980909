package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binary is the program under test: this test binary itself, which is the
// program where asMain is set. So the program has the same build flags as the
// tests, the race detector among them, and go test knows when to run them again.
var binary string

const asMain = "CIRQUE_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		os.Exit(0)
	}
	var err error
	if binary, err = os.Executable(); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// command is the program with arguments.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), asMain+"=1")
	return cmd
}

// patience bounds each wait of these tests: far over what any should take on
// a busy machine.
const patience = 20 * time.Second

// runToEnd runs the program to its end.
func runToEnd(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// process is the program while it runs.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	addrs map[string]string // of listeners, by name

	mu    sync.Mutex
	lines []string   // of stderr. Guarded by mu.
	more  *sync.Cond // there is another line, or the process ended; on mu
	donec chan struct{}
}

var listeningRE = regexp.MustCompile(`msg=listening listener=(\S+) address=(\S+)`)

// start runs "cirque run" on a configuration and waits till it listens.
func start(t *testing.T, conf string, listeners int, args ...string) *process {
	t.Helper()
	p := &process{t: t, addrs: map[string]string{}, donec: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	p.cmd = command(append([]string{"run", "-c", write(t, conf)}, args...)...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	upc := make(chan struct{})
	go p.watch(stderr, listeners, upc)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.donec
		if t.Failed() {
			t.Logf("stderr:\n%s", p.stderr())
		}
	})
	select {
	case <-upc:
	case <-p.donec:
		t.Fatalf("it ended: %s", p.stderr())
	case <-time.After(patience):
		t.Fatalf("it does not listen: %s", p.stderr())
	}
	return p
}

// watch collects what the process says, until it ends.
func (p *process) watch(stderr io.Reader, listeners int, upc chan<- struct{}) {
	defer close(p.donec)
	for sc := bufio.NewScanner(stderr); sc.Scan(); {
		p.mu.Lock()
		p.lines = append(p.lines, sc.Text())
		if m := listeningRE.FindStringSubmatch(sc.Text()); m != nil {
			p.addrs[m[1]] = m[2]
			if len(p.addrs) == listeners {
				close(upc)
			}
		}
		p.mu.Unlock()
		p.more.Broadcast()
	}
	_ = p.cmd.Wait()
}

// says waits for a line of stderr that holds text.
func (p *process) says(text string) {
	p.t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		p.mu.Lock()
		late = true
		p.mu.Unlock()
		p.more.Broadcast()
	})
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !strings.Contains(strings.Join(p.lines, "\n"), text) {
		if late {
			p.t.Fatalf("it does not say %q", text)
		}
		p.more.Wait()
	}
}

func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the end and returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.donec:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatal("the process does not end")
		return 0
	}
}

// stop ends an idle process and wants it to do so well.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		p.t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
}

func write(t *testing.T, conf string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cirque.yaml")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// origin answers with its name, and with what it saw under /headers.
func origin(t *testing.T, name string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Origin", name)
		if r.URL.Path == "/headers" {
			fmt.Fprintf(w, "Host: %s\n", r.Host)
			_ = r.Header.Write(w)
			return
		}
		fmt.Fprintf(w, "%s %s", name, r.URL.Path)
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// get makes a request on a connection of its own.
func get(t *testing.T, addr, host, path string) (*http.Response, string) {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}
