//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// setup is what a proxy is started with. Templates see its fields.
type setup struct {
	Listen      string // host:port
	Origin      string
	Threads     int    // workers or threads
	CPUs        string // a list for taskset
	Log         string // the access log's file; empty: no log
	Dir         string // of this run
	Bench       string // the bench's own directory
	Files       int    // the limit of descriptors
	Nice        int    // the priority
	Connections int    // that fit in it, with one upstream each

	TLS      bool // clients speak TLS 1.3
	H2       bool // clients speak HTTP/2
	H2Origin bool // the origin speaks HTTP/2, without TLS
	GRPC     bool
	Transfer bool   // one large body at a time
	Cert     string // PEM files
	Key      string
	CertKey  string // both in one

	tls *tlsSpec // what clients offer
}

// Port is the port of Listen.
func (s *setup) Port() string {
	_, port, _ := net.SplitHostPort(s.Listen)
	return port
}

// peer is a proxy that can be measured.
type peer struct {
	name string
	// prepare builds or finds the program and returns its path and version.
	prepare func(b *bench) (path, version string, err error)
	// args is the command line behind the program's name.
	args func(s *setup) ([]string, error)
	// goThreads: the number of threads is set by GOMAXPROCS.
	goThreads bool
	// asked for by a flag of its own.
	asked bool

	path, version string
}

// allPeers are the proxies in the order of a round. Cirque is first, the rest
// are compared with it.
func allPeers() []*peer {
	return append([]*peer{
		{name: "cirque", prepare: buildCirque, args: cirqueArgs, goThreads: true},
		{name: "nginx", prepare: findNginx, args: nginxArgs},
		{name: "haproxy", prepare: findHAProxy, args: haproxyArgs},
	}, builtPeers()...)
}

// otherBuilds are programs built from other states of Cirque: what a change is
// worth shows beside the state before it, in the same rounds.
func otherBuilds(list string) []*peer {
	var builds []*peer
	for item := range strings.SplitSeq(list, ",") {
		if name, path, ok := strings.Cut(item, "="); ok {
			prepare := func(*bench) (string, string, error) { return path, "a build of cirque", nil }
			builds = append(builds, &peer{name: name, prepare: prepare, args: cirqueArgs, goThreads: true, asked: true})
		}
	}
	return builds
}

func buildCirque(b *bench) (string, string, error) {
	out := filepath.Join(b.dir, "cirque")
	if err := run(b.root, "go", "build", "-trimpath", "-o", out, "./cmd/cirque"); err != nil {
		return "", "", err
	}
	return out, b.commit, nil
}

func cirqueArgs(s *setup) ([]string, error) {
	if s.Log == "" && !s.TLS && !s.H2 {
		return []string{"proxy", "--listen", s.Listen, "--to", s.Origin}, nil
	}
	conf := filepath.Join(s.Dir, "cirque.yaml")
	return []string{"run", "-c", conf}, fill("peers/cirque/cirque.yaml", conf, s)
}

func findNginx(*bench) (string, string, error) { return find("nginx", "-v") }

func nginxArgs(s *setup) ([]string, error) {
	conf := filepath.Join(s.Dir, "nginx.conf")
	return []string{"-c", conf, "-e", filepath.Join(s.Dir, "nginx.err")}, fill("peers/nginx/nginx.conf", conf, s)
}

func findHAProxy(*bench) (string, string, error) { return find("haproxy", "-v") }

func haproxyArgs(s *setup) ([]string, error) {
	conf := filepath.Join(s.Dir, "haproxy.cfg")
	return []string{"-db", "-f", conf}, fill("peers/haproxy/haproxy.cfg", conf, s)
}

// find looks for an installed program. Daemons are often outside of a user's
// PATH.
func find(name, versionFlag string) (path, version string, err error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err != nil || st.IsDir() {
			continue
		}
		out, _ := exec.Command(p, versionFlag).CombinedOutput()
		line, _, _ := strings.Cut(string(out), "\n")
		return p, strings.TrimSpace(line), nil
	}
	return "", "", fmt.Errorf("%s is not installed", name)
}

func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail(out, 2000))
	}
	return nil
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// fill writes a template of the bench's directory with s filled in.
func fill(name, to string, s *setup) error {
	t, err := template.ParseFiles(filepath.Join(s.Bench, name))
	if err != nil {
		return fmt.Errorf("read the template %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, s); err != nil {
		return fmt.Errorf("fill in %s: %w", name, err)
	}
	return os.WriteFile(to, out.Bytes(), 0o600)
}

// process is a proxy or an origin that runs.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of its end; read after done
	log  string
}

// startProcess runs argv on some CPUs with its output in the file log.
func startProcess(cpus, log string, nice int, env []string, argv ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	argv = append([]string{"taskset", "-c", cpus}, argv...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	// Its own session, so that all of it can be ended, and so that the kernel
	// (which weighs sessions first, where autogroup is on) sees it as one of
	// its own, whatever else our terminal does; and it ends with us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, done: make(chan struct{}), log: log}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	favour(cmd.Process.Pid, nice)
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// favour gives a session a priority among sessions. Where the kernel does not
// weigh sessions there is no such file, and the processes' own priority does.
func favour(pid, nice int) {
	if nice != 0 {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), strconv.AppendInt(nil, int64(nice), 10), 0)
	}
}

// stop ends the process and all of its group.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(2 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

func (p *process) output() string {
	b, _ := os.ReadFile(p.log)
	return string(tail(b, 2000))
}

// start starts a proxy and waits until it proxies.
func (p *peer) start(s *setup) (*process, error) {
	args, err := p.args(s)
	if err != nil {
		return nil, err
	}
	var env []string
	if p.goThreads && s.Threads > 1 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", s.Threads))
	}
	log := filepath.Join(s.Dir, "output")
	if p.name == "haproxy" && s.Log != "" {
		log = s.Log
	}
	proc, err := startProcess(s.CPUs, log, s.Nice, env, append([]string{p.path}, args...)...)
	if err != nil {
		return nil, err
	}
	if err := proc.ready(s); err != nil {
		proc.stop()
		return nil, fmt.Errorf("%s: %w\n%s", p.name, err, proc.output())
	}
	return proc, nil
}

// freeAddr returns an address of the loopback that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
