//go:build outer

package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

// chromiumPage loads what it says, talks to its origin, and posts what it saw of it.
const chromiumPage = `<!doctype html>
<title>page</title>
<link rel="stylesheet" href="/sub/style.css">
<script src="/sub/script.js"></script>
<body>
<script>
const images = 50
const loaded = n => new Promise((ok, no) => {
	const img = new Image()
	img.onload = () => ok(img.naturalWidth)
	img.onerror = no
	img.src = '/sub/' + n + '.svg'
	document.body.append(img)
})
const text = (url, init) => fetch(url, init).then(r => r.text())
async function look() {
	const widths = await Promise.all([...Array(images).keys()].map(loaded))
	const body = 'x'.repeat(2 << 20)
	const echo = await text('/echo', {method: 'POST', body})
	const pieces = []
	const reader = (await fetch('/slow')).body.getReader()
	for (let r; !(r = await reader.read()).done;) pieces.push(r.value.length)
	const abort = new AbortController()
	const never = fetch('/never', {signal: abort.signal}).then(() => 'answered', e => e.name)
	await text('/waits')
	abort.abort()
	let cut = 'whole'
	try { await text('/cut') } catch (e) { cut = e.name }
	const seen = performance.getEntries().filter(e => e.nextHopProtocol !== undefined && !e.name.endsWith('/never') && !e.name.endsWith('/cut'))
	return {
		widths: widths.reduce((a, b) => a + b), echo: echo === body, pieces: pieces.reduce((a, b) => a + b),
		never: await never, cut, script: window.fromScript, style: getComputedStyle(document.body).color,
		cookies: await text('/cookies'),
		protocols: [...new Set(seen.map(e => e.nextHopProtocol))], entries: seen.length,
	}
}
look().catch(e => ({error: String(e)})).then(seen => fetch('/report', {method: 'POST', body: JSON.stringify(seen)}))
</script>
`

// sight is what the page posts.
type sight struct {
	Error                     string
	Widths, Pieces, Entries   int
	Echo                      bool
	Never, Cut, Script, Style string
	Cookies                   string
	Protocols                 []string
}

// chromiumOrigin serves the page.
func chromiumOrigin(t *testing.T, reportc chan<- sight) string {
	waits := make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		for i := range 60 {
			http.SetCookie(w, &http.Cookie{Name: fmt.Sprint("c", i), Value: fmt.Sprint(i), Path: "/"})
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, chromiumPage)
	})
	mux.HandleFunc("/sub/style.css", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		_, _ = io.WriteString(w, "body { color: rgb(1, 2, 3) }")
	})
	mux.HandleFunc("/sub/script.js", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, "window.fromScript = 'ran'")
	})
	mux.HandleFunc("/sub/{image}", func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscanf(r.PathValue("image"), "%d.svg", &n)
		w.Header().Set("Content-Type", "image/svg+xml")
		fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="1"/>`, n+1)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		for range 100 {
			_, _ = w.Write(make([]byte, 10000))
			_ = http.NewResponseController(w).Flush()
		}
	})
	mux.HandleFunc("/never", func(w http.ResponseWriter, r *http.Request) {
		waits <- struct{}{}
		<-r.Context().Done()
	})
	mux.HandleFunc("/waits", func(w http.ResponseWriter, r *http.Request) { <-waits })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "too little")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/cookies", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d fields, %d cookies", len(r.Header["Cookie"]), len(r.Cookies()))
	})
	mux.HandleFunc("/report", func(w http.ResponseWriter, r *http.Request) {
		var s sight
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			s.Error = err.Error()
		}
		reportc <- s
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// TestOuterChromium has a browser load a page with all that belongs to it over one
// connection of HTTP/2.
func TestOuterChromium(t *testing.T) {
	reportc := make(chan sight, 1)
	cert := testcert.NewCA(t, "CA").Server("localhost")
	certFile, keyFile := cert.Write(t.TempDir(), "a")
	p := start(t, fmt.Sprintf(h2Conf, certFile, keyFile, chromiumOrigin(t, reportc))+
		"log: {access: {output: stderr, format: json}}\n", 2)
	_, port, _ := net.SplitHostPort(p.addrs["tls"])
	spki := sha256.Sum256(cert.X509.RawSubjectPublicKeyInfo)
	cmd := exec.Command(tool(t, "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP localhost 127.0.0.1",
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(spki[:]), "https://localhost:"+port+"/")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	launch(t, cmd)
	var got sight
	select {
	case got = <-reportc:
	case <-time.After(3 * patience): // a browser starts slowly on a machine with other work
		t.Fatal("the page reports nothing")
	}
	want := sight{
		Widths: 50 * 51 / 2, Pieces: 1000000, Echo: true, Never: "AbortError", Cut: "TypeError", Script: "ran", Style: "rgb(1, 2, 3)",
		Cookies: "1 fields, 60 cookies", Protocols: []string{"h2"}, Entries: got.Entries,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || got.Entries < 56 {
		t.Errorf("the page saw\n%+v, want\n%+v", got, want)
	}
	p.stop()
	if n := strings.Count(p.stderr(), `"protocol":"HTTP/2.0"`); n < 56 {
		t.Errorf("%d requests in HTTP/2, want at least 56", n)
	}
}
