package cirque_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/balance"
)

// origin starts an origin for an example and returns its address.
func origin(name string) (addr string, stop func()) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s: %s, seen by %q", name, r.URL.Path, r.Header.Get("X-Seen-By"))
	}))
	return srv.Listener.Addr().String(), srv.Close
}

// get serves one request with srv and prints the response.
func get(srv *cirque.Server, path string, fields ...string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go srv.Serve(l)
	defer srv.Close()
	req, _ := http.NewRequest("GET", "http://"+l.Addr().String()+path, nil)
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, strings.TrimSpace(string(body)))
}

// A proxy in front of one origin.
func Example() {
	addr, stop := origin("web")
	defer stop()
	peer := cirque.NewPeer(addr)
	srv := &cirque.Server{Proxy: &cirque.Proxy{
		Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	get(srv, "/hello")
	// Output: 200 web: /hello, seen by ""
}

// Two groups of peers, chosen by path.
func Example_byPath() {
	webAddr, stopWeb := origin("web")
	defer stopWeb()
	apiAddr, stopAPI := origin("api")
	defer stopAPI()
	web, api := balance.RoundRobin(webAddr), balance.RoundRobin(apiAddr)
	proxy := &cirque.Proxy{Peer: func(s *cirque.Session) (*cirque.Peer, error) {
		if s.Request().HasPathPrefix("/api") {
			return api.Peer(s)
		}
		return web.Peer(s)
	}}
	get(&cirque.Server{Proxy: proxy}, "/api/users")
	get(&cirque.Server{Proxy: proxy}, "/apis")
	// Output:
	// 200 api: /api/users, seen by ""
	// 200 web: /apis, seen by ""
}

// A filter that lets nobody in without a token.
func ExampleFilter_auth() {
	addr, stop := origin("web")
	defer stop()
	group := balance.RoundRobin(addr)
	login := cirque.Filter{Name: "login", Request: func(s *cirque.Session) error {
		if s.Request().Header.Get("Authorization") != "Bearer sesame" {
			return s.Respond(http.StatusUnauthorized, "who are you?\n") // ends here
		}
		return nil
	}}
	proxy := &cirque.Proxy{Filters: []cirque.Filter{login}, Peer: group.Peer}
	get(&cirque.Server{Proxy: proxy}, "/")
	get(&cirque.Server{Proxy: proxy}, "/", "Authorization", "Bearer sesame")
	// Output:
	// 401 who are you?
	// 200 web: /, seen by ""
}

// Fields are edited on their way up and down.
func ExampleFilter_headers() {
	addr, stop := origin("web")
	defer stop()
	group := balance.RoundRobin(addr)
	edit := cirque.Filter{
		Name: "edit",
		UpstreamRequest: func(s *cirque.Session) error {
			s.UpstreamRequest().Header.Set("X-Seen-By", "cirque")
			return nil
		},
		Response: func(s *cirque.Session) error {
			s.Response().Header.Del("Server")
			s.Response().Header.Set("Strict-Transport-Security", "max-age=63072000")
			return nil
		},
	}
	get(&cirque.Server{Proxy: &cirque.Proxy{Filters: []cirque.Filter{edit}, Peer: group.Peer}}, "/")
	// Output: 200 web: /, seen by "cirque"
}

// A body is rewritten piece by piece; its new length is unknown before.
func ExampleFilter_body() {
	addr, stop := origin("web")
	defer stop()
	group := balance.RoundRobin(addr)
	rewrite := cirque.Filter{
		Name: "rewrite",
		Response: func(s *cirque.Session) error {
			s.Response().SetLength(-1)
			return nil
		},
		ResponseBody: func(s *cirque.Session, b []byte, last bool) ([]byte, error) {
			b = bytes.ReplaceAll(b, []byte("web"), []byte("the web"))
			if last {
				b = append(bytes.Clone(b), " (rewritten)"...)
			}
			return b, nil
		},
	}
	get(&cirque.Server{Proxy: &cirque.Proxy{Filters: []cirque.Filter{rewrite}, Peer: group.Peer}}, "/")
	// Output: 200 the web: /, seen by "" (rewritten)
}

// An error page of one's own. It says what went wrong without saying where.
func ExampleProxy_errorPage() {
	group := balance.RoundRobin("127.0.0.1:1") // nobody listens there
	proxy := &cirque.Proxy{
		Peer:     group.Peer,
		LogError: func(*cirque.Session, *cirque.Error) {},
		ErrorPage: func(s *cirque.Session, err *cirque.Error) error {
			return s.Respond(err.Status(), "Sorry: "+err.Reason.String())
		},
	}
	get(&cirque.Server{Proxy: proxy}, "/")
	// Output: 502 Sorry: connect_refused
}

// A Proxy is an http.Handler: it mounts where httputil.ReverseProxy stood.
func ExampleProxy_ServeHTTP() {
	addr, stop := origin("web")
	defer stop()
	mux := http.NewServeMux()
	mux.Handle("/app/", &cirque.Proxy{Peer: balance.RoundRobin(addr).Peer})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/app/start")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body))
	// Output: 200 web: /app/start, seen by ""
}

// An http.Handler answers inside a Session.
func ExampleSession_ServeHTTP() {
	files := http.FileServer(http.Dir("testdata/static"))
	static := cirque.Filter{Name: "static", Request: func(s *cirque.Session) error {
		if s.Request().HasPathPrefix("/static") {
			return s.ServeHTTP(http.StripPrefix("/static", files))
		}
		return nil
	}}
	get(&cirque.Server{Proxy: &cirque.Proxy{Filters: []cirque.Filter{static}}}, "/static/hello.txt")
	// Output: 200 hello from a file
}

// Values travel between the hooks of a session in typed slots.
func ExampleNewKey() {
	addr, stop := origin("web")
	defer stop()
	user := cirque.NewKey[string]("user")
	filter := cirque.Filter{
		Name: "user",
		Request: func(s *cirque.Session) error {
			user.Set(s, s.Request().Header.Get("X-User"))
			return nil
		},
		Done: func(s *cirque.Session, err error) { fmt.Println("served", user.Get(s), err) },
	}
	proxy := &cirque.Proxy{Filters: []cirque.Filter{filter}, Peer: balance.RoundRobin(addr).Peer}
	get(&cirque.Server{Proxy: proxy}, "/", "X-User", "ada")
	// Unordered output:
	// served ada <nil>
	// 200 web: /, seen by ""
}
