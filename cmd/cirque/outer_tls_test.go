//go:build outer

package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// mozillaConf is nginx with what Mozilla's generator calls intermediate: what a
// careful operator has.
const mozillaConf = `
%[1]s
daemon off;
worker_processes 1;
pid %[2]s/pid;
error_log stderr notice;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server {
		listen %[3]s ssl http2;
		ssl_certificate %[4]s;
		ssl_certificate_key %[5]s;
		ssl_session_timeout 1d;
		ssl_session_cache shared:MozSSL:10m;
		ssl_protocols TLSv1.2 TLSv1.3;
		ssl_ecdh_curve X25519:prime256v1:secp384r1;
		ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305;
		ssl_prefer_server_ciphers off;
		location / { return 200 "nginx"; }
	}
}
`

// tlsPair is Cirque and nginx with the same certificate.
type tlsPair struct {
	dir, caFile   string
	cirque, nginx string // addresses
	process       *process
}

func newTLSPair(t *testing.T, isRSA bool) *tlsPair {
	t.Helper()
	p := &tlsPair{dir: t.TempDir(), nginx: reserve(t)}
	ca := testcert.NewCA(t, "CA")
	cert, key := ca.Issue(testcert.Options{Names: []string{"a.test"}, RSA: isRSA}).Write(p.dir, "a")
	p.caFile, _ = ca.Write(p.dir, "ca")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := filepath.Join(p.dir, "conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, mozillaConf, user, p.dir, p.nginx, cert, key), 0o600); err != nil {
		t.Fatal(err)
	}
	launch(t, exec.Command(tool(t, "nginx"), "-p", p.dir, "-e", "stderr", "-c", conf)).says(t, "start worker process [0-9]", 1)
	p.process = start(t, fmt.Sprintf(h2Conf, cert, key, origin(t, "web")), 2)
	p.cirque = p.process.addrs["tls"]
	return p
}

// output runs a program to its end, nothing on its input.
func output(t *testing.T, timeout time.Duration, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool(t, name), args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestOuterOpenSSL: rows T1, T3, T4: handshakes with OpenSSL's own client.
func TestOuterOpenSSL(t *testing.T) {
	p := newTLSPair(t, false)
	for _, c := range []struct {
		name string
		args []string
		want []string // nil: the handshake fails
	}{
		{"TLS 1.3", []string{"-tls1_3", "-alpn", "h2,http/1.1"}, []string{"New, TLSv1.3", "ALPN protocol: h2", "Verify return code: 0 (ok)"}},
		{"TLS 1.2", []string{"-tls1_2", "-alpn", "http/1.1"}, []string{"New, TLSv1.2", "ALPN protocol: http/1.1", "ECDHE-ECDSA-AES"}},
		{"no ALPN", nil, []string{"No ALPN negotiated", "Verify return code: 0 (ok)"}},
		{"no overlap of ALPN", []string{"-alpn", "spdy/3"}, nil},
		{"TLS 1.1", []string{"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"}, nil},
		{"TLS 1.0", []string{"-tls1", "-cipher", "DEFAULT@SECLEVEL=0"}, nil},
		{"a cipher without forward secrecy", []string{"-tls1_2", "-cipher", "AES128-GCM-SHA256:AES128-SHA"}, nil},
		{"CBC", []string{"-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256"}, nil},
		{"P-384", []string{"-groups", "P-384"}, []string{"Server Temp Key: ECDH, secp384r1"}},
		{"P-521", []string{"-groups", "P-521"}, nil},
		{"resumption", []string{"-tls1_2", "-reconnect"}, []string{"Reused, TLSv1.2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := output(t, patience, "openssl", append([]string{"s_client", "-connect", p.cirque, "-servername", "a.test",
				"-CAfile", p.caFile, "-verify_return_error"}, c.args...)...)
			if c.want == nil && (err == nil || !strings.Contains(out, "alert")) {
				t.Errorf("%v, want an alert\n%s", err, out)
			}
			for _, want := range c.want {
				if err != nil || !strings.Contains(out, want) {
					t.Errorf("%v, want %q\n%s", err, want, out)
				}
			}
		})
	}
	p.process.stop()
}

// TestOuterScanners has sslscan and testssl look for weaknesses: Cirque must have none
// that nginx does not have with Mozilla's intermediate settings.
func TestOuterScanners(t *testing.T) {
	for name, isRSA := range map[string]bool{"ECDSA": false, "RSA": true} {
		t.Run("sslscan "+name, func(t *testing.T) {
			p := newTLSPair(t, isRSA)
			ours, theirs := p.sslscan(t, p.cirque), p.sslscan(t, p.nginx)
			for what := range ours {
				if !theirs[what] {
					t.Errorf("nginx does not have: %s", what)
				}
			}
			for _, want := range []string{"protocol tls 1.2", "protocol tls 1.3", "cipher TLSv1.3 TLS_AES_128_GCM_SHA256 acceptable"} {
				if !ours[want] {
					t.Errorf("not found: %s", want)
				}
			}
		})
	}
	t.Run("testssl", func(t *testing.T) {
		p := newTLSPair(t, false)
		theirsc := make(chan map[string]string, 1)
		go func() { theirsc <- p.testssl(t, p.nginx) }()
		ours, theirs := p.testssl(t, p.cirque), <-theirsc
		for id, severity := range ours {
			switch severity {
			case "LOW", "MEDIUM", "HIGH", "CRITICAL":
				if theirs[id] != severity {
					t.Errorf("%s is %s, with nginx %q", id, severity, theirs[id])
				}
			}
		}
		for _, id := range []string{"TLS1_3", "heartbleed", "ROBOT", "secure_renego", "BREACH", "LUCKY13"} {
			if ours[id] != "OK" {
				t.Errorf("%s is %q, want OK", id, ours[id])
			}
		}
	})
}

// sslscan returns what a server has that matters to its strength.
func (p *tlsPair) sslscan(t *testing.T, addr string) map[string]bool {
	t.Helper()
	out, err := output(t, patience, "sslscan", "--no-colour", "--sni-name=a.test", "--xml=-", addr)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var doc struct {
		Test struct {
			Protocols []struct {
				Type    string `xml:"type,attr"`
				Version string `xml:"version,attr"`
				Enabled int    `xml:"enabled,attr"`
			} `xml:"protocol"`
			Ciphers []struct {
				Version  string `xml:"sslversion,attr"`
				Name     string `xml:"cipher,attr"`
				Strength string `xml:"strength,attr"`
			} `xml:"cipher"`
			Renegotiation struct {
				Supported int `xml:"supported,attr"`
				Secure    int `xml:"secure,attr"`
			} `xml:"renegotiation"`
			Compression struct {
				Supported int `xml:"supported,attr"`
			} `xml:"compression"`
			Heartbleed []struct {
				Vulnerable int `xml:"vulnerable,attr"`
			} `xml:"heartbleed"`
		} `xml:"ssltest"`
	}
	if err := xml.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	has := map[string]bool{}
	for _, x := range doc.Test.Protocols {
		if x.Enabled != 0 {
			has["protocol "+x.Type+" "+x.Version] = true
		}
	}
	for _, x := range doc.Test.Ciphers {
		has["cipher "+x.Version+" "+x.Name+" "+x.Strength] = true
	}
	if doc.Test.Renegotiation.Supported != 0 {
		has[fmt.Sprintf("renegotiation, secure=%d", doc.Test.Renegotiation.Secure)] = true
	}
	if doc.Test.Compression.Supported != 0 {
		has["compression"] = true
	}
	for _, x := range doc.Test.Heartbleed {
		if x.Vulnerable != 0 {
			has["heartbleed"] = true
		}
	}
	return has
}

// testssl returns the severities of what it finds.
func (p *tlsPair) testssl(t *testing.T, addr string) map[string]string {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	file := filepath.Join(p.dir, "testssl-"+port+".json")
	out, err := output(t, 5*time.Minute, "testssl", "--fast", "-p", "-s", "-P", "-U", "--ip", "one", "--color", "0", "--warnings", "batch", "--jsonfile", file, addr)
	var found []struct{ ID, Severity string }
	data, rerr := os.ReadFile(file)
	if rerr == nil {
		rerr = json.Unmarshal(data, &found)
	}
	if rerr != nil || len(found) < 30 {
		t.Errorf("%d findings, %v, %v\n%s", len(found), rerr, err, out)
	}
	severities := map[string]string{}
	for _, f := range found {
		severities[f.ID] = f.Severity
	}
	return severities
}
