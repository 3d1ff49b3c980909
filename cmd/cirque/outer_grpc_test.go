//go:build outer

package main

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// interopCases are those of gRPC's interop suite that need no credentials of a cloud.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service", "rpc_soak",
}

// interopConf has both ways to reach a gRPC server, by the port of the client's side.
const interopConf = `
listeners:
  h2c-h2c: {address: "127.0.0.1:0", h2c: true}
  h2c-tls: {address: "127.0.0.1:0", h2c: true}
  tls-h2c: {address: "127.0.0.1:0", tls: {certificates: [{cert: %[1]q, key: %[2]q}]}}
  tls-tls: {address: "127.0.0.1:0", tls: {certificates: [{cert: %[1]q, key: %[2]q}]}}
routes:
  - {match: {listener: [h2c-h2c, tls-h2c]}, upstream: plain}
  - {match: {listener: [h2c-tls, tls-tls]}, upstream: secure}
upstreams:
  plain: {peers: [%[4]q], protocol: h2c}
  secure: {peers: [%[5]q], protocol: http2, tls: {server_name: localhost, ca: %[3]q}}
`

// awaitDoor waits till somebody listens at addr.
func awaitDoor(t *testing.T, addr string) {
	t.Helper()
	late, again := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("nobody listens at %s: %v", addr, err)
		}
	}
}

// startInterop starts gRPC's interop server.
func startInterop(t *testing.T, args ...string) string {
	t.Helper()
	addr := reserve(t)
	_, port, _ := net.SplitHostPort(addr)
	launch(t, exec.Command(tool(t, "server"), append(args, "-port", port)...))
	awaitDoor(t, addr)
	return addr
}

// TestOuterGRPC: row D4: grpc-go's client and server with Cirque between them.
func TestOuterGRPC(t *testing.T) {
	dir, ca := t.TempDir(), testcert.NewCA(t, "CA")
	cert, key := ca.Server("localhost").Write(dir, "a")
	caFile, _ := ca.Write(dir, "ca")
	p := start(t, fmt.Sprintf(interopConf, cert, key, caFile,
		startInterop(t), startInterop(t, "-use_tls", "-tls_cert_file", cert, "-tls_key_file", key)), 4)
	for _, listener := range []string{"h2c-h2c", "h2c-tls", "tls-h2c", "tls-tls"} {
		t.Run(listener, func(t *testing.T) {
			host, port, _ := net.SplitHostPort(p.addrs[listener])
			args := []string{"-server_host", host, "-server_port", port}
			if strings.HasPrefix(listener, "tls") {
				args = append(args, "-use_tls", "-use_test_ca", "-ca_file", caFile, "-server_host_override", "localhost")
			}
			for _, name := range interopCases {
				t.Run(name, func(t *testing.T) {
					args := append(slices.Clone(args), "-test_case", name)
					if name == "rpc_soak" {
						args = append(args, "-soak_iterations", "100", "-soak_num_threads", "4")
					}
					interop(t, args...)
				})
			}
		})
	}
	p.stop()
}

// interop runs a case, which exits with another code than 0 if it fails.
func interop(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(tool(t, "client"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}
