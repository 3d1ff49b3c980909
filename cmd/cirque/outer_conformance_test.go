//go:build outer

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// wholeConformance, in the environment, has the conformance suite run with every codec
// and compression, and directly too: make conformance.
const wholeConformance = "CIRQUE_CONFORMANCE"

// conformanceConf is what the suite's own reference server can do, but for HTTP/3.
const conformanceConf = `
features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO, CODEC_JSON]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP, COMPRESSION_BR, COMPRESSION_ZSTD, COMPRESSION_DEFLATE, COMPRESSION_SNAPPY]
  supportsTlsClientCerts: true
  supportsHalfDuplexBidiOverHttp1: true
`

// conformance runs the suite against a server and returns how many cases there
// were. All must pass.
func conformance(t *testing.T, conf string, server ...string) (cases int) {
	t.Helper()
	args := append([]string{"--mode", "server", "--conf", conf, "--"}, server...)
	cmd := exec.Command(tool(t, "connectconformance"), args...)
	timer := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	began := time.Now()
	out, err := cmd.CombinedOutput()
	m := regexp.MustCompile(`(?m)^Total cases: (\d+)\n(\d+) passed, 0 failed$`).FindSubmatch(out)
	if err != nil || m == nil || string(m[1]) != string(m[2]) {
		text := string(out)
		t.Fatalf("%v, want all cases to pass\n%s", err, text[max(0, len(text)-4000):])
	}
	cases, _ = strconv.Atoi(string(m[1]))
	t.Logf("%d cases in %s", cases, time.Since(began).Round(time.Second))
	return cases
}

// TestOuterConformance runs Connect's suite for gRPC, gRPC-web and Connect through
// Cirque, over HTTP/1 and HTTP/2, without TLS, with it, and with certificates of
// clients: once with the same to the origin as to the client, once with HTTP/2 without
// TLS to the origin. The suite's own server passes all cases; so must it here.
func TestOuterConformance(t *testing.T) {
	dir := t.TempDir()
	cert, key := testcert.SelfSigned(t, testcert.Options{Name: "proxy", Client: true}).Write(dir, "proxy")
	conf, text, least := filepath.Join(dir, "conf.yaml"), conformanceConf, 10000
	whole := os.Getenv(wholeConformance) != ""
	if !whole {
		text = strings.NewReplacer(", CODEC_JSON", "", ", COMPRESSION_BR, COMPRESSION_ZSTD, COMPRESSION_DEFLATE, COMPRESSION_SNAPPY", "").Replace(text)
		least = 1000
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if whole {
		t.Run("direct", func(t *testing.T) { least = conformance(t, conf, tool(t, "referenceserver")) })
	}
	for _, upstream := range []string{"same", "h2c"} {
		t.Run(upstream, func(t *testing.T) {
			got := conformance(t, conf, tool(t, "python3"), filepath.Join("testdata", "outer", "shim.py"),
				upstream, binary, tool(t, "referenceserver"), cert, key)
			if got < least {
				t.Errorf("%d cases, want at least %d", got, least)
			}
		})
	}
}
