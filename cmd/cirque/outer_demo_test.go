//go:build outer

package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// built is the program as "go build" makes it, for what the README promises of
// it.
func built(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cirque")
	if out, err := exec.Command(tool(t, "go"), "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// shell runs a command line as a reader would paste it.
func shell(t *testing.T, dir, line string) (string, error) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "exec timeout 20 "+line)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	return strings.ReplaceAll(string(out), "\r\n", "\n"), err
}

// demoClaims is what must come of the command lines of the demo, by path.
var demoClaims = map[string][]string{
	"/":          {"HTTP/1.1 200 OK\n", " answers GET /\n"},
	"/api/hello": {"HTTP/1.1 200 OK\n", "\n\napi answers GET /api/hello\n"},
	"/headers":   {"HTTP/1.1 200 OK\n", "\nX-Forwarded-For: 127.0.0.1\n", "\nUser-Agent: curl/"},
	"/echo":      {"HTTP/1.1 200 OK\n", "\n\nsome text"},
	"/secret":    {"HTTP/1.1 401 Unauthorized\n", "\nWWW-Authenticate: Basic realm=\"demo\"\n", "\n\nwho are you?\n"},
	"/dead":      {"HTTP/1.1 502 Bad Gateway\n", "\nreason: connect_refused\n"},
}

// TestOuterDemo runs the demo and each command line that it prints.
func TestOuterDemo(t *testing.T) {
	p := launch(t, exec.Command(built(t), "demo", "--listen", "127.0.0.1:0"))
	p.says(t, `^Stop with Ctrl-C\.$`, 1)
	addr := p.says(t, `^Cirque listens on http://(\S+) and has three origins`, 1)[1]
	origins := p.says(t, `^web-1 \((\S+)\) and web-2 \((\S+)\) in turn, and one for /api/\.$`, 1)
	dir := t.TempDir()
	tried := 0
	for _, m := range regexp.MustCompile(`(?m)^  (curl .*?)  +`).FindAllStringSubmatch(p.text(), -1) {
		path := m[1][strings.Index(m[1], addr)+len(addr):]
		claims := demoClaims[path]
		if claims == nil {
			t.Errorf("nothing is known of %q", m[1])
			continue
		}
		tried++
		got, err := shell(t, dir, m[1])
		for _, want := range claims {
			if err != nil || !strings.Contains(got, want) {
				t.Errorf("%s: %v, no %q in\n%s", m[1], err, want, got)
			}
		}
	}
	if tried != len(demoClaims) {
		t.Errorf("the demo prints %d command lines, want %d:\n%s", tried, len(demoClaims), p.text())
	}
	t.Run("in turn", func(t *testing.T) {
		var names []string
		for range 4 {
			_, body := get(t, addr, "x", "/")
			names = append(names, strings.Fields(body)[0])
		}
		if slices.Sort(names); !slices.Equal(names, []string{"web-1", "web-1", "web-2", "web-2"}) {
			t.Errorf("four requests went to %q", names)
		}
	})
	t.Run("origins", func(t *testing.T) {
		for i, origin := range origins[1:] {
			if _, body := get(t, origin, "x", "/a"); body != fmt.Sprintf("web-%d answers GET /a\n", i+1) {
				t.Errorf("%s says %q", origin, body)
			}
		}
	})
	t.Run("lines of the filter", func(t *testing.T) {
		source, err := os.ReadFile("demo.go")
		if err != nil {
			t.Fatal(err)
		}
		filter := regexp.MustCompile(`(?ms)^\tguard := .*?^\t}}\n`).Find(source)
		words := []string{5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}
		if n := strings.Count(string(filter), "\n"); !strings.Contains(p.text(), "a filter of "+words[n]+" lines") {
			t.Errorf("the filter has %d lines", n)
		}
	})
	t.Run("with a name", func(t *testing.T) {
		if got, err := shell(t, dir, "curl -i -u me:x http://"+addr+"/secret"); err != nil || !strings.Contains(got, "answers GET /secret") {
			t.Errorf("%v\n%s", err, got)
		}
	})
	p.signal(syscall.SIGINT) // Ctrl-C
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
}

// readmeBlocks returns the README's blocks of code in a language.
func readmeBlocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if m[1] == language {
			blocks = append(blocks, m[2])
		}
	}
	return blocks
}

// TestOuterReadme runs the README's commands, on free ports, with its
// configuration and nginx where it has origins.
func TestOuterReadme(t *testing.T) {
	bin := built(t)
	var origins [3]string
	for i := range origins {
		origins[i] = startNginx(t, t.TempDir()).addr
	}
	ports := strings.NewReplacer(":8080", ":0", "127.0.0.1:8080", "127.0.0.1:0", "127.0.0.1:2020", "127.0.0.1:0",
		"127.0.0.1:9000", origins[0], "127.0.0.1:9001", origins[1], "127.0.0.1:9002", origins[2])
	confs := readmeBlocks(t, "yaml")
	if len(confs) != 1 {
		t.Fatalf("%d blocks of YAML, want 1", len(confs))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cirque.yaml"), []byte(ports.Replace(confs[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, block := range readmeBlocks(t, "") {
		for line := range strings.Lines(block) {
			line, ok := strings.CutPrefix(strings.TrimSpace(line), "go run ./cmd/cirque ")
			if !ok {
				continue
			}
			name := strings.Fields(line)[0]
			seen[name] = true
			t.Run(name, func(t *testing.T) { readmeCommand(t, dir, bin, ports.Replace(line)) })
		}
	}
	for _, name := range []string{"demo", "proxy", "check", "explain", "run"} {
		if !seen[name] {
			t.Errorf("the README has no command %s any more", name)
		}
	}
}

func readmeCommand(t *testing.T, dir, bin, line string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "exec "+bin+" "+line)
	cmd.Dir = dir
	switch name := strings.Fields(line)[0]; name {
	case "demo": // TestOuterDemo, on a free port
	case "check", "explain":
		want := "is good: 1 listener, 2 routes, 2 upstreams"
		if name == "explain" {
			want = "upstream  api\n"
		}
		if out, err := shell(t, dir, bin+" "+line); err != nil || !strings.Contains(out, want) {
			t.Errorf("%v, no %q in\n%s", err, want, out)
		}
	case "proxy":
		p := launch(t, cmd)
		readmeServes(t, p, p.says(t, `^proxying (\S+) to `, 1)[1])
	case "run":
		p := launch(t, cmd)
		readmeServes(t, p, p.says(t, `listener=web address=(\S+)$`, 1)[1])
		if n := len(parseAccessLines(t, p.text())); n != 4 {
			t.Errorf("%d lines in the access log, want 4", n)
		}
	default:
		t.Errorf("nothing is known of %q", line)
	}
}

// readmeServes makes requests of a program and ends it.
func readmeServes(t *testing.T, p *program, addr string) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/id/1", "/id/2", "/api/none", "/none"} {
		status := http.StatusOK
		if strings.HasSuffix(path, "none") {
			status = http.StatusNotFound
		}
		if resp, body := get(t, "127.0.0.1:"+port, "localhost", path); resp.StatusCode != status {
			t.Errorf("%s: %d %q, want %d", path, resp.StatusCode, body, status)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

// TestOuterReadmeProgram compiles the README's program against the module.
func TestOuterReadmeProgram(t *testing.T) {
	blocks := readmeBlocks(t, "go")
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of Go, want 1", len(blocks))
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(blocks[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool(t, "go"), "vet", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
