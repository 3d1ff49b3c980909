package cirquetest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
)

// Do sends a request to the proxy and returns the response, whose body was read
// to its end: it need not be closed. Where the URL has no host it gets one; a
// request of httptest.NewRequest will do. Redirects are not followed. The test
// fails when there is no whole response: see TryDo.
func (b *Bed) Do(r *http.Request) *http.Response {
	b.t.Helper()
	resp, err := b.TryDo(r)
	if err != nil {
		b.t.Fatalf("cirquetest: %s %s: %v", r.Method, r.URL, err)
	}
	return resp
}

// TryDo is Do for responses that may be missing or cut. When the body was cut it
// returns the response with what came of it, and the error.
func (b *Bed) TryDo(r *http.Request) (*http.Response, error) {
	var conn netip.AddrPort
	r = r.Clone(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		conn = i.Conn.LocalAddr().(*net.TCPAddr).AddrPort()
		b.sent(conn)
	}}))
	r.RequestURI = "" // of a request that a server got: a client must not set it
	if r.URL.Scheme == "" {
		r.URL.Scheme = "http"
	}
	if r.URL.Host == "" {
		r.URL.Host = defaultHost
	}
	resp, err := b.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b.answered(conn)
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, err
}

// sent notes that a request goes out on a connection.
func (b *Bed) sent(conn netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.traffic[conn]
	if t == nil {
		t = &traffic{}
		b.traffic[conn] = t
	}
	t.sent++
}

// answered notes that the last request of a connection got a response.
func (b *Bed) answered(conn netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.traffic[conn].answered = b.traffic[conn].sent
}

// defaultHost is the host of requests that name none. RFC 2606, section 2: no
// real name ends so.
const defaultHost = "proxy.test"

// Get is Do for a GET of a path, or of a whole URL.
func (b *Bed) Get(path string) *http.Response {
	b.t.Helper()
	r, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		b.t.Fatalf("cirquetest: %v", err)
	}
	return b.Do(r)
}

// Body returns the body of a response of Do or Get as a string.
func Body(resp *http.Response) string {
	text, _ := io.ReadAll(resp.Body) // from memory
	return string(text)
}

// Client returns the bed's client, for what Do does not say: bodies read as they
// come, or uploads that go on beside the response. Whatever host a URL names, the
// connection goes to the proxy. The test closes the bodies.
func (b *Bed) Client() *http.Client { return b.client }
