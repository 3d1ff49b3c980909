//go:build outer

package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The outer ring: the program between real servers and real clients. A tool
// that is missing fails; .ci/tools installs them all.

// tool returns where a program is.
func tool(t *testing.T, name string) string {
	t.Helper()
	if name == "python3" && os.Getenv("CIRQUE_PYTHON") != "" {
		return os.Getenv("CIRQUE_PYTHON")
	}
	if name == "python3" {
		return "/usr/bin/python3" // the one that apt's libraries belong to
	}
	for _, dir := range []string{"../../.ci/bin", "", "/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			path, _ = filepath.Abs(path)
			return path
		}
	}
	t.Fatalf("the outer ring needs %s, and it is not here: make tools", name)
	return ""
}

// program is a program that runs beside the test, in a process group of its
// own so that its children end with it.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer // programs of ours end when it does

	mu    sync.Mutex
	lines []string      // of stdout and stderr. Guarded by mu.
	morec chan struct{} // closed at the next line. Guarded by mu.
	donec chan struct{}
}

// launch starts a program.
func launch(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, morec: make(chan struct{}), donec: make(chan struct{})}
	// Pdeathsig, which only Linux has, ends it if the test is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	// Each has a pipe of its own: large writes of two on one would mix.
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.watch(stdout, stderr)
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), p.tail(40))
		}
	})
	return p
}

// watch collects what the program says, until it ends.
func (p *program) watch(pipes ...io.Reader) {
	defer close(p.donec)
	var all sync.WaitGroup
	for _, r := range pipes {
		all.Go(func() { p.collect(r) })
	}
	all.Wait() // Wait closes the pipes
	_ = p.cmd.Wait()
}

func (p *program) collect(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 8<<20)
	for sc.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, sc.Text())
		close(p.morec)
		p.morec = make(chan struct{})
		p.mu.Unlock()
	}
}

// end ends the program whatever it does: nicely, and after 2 s at once.
func (p *program) end() {
	p.stdin.Close()
	group := -p.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	timer := time.AfterFunc(2*time.Second, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
	defer timer.Stop()
	<-p.donec
}

func (p *program) tail(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines[max(0, len(p.lines)-n):], "\n")
}

// text returns all that the program said so far.
func (p *program) text() string { return p.tail(1 << 30) }

// says waits till the program has said so many lines that match, and returns
// the submatches of the last of them.
func (p *program) says(t *testing.T, pattern string, times int) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(patience)
	for ended := false; ; {
		p.mu.Lock()
		n, morec := 0, p.morec
		for _, line := range p.lines {
			m := re.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			if n++; n == times {
				p.mu.Unlock()
				return m
			}
		}
		p.mu.Unlock()
		if ended {
			t.Fatalf("%s ended and said %q %d times, want %d", p.cmd.Path, pattern, n, times)
		}
		select {
		case <-morec:
		case <-p.donec:
			ended = true
		case <-late:
			t.Fatalf("%s said %q %d times, want %d", p.cmd.Path, pattern, n, times)
		}
	}
}

// signal sends a signal to the program, not to its children.
func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the program's end and returns the exit code.
func (p *program) wait() int {
	p.t.Helper()
	select {
	case <-p.donec:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("%s does not end", p.cmd.Path)
		return 0
	}
}

// reserve returns an address that nobody else gets until the test ends, but
// that a program may listen on. A socket that is bound and does not listen
// keeps the port from being given to a connect: without it a proxy that tries
// to reach a stopped origin can come to be connected with itself.
func reserve(t *testing.T) string {
	t.Helper()
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
}

// nginx is a real nginx with a master and a worker.
type nginx struct {
	*program
	t          *testing.T
	addr, root string
	starts     int // of workers, since the master started
}

const nginxConf = `
%[4]s
daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log stderr notice;
events { worker_connections 1024; }
http {
	access_log off;
	default_type application/octet-stream;
	client_max_body_size 64m;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	absolute_redirect off;
	server {
		listen %[2]s;
		root %[3]s;
		location /file/ { }
		location /upload/ { dav_methods PUT; create_full_put_path on; }
		location = /redirect { return 302 /file/small; }
		location /id/ { add_header X-Id $http_x_id; return 200 "nginx $request_uri $http_x_id"; }
		location = /count { stub_status; }
	}
}
`

// startNginx starts nginx on the files of root.
func startNginx(t *testing.T, root string) *nginx {
	t.Helper()
	n := &nginx{t: t, addr: reserve(t), root: root}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // else its workers may not read the test's files
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "conf"), fmt.Appendf(nil, nginxConf, dir, n.addr, root, user), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start(dir)
	return n
}

func (n *nginx) start(dir string) {
	n.t.Helper()
	n.program = launch(n.t, exec.Command(tool(n.t, "nginx"), "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "conf")))
	n.starts = 1
	n.says(n.t, "start worker process [0-9]", 1)
}

// restart starts nginx again after it ended.
func (n *nginx) restart() {
	n.t.Helper()
	n.start(filepath.Dir(n.cmd.Args[len(n.cmd.Args)-1]))
}

// reload makes the master replace its worker and waits till the new one is
// there. The old one goes when its connections have.
func (n *nginx) reload() {
	n.t.Helper()
	n.signal(syscall.SIGHUP)
	n.starts++
	n.says(n.t, "start worker process [0-9]", n.starts)
}

// startScript starts a program of ours below testdata/outer and returns it and
// where it listens.
func startScript(t *testing.T, interpreter string, args ...string) (*program, string) {
	t.Helper()
	args[0] = filepath.Join("testdata", "outer", args[0])
	cmd := exec.Command(tool(t, interpreter), args...)
	cmd.Env = append(os.Environ(), "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1")
	p := launch(t, cmd)
	return p, p.says(t, `^listening (\S+)$`, 1)[1]
}

// startPythonServer starts Python's own server for files.
func startPythonServer(t *testing.T, root string) string {
	t.Helper()
	cmd := exec.Command(tool(t, "python3"), "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", root, "0")
	port := launch(t, cmd).says(t, `Serving HTTP on 127\.0\.0\.1 port (\d+)`, 1)[1]
	return net.JoinHostPort("127.0.0.1", port)
}

// hashOf is how the tests name a body.
func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

const mib = 1 << 20

// makeFiles returns a directory with files of random bytes in file/, and their
// contents.
func makeFiles(t *testing.T) (root string, files map[string][]byte) {
	t.Helper()
	root, files = t.TempDir(), map[string][]byte{}
	if err := os.MkdirAll(filepath.Join(root, "file"), 0o755); err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{1})
	for name, size := range map[string]int{"empty": 0, "small": 1000, "1m": mib, "20m": 20 * mib} {
		b := make([]byte, size)
		_, _ = random.Read(b)
		files[name] = b
		if err := os.WriteFile(filepath.Join(root, "file", name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root, files
}
