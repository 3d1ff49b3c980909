package grpcweb

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/cirqueproxy/cirque"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// frame is a frame of gRPC, or of trailers.
func frame(flag byte, data string) string {
	b := []byte{flag}
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return string(b) + data
}

// service echoes messages in capitals, as gRPC has it. The path says what else.
func service(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") ||
			strings.Contains(r.Header.Get("Content-Type"), "web") || r.Header.Get("X-Grpc-Web") != "" {
			t.Errorf("the origin got %s %v", r.Proto, r.Header)
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		switch r.URL.Path {
		case "/fail": // trailers alone
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Grpc-Message", "no%20such")
			return
		case "/page":
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(418)
			_, _ = io.WriteString(w, "a page")
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		body = bytes.ToUpper(body)
		var cut int
		if _, err := fmt.Sscanf(r.URL.Path, "/cut/%d", &cut); err == nil && cut < len(body) {
			_, _ = w.Write(body[:cut])
			_ = http.NewResponseController(w).Flush()
			body = body[cut:]
		}
		_, _ = w.Write(body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"X-Sum", "7")
	})
}

// start serves the origin h behind the filter and returns the address.
func start(t *testing.T, h http.Handler, more ...cirque.Filter) string {
	t.Helper()
	origin := httptest.NewUnstartedServer(h)
	origin.Config.Protocols = new(http.Protocols)
	origin.Config.Protocols.SetUnencryptedHTTP2(true)
	origin.Start()
	peer := &cirque.Peer{Addr: origin.Listener.Addr().String(), Protocol: cirque.ProtocolH2C}
	transport := &cirque.Transport{}
	srv := &cirque.Server{Logger: slog.New(slog.DiscardHandler), Proxy: &cirque.Proxy{
		Transport: transport, Filters: append([]cirque.Filter{New()}, more...),
		Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		_ = srv.Close()
		transport.Close()
		origin.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

// ask sends a request whose body comes in pieces.
func ask(t *testing.T, url, kind, accept string, pieces ...string) (*http.Response, string) {
	t.Helper()
	pr, pw := io.Pipe()
	go func() {
		for _, p := range pieces {
			_, _ = io.WriteString(pw, p)
		}
		pw.Close()
	}()
	req, err := http.NewRequest("POST", url, pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("X-Grpc-Web", "1")
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	req.Header.Set("Origin", "http://a.example")
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Trailer) > 0 {
		t.Errorf("there are trailers: %v", resp.Trailer)
	}
	return resp, string(b)
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// decodeText decodes a body that may be padded anywhere.
func decodeText(t *testing.T, s string) string {
	t.Helper()
	var d decoder
	b, err := d.decode(nil, []byte(s))
	if err == nil {
		err = d.end()
	}
	if err != nil {
		t.Fatalf("%v: %q", err, s)
	}
	return string(b)
}

var wantBody = frame(0, "ABCDE") + frame(0, "F") + frame(0x80, "grpc-status: 0\r\nx-sum: 7\r\n")

const sent = "\x00\x00\x00\x00\x05abcde\x00\x00\x00\x00\x01f"

// TestBinary and TestText: calls whose request and response are cut at every place.
func TestBinary(t *testing.T) {
	url := start(t, service(t))
	for cut := range len(sent) + 1 {
		resp, got := ask(t, fmt.Sprint(url, "/cut/", cut), "application/grpc-web+proto", "", sent[:cut], sent[cut:])
		if got != wantBody || resp.Header.Get("Content-Type") != "application/grpc-web+proto" {
			t.Fatalf("cut at %d: %v %q", cut, resp.Header, got)
		}
		if e := resp.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(e, "grpc-status") {
			t.Errorf("exposed are %q", e)
		}
	}
}

func TestText(t *testing.T) {
	url := start(t, service(t))
	// The client's text is padded in its middle.
	text := encode(sent[:10]) + encode(sent[10:])
	for cut := range len(text) + 1 {
		resp, got := ask(t, fmt.Sprint(url, "/cut/", cut), "application/grpc-web-text", "application/grpc-web-text", text[:cut], text[cut:])
		if decodeText(t, got) != wantBody || resp.Header.Get("Content-Type") != "application/grpc-web-text" {
			t.Fatalf("cut at %d: %v %q", cut, resp.Header, got)
		}
	}
	// Accept says in which form the answer comes.
	resp, got := ask(t, url+"/", "application/grpc-web-text+proto", "application/grpc-web+proto", text)
	if got != wantBody || resp.Header.Get("Content-Type") != "application/grpc-web+proto" {
		t.Errorf("got %v %q", resp.Header, got)
	}
}

// TestTrailersAlone: the origin's, and those of the proxy's own failures.
func TestTrailersAlone(t *testing.T) {
	url := start(t, service(t), cirque.Filter{Name: "refuse", Forward: func(s *cirque.Session) error {
		if s.Request().Path() == "/refused" {
			return cirque.Reject(403, nil)
		}
		return nil
	}})
	for path, want := range map[string]string{
		"/fail":    "grpc-status: 5\r\ngrpc-message: no%20such\r\n",
		"/refused": "grpc-status: 7\r\ngrpc-message: Forbidden: refused (request id ",
	} {
		resp, got := ask(t, url+path, "application/grpc-web", "", sent)
		if resp.StatusCode != 200 || len(got) < 5 || got[0] != 0x80 || !strings.HasPrefix(got[5:], want) ||
			int(binary.BigEndian.Uint32([]byte(got[1:5]))) != len(got)-5 || resp.Header.Get("Grpc-Status") != "" {
			t.Errorf("%s: %d %v %q", path, resp.StatusCode, resp.Header, got)
		}
		if _, text := ask(t, url+path, "application/grpc-web-text", "", encode(sent)); !strings.HasPrefix(decodeText(t, text)[5:], want) {
			t.Errorf("%s as text: %q", path, text)
		}
	}
	if resp, got := ask(t, url+"/page", "application/grpc-web", "", sent); resp.StatusCode != 418 || got != "a page" {
		t.Errorf("a page came as %d %q", resp.StatusCode, got)
	}
}

// TestNotBase64: what cannot be decoded never reaches the origin as something else.
func TestNotBase64(t *testing.T) {
	url := start(t, service(t))
	for _, text := range []string{"AAA", "AA=A", "!!!!", "AAAA\r\n", "A", "=AAA"} {
		_, got := ask(t, url+"/", "application/grpc-web-text", "", text)
		if got := decodeText(t, got); !strings.Contains(got, "grpc-status: 13\r\n") {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestOthersPass: what is no gRPC-Web is none of this filter's.
func TestOthersPass(t *testing.T) {
	url := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "0")
		_, _ = io.Copy(w, r.Body)
	}))
	for _, kind := range []string{"application/grpc-webx", "application/json", "text/plain"} {
		resp, got := ask(t, url+"/", kind, "", sent)
		if got != sent || resp.Header.Get("Content-Type") != "application/grpc" || resp.Header.Get("Grpc-Status") != "0" {
			t.Errorf("%s: %v %q", kind, resp.Header, got)
		}
	}
}

// TestDecoder cuts a text into every three pieces.
func TestDecoder(t *testing.T) {
	want := "one two three"
	text := encode(want[:1]) + encode(want[1:6]) + encode(want[6:12]) + encode(want[12:])
	for i := range len(text) + 1 {
		for j := i; j <= len(text); j++ {
			var d decoder
			var got []byte
			for _, p := range []string{text[:i], text[i:j], text[j:]} {
				var err error
				if got, err = d.decode(got, []byte(p)); err != nil {
					t.Fatal(i, j, err)
				}
			}
			if string(got) != want || d.end() != nil {
				t.Fatalf("cut at %d and %d: %q", i, j, got)
			}
		}
	}
}
