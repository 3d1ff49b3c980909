//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The peers that are built from sources: bench/peers is a Go module of its own,
// so that Caddy and fasthttp are no dependencies of Cirque.

func builtPeers() []*peer {
	return []*peer{
		{name: "pingora", prepare: buildPingora, args: pingoraArgs},
		{name: "fasthttp", prepare: goPeer("fasthttp", "github.com/valyala/fasthttp"), args: flagArgs, goThreads: true},
		{name: "reverseproxy", prepare: goPeer("reverseproxy", ""), args: reverseProxyArgs, goThreads: true},
		{name: "caddy", prepare: goPeer("caddy", "github.com/caddyserver/caddy/v2"), args: caddyArgs, goThreads: true},
	}
}

// goPeer builds a program of bench/peers. Its version is that of module, or of
// Go if that is empty.
func goPeer(name, module string) func(*bench) (string, string, error) {
	return func(b *bench) (string, string, error) {
		dir := filepath.Join(b.root, "bench", "peers")
		out := filepath.Join(b.dir, "peer-"+name)
		if err := run(dir, "go", "build", "-trimpath", "-o", out, "./"+name); err != nil {
			return "", "", err
		}
		if module == "" {
			return out, "httputil.ReverseProxy of the Go that builds the bench", nil
		}
		return out, requirement(filepath.Join(dir, "go.mod"), module), nil
	}
}

// requirement returns the line of a go.mod that names module.
func requirement(file, module string) string {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == module {
			return module + " " + f[1]
		}
	}
	return module
}

func flagArgs(s *setup) ([]string, error) {
	return []string{"-listen", s.Listen, "-to", s.Origin, "-log", s.Log}, nil
}

func reverseProxyArgs(s *setup) ([]string, error) {
	args, _ := flagArgs(s)
	if s.TLS {
		args = append(args, "-cert", s.Cert, "-key", s.Key)
	}
	if s.H2 {
		args = append(args, "-h2")
	}
	if s.H2Origin {
		args = append(args, "-h2-origin")
	}
	return args, nil
}

func caddyArgs(s *setup) ([]string, error) {
	conf := filepath.Join(s.Dir, "Caddyfile")
	return []string{"run", "--config", conf, "--adapter", "caddyfile"}, fill("peers/caddy/Caddyfile", conf, s)
}

func buildPingora(b *bench) (string, string, error) {
	dir := filepath.Join(b.root, "bench", "peers", "pingora")
	// Not in the checkout: its TLS library brings Go sources along, which are
	// none of ours; and checkouts can share it.
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	target := filepath.Join(cache, "cirque-bench", "pingora")
	if err := run(dir, "cargo", "build", "--release", "--locked", "--target-dir", target); err != nil {
		return "", "", err
	}
	return filepath.Join(target, "release", "pingora-peer"), crate(filepath.Join(dir, "Cargo.lock"), "pingora-proxy"), nil
}

// crate returns the version of a crate that a lock file holds.
func crate(file, name string) string {
	b, _ := os.ReadFile(file)
	_, after, _ := strings.Cut(string(b), `name = "`+name+"\"\nversion = \"")
	version, _, _ := strings.Cut(after, `"`)
	return name + " " + version
}

func pingoraArgs(s *setup) ([]string, error) {
	args := []string{s.Listen, s.Origin, strconv.Itoa(s.Threads)}
	if s.Log != "" {
		args = append(args, "log="+s.Log)
	}
	if s.TLS {
		args = append(args, "cert="+s.Cert, "key="+s.Key)
	}
	if s.H2 {
		args = append(args, "h2")
	}
	if s.H2Origin {
		args = append(args, "h2-origin")
	}
	return args, nil
}
