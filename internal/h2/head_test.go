package h2

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/cirqueproxy/cirque/message"
)

var testConfig = &Config{MaxStreams: 100, HeadBytes: 64 << 10, Fields: 100, Crumbs: 512, TargetBytes: 16 << 10, Connect: true}

// section reads "name: value" lines as a field section and returns what the reader
// made of it.
func section(t *testing.T, kind sectionKind, h *message.Header, lines ...string) *headReader {
	t.Helper()
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, l := range lines {
		at := strings.Index(l[1:], ":") + 1
		if err := enc.WriteField(hpack.HeaderField{Name: l[:at], Value: strings.TrimPrefix(l[at+1:], " ")}); err != nil {
			t.Fatal(err)
		}
	}
	r := &headReader{cfg: testConfig}
	r.start(kind, h)
	dec := hpack.NewDecoder(4096, r.field)
	if _, err := dec.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	return r
}

var getLines = []string{":method: GET", ":scheme: https", ":authority: a.example", ":path: /x?y=1"}

func TestRequestHeads(t *testing.T) {
	with := func(more ...string) []string { return append(append([]string(nil), getLines...), more...) }
	for _, tc := range []struct {
		name   string
		lines  []string
		end    bool
		bad    bool
		status int
	}{
		{"get", getLines, true, false, 0},
		// RFC 9113, section 8.3: pseudo-header fields.
		{"pseudo last", []string{":method: GET", ":scheme: http", "accept: */*", ":path: /", ":authority: a"}, true, true, 0},
		{"pseudo twice", with(":path: /y"), true, true, 0},
		{"pseudo unknown", with(":flavour: mint"), true, true, 0},
		{"status in a request", with(":status: 200"), true, true, 0},
		// RFC 9113, section 8.3.1: which of them a request has.
		{"no method", getLines[1:], true, true, 0},
		{"no scheme", []string{":method: GET", ":authority: a", ":path: /"}, true, true, 0},
		{"no path", []string{":method: GET", ":scheme: http", ":authority: a"}, true, true, 0},
		{"empty path", []string{":method: GET", ":scheme: http", ":authority: a", ":path: "}, true, true, 0},
		{"host and authority differ", with("host: b.example"), true, true, 0},
		{"host and authority agree", with("host: a.example"), true, false, 0},
		{"host twice", []string{":method: GET", ":scheme: http", ":path: /", "host: a", "host: a"}, true, true, 0},
		{"host alone", []string{":method: GET", ":scheme: http", ":path: /", "host: a"}, true, false, 0},
		{"no host at all", []string{":method: GET", ":scheme: http", ":path: /"}, true, false, 400},
		{"userinfo", []string{":method: GET", ":scheme: http", ":path: /", ":authority: u@a"}, true, false, 400},
		{"path with a space", []string{":method: GET", ":scheme: http", ":path: /a b", ":authority: a"}, true, false, 400},
		{"path that is none", []string{":method: GET", ":scheme: http", ":path: a", ":authority: a"}, true, false, 400},
		{"asterisk", []string{":method: OPTIONS", ":scheme: http", ":path: *", ":authority: a"}, true, false, 0},
		{"asterisk for GET", []string{":method: GET", ":scheme: http", ":path: *", ":authority: a"}, true, false, 400},
		{"long path", []string{":method: GET", ":scheme: http", ":authority: a", ":path: /" + strings.Repeat("x", 20000)}, true, false, 414},
		// RFC 9113, section 8.2.1: names and values.
		{"upper case", with("Accept: x"), true, true, 0},
		{"space in a name", with("a b: x"), true, true, 0},
		{"empty name", []string{":method: GET", ":scheme: http", ":path: /", ":authority: a", "\x00: x"}, true, true, 0},
		{"line feed in a value", with("a: x\ny"), true, true, 0},
		{"value ends with a space", with("a: x "), true, true, 0},
		{"value begins with a tab", with("a: \tx"), true, true, 0},
		// RFC 9113, section 8.2.2: fields of connections.
		{"connection", with("connection: close"), true, true, 0},
		{"transfer-encoding", with("transfer-encoding: chunked"), false, true, 0},
		{"upgrade", with("upgrade: h2c"), true, true, 0},
		{"keep-alive", with("keep-alive: 5"), true, true, 0},
		{"proxy-connection", with("proxy-connection: close"), true, true, 0},
		{"te trailers", with("te: trailers"), true, false, 0},
		{"te gzip", with("te: gzip"), true, true, 0},
		// RFC 9113, section 8.1.1: lengths.
		{"two lengths", with("content-length: 1", "content-length: 1"), false, true, 0},
		{"signed length", with("content-length: +1"), false, true, 0},
		{"length without a body", with("content-length: 1"), true, true, 0},
		{"length", with("content-length: 1"), false, false, 0},
		// RFC 9113, section 8.5: CONNECT; RFC 8441, section 4: with a protocol.
		{"connect", []string{":method: CONNECT", ":authority: a:443"}, false, false, 0},
		{"connect without a port", []string{":method: CONNECT", ":authority: a"}, false, false, 400},
		{"connect with a path", []string{":method: CONNECT", ":authority: a:443", ":path: /"}, false, true, 0},
		{"connect without authority", []string{":method: CONNECT"}, false, true, 0},
		{"websocket", []string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":path: /", ":authority: a"}, false, false, 0},
		{"protocol in GET", with(":protocol: websocket"), true, true, 0},
		// RFC 9113, section 6.5.2 and 10.5.1: limits.
		{"many fields", with(strings.Split(strings.Repeat("a: b\n", 101), "\n")[:101]...), true, false, 431},
		{"large list", with("a: " + strings.Repeat("x", 66000)), true, false, 431},
		{"many crumbs", with(strings.Split(strings.Repeat("cookie: b\n", 513), "\n")[:513]...), true, false, 431},
		{"as many crumbs as may be", with(strings.Split(strings.Repeat("cookie: b\n", 512), "\n")[:512]...), true, false, 0},
		{"another expectation", with("expect: tea"), true, false, 417},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var req message.Request
			r := section(t, requestHead, &req.Header, tc.lines...)
			_, refusal := r.request(&req, tc.end)
			status := 0
			if refusal != nil {
				status = refusal.Status
			}
			if (r.bad != "") != tc.bad || status != tc.status {
				t.Errorf("malformed %q, status %d; want malformed %v, status %d", r.bad, status, tc.bad, tc.status)
			}
		})
	}
}

func TestRequestFields(t *testing.T) {
	var req message.Request
	r := section(t, requestHead, &req.Header, append(append([]string(nil), getLines...),
		"cookie: a=1", "user-agent: x", "cookie: b=2", "x-thing: 1", "content-length: 5")...)
	if _, refusal := r.request(&req, false); refusal != nil || r.bad != "" {
		t.Fatal(refusal, r.bad)
	}
	var got []string
	for name, value := range req.Header.All() {
		got = append(got, name+": "+value)
	}
	// RFC 9113, section 8.2.3: the crumbs are one field.
	want := "Host: a.example|User-Agent: x|x-thing: 1|Content-Length: 5|Cookie: a=1; b=2"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("fields\n got %s\nwant %s", s, want)
	}
	if req.Method() != "GET" || req.Target() != "/x?y=1" || req.Scheme() != "https" || req.Host() != "a.example" || req.Length() != 5 {
		t.Errorf("request is %s %s %s %s %d", req.Method(), req.Target(), req.Scheme(), req.Host(), req.Length())
	}
}

func TestResponseHeads(t *testing.T) {
	for _, tc := range []struct {
		name         string
		lines        []string
		end          bool
		bad, interim bool
	}{
		{"ok", []string{":status: 200"}, false, false, false},
		{"interim", []string{":status: 103", "link: x"}, false, false, true},
		{"interim that ends", []string{":status: 103"}, true, true, false},
		// RFC 9113, section 8.3.2.
		{"no status", []string{"a: b"}, false, true, false},
		{"status of two digits", []string{":status: 20"}, false, true, false},
		{"path", []string{":status: 200", ":path: /"}, false, true, false},
		// RFC 9113, section 8.6: no 101.
		{"101", []string{":status: 101"}, false, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var resp message.Response
			r := section(t, responseHead, &resp.Header, tc.lines...)
			interim := r.response(&resp, tc.end)
			if (r.bad != "") != tc.bad || !tc.bad && interim != tc.interim {
				t.Errorf("malformed %q, interim %v", r.bad, interim)
			}
		})
	}
}

// TestEncode compares what we write with what an independent decoder reads.
func TestEncode(t *testing.T) {
	decode := func(b []byte) string {
		var s []string
		_, err := hpack.NewDecoder(0, func(f hpack.HeaderField) { s = append(s, f.Name+": "+f.Value) }).Write(b)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(s, "|")
	}
	var resp message.Response
	resp.Status = 200
	resp.Header.Add("Content-Type", "text/html")
	resp.Header.Add("X-Long-Name-Of-Ours", strings.Repeat("v", 300))
	resp.Header.Add("Connection", "close")
	resp.Header.Add("Alt-Svc", "clear")
	// RFC 7541, section 5.1, section 5.2 and section 6.2.2; RFC 9113, section 8.2.1 and section 8.2.2.
	want := ":status: 200|content-type: text/html|x-long-name-of-ours: " + strings.Repeat("v", 300) + "|alt-svc: clear|content-length: 12"
	if got := decode(appendResponse(nil, &resp, 12)); got != want {
		t.Errorf("response\n got %s\nwant %s", got, want)
	}
	resp.Status = 418
	if got := decode(appendResponse(nil, &resp, -1)); !strings.HasPrefix(got, ":status: 418|") || strings.Contains(got, "content-length") {
		t.Errorf("response is %s", got)
	}
	var req message.Request
	req.SetMethod("PUT")
	req.SetScheme("https")
	req.SetTarget("/a?b")
	req.SetAuthority("a.example:8443")
	req.SetLength(3)
	req.Header.Add("Cookie", "a=1; b=2")
	req.Header.Add("TE", "trailers, gzip")
	req.Header.Add("Authorization", "secret") // RFC 7541, section 7.1.3
	want = ":method: PUT|:scheme: https|:path: /a?b|:authority: a.example:8443|cookie: a=1|cookie: b=2|te: trailers|authorization: secret|content-length: 3"
	if got := decode(appendRequest(nil, &req, "")); got != want {
		t.Errorf("request\n got %s\nwant %s", got, want)
	}
	if !bytes.Contains(appendRequest(nil, &req, ""), []byte{0x1f, 0x08, 6, 's', 'e', 'c'}) {
		t.Error("Authorization is not marked as never indexed")
	}
	req.SetMethod("CONNECT")
	if got := decode(appendRequest(nil, &req, "websocket")); !strings.HasPrefix(got, ":method: CONNECT|:protocol: websocket|:scheme: https|:path: /a?b|:authority: a.example:8443|") {
		t.Errorf("extended CONNECT is %s", got)
	}
	var trailer message.Header
	trailer.Add("Grpc-Status", "0")
	trailer.Add("Content-Length", "3")
	if got := decode(appendTrailer(nil, &trailer)); got != "grpc-status: 0" {
		t.Errorf("trailer is %s", got)
	}
}

func TestStaticNames(t *testing.T) {
	for id := message.IDOther + 1; id.Lower() != ""; id++ {
		b := appendField(nil, id, nil, []byte("v"))
		_, err := hpack.NewDecoder(0, func(f hpack.HeaderField) {
			if f.Name != id.Lower() || f.Value != "v" {
				t.Errorf("%s is read as %s: %s", id.Lower(), f.Name, f.Value)
			}
		}).Write(b)
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}
