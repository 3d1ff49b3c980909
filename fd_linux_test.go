package cirque_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
)

// descriptors counts this process's descriptors by kind: socket, pipe, and others
// by name.
func descriptors(t *testing.T) map[string]int {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, e := range dir {
		// That of the directory is gone by now.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			kind, _, _ := strings.Cut(to, ":[")
			n[kind]++
		}
	}
	return n
}

// fdOrigin serves one connection as the paths of its requests say.
func fdOrigin(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		switch req.URL.Path {
		case "/echo", "/origin-ends", "/origin-resets":
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
			if req.URL.Path == "/echo" {
				io.Copy(c, r)
				return
			}
			io.CopyN(c, r, 5)
			if req.URL.Path == "/origin-resets" {
				_ = c.(*net.TCPConn).SetLinger(0)
			}
			return
		case "/large", "/large-cut":
			n := int64(4 << 20)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n)
			if req.URL.Path == "/large-cut" {
				n /= 2
			}
			if _, err := io.CopyN(c, endless{}, n); err != nil || req.URL.Path == "/large-cut" {
				return
			}
		case "/upload-cut":
			io.CopyN(io.Discard, req.Body, 100_000)
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		default:
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
}

// fdStory is what a client does on a new connection to srv.
type fdStory func(t *testing.T, c net.Conn, r *bufio.Reader, srv *cirque.Server)

// fdStories are ways in which a client and an origin come to their end.
var fdStories = map[string]fdStory{
	"tunnel, the client ends": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		fdSwitch(t, c, r, "/echo")
		_ = c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, r)
	},
	"tunnel, the client resets": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		fdSwitch(t, c, r, "/echo")
		_ = c.(*net.TCPConn).SetLinger(0)
	},
	"tunnel, the origin ends": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		fdSwitch(t, c, r, "/origin-ends")
		io.Copy(io.Discard, r)
	},
	"tunnel, the origin resets": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		fdSwitch(t, c, r, "/origin-resets")
		io.Copy(io.Discard, r)
	},
	"refused upgrade": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		io.WriteString(c, "GET /ok HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly")
		fdResponse(t, r, 200)
	},
	"CONNECT": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		io.WriteString(c, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")
		if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 200 ") {
			t.Errorf("got %q", line)
		}
		io.WriteString(c, "GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		_ = c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, r)
	},
	"download": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
		if n := fdResponse(t, r, 200); n != 4<<20 {
			t.Errorf("%d bytes", n)
		}
	},
	"download, the client leaves": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
		io.CopyN(io.Discard, r, 300_000)
	},
	"download, the origin leaves": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		io.WriteString(c, "GET /large-cut HTTP/1.1\r\nHost: a\r\n\r\n")
		if n, _ := io.Copy(io.Discard, r); n > 3<<20 {
			t.Errorf("%d bytes", n)
		}
	},
	"upload": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		fmt.Fprintf(c, "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 4<<20)
		io.CopyN(c, endless{}, 4<<20)
		fdResponse(t, r, 200)
	},
	"upload, the client resets": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		fmt.Fprintf(c, "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 4<<20)
		io.CopyN(c, endless{}, 1<<20)
		_ = c.(*net.TCPConn).SetLinger(0)
	},
	"upload, the origin resets": func(t *testing.T, c net.Conn, r *bufio.Reader, _ *cirque.Server) {
		fmt.Fprintf(c, "POST /upload-cut HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 4<<20)
		io.CopyN(c, endless{}, 4<<20)
		fdResponse(t, r, 502)
	},
	"parked": func(t *testing.T, c net.Conn, r *bufio.Reader, srv *cirque.Server) {
		io.WriteString(c, "GET /ok HTTP/1.1\r\nHost: a\r\n\r\n")
		fdResponse(t, r, 200)
		for deadline := time.Now().Add(10 * time.Second); srv.Stats().ConnsParked == 0; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Error("the connection is not parked")
				return
			}
		}
	},
}

// fdSwitch makes a tunnel and sees that it works.
func fdSwitch(t *testing.T, c net.Conn, r *bufio.Reader, path string) {
	t.Helper()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly", path)
	fdResponse(t, r, 101)
	got := make([]byte, 5)
	if _, err := io.ReadFull(r, got); string(got) != "early" {
		t.Errorf("got %q, %v", got, err)
	}
}

func fdResponse(t *testing.T, r *bufio.Reader, status int) int64 {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != status {
		t.Errorf("%v %v", resp, err)
		return 0
	}
	if status == 101 {
		return 0
	}
	n, _ := io.Copy(io.Discard, resp.Body)
	return n
}

// TestNoDescriptorLeaks: row V9: however tunnels, bodies that the kernel moves and
// idle connections end, their descriptors are given back.
func TestNoDescriptorLeaks(t *testing.T) {
	const rounds = 8
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer origin.Close()
	wg.Go(func() {
		for {
			c, err := origin.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { fdOrigin(c) })
		}
	})
	// Once before: what the process makes once, such as its poller, is no leak.
	fdServer(t, origin.Addr().String(), 1)
	before := descriptors(t)
	for name, f := range fdStories {
		fdServer(t, origin.Addr().String(), rounds, f)
		wantDescriptors(t, name, before)
	}
	fdServer(t, origin.Addr().String(), rounds)
	wantDescriptors(t, "all", before)
}

// wantDescriptors waits until there are no more descriptors than before. Some pipes
// are kept for the next bodies: but not one for each.
func wantDescriptors(t *testing.T, name string, before map[string]int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		more := map[string]int{}
		for kind, n := range descriptors(t) {
			if d := n - before[kind]; d > 0 && !(kind == "pipe" && d <= 8) {
				more[kind] = d
			}
		}
		if len(more) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: these were not given back: %v", name, more)
			return
		}
	}
}

// fdServer tells the stories, all if none is given, some rounds long, to a server
// that is closed in the middle of two.
func fdServer(t *testing.T, origin string, rounds int, stories ...fdStory) {
	t.Helper()
	if len(stories) == 0 {
		for _, f := range fdStories {
			stories = append(stories, f)
		}
	}
	peer := cirque.NewPeer(origin)
	tr := &cirque.Transport{}
	srv := &cirque.Server{ParkAfter: time.Nanosecond, Proxy: &cirque.Proxy{
		Transport: tr, AllowConnect: true, LogError: func(*cirque.Session, *cirque.Error) {},
		Peer: func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c, bufio.NewReader(c)
	}
	for range rounds {
		for _, f := range stories {
			c, r := dial()
			f(t, c, r, srv)
			c.Close()
		}
	}
	c, r := dial()
	fdSwitch(t, c, r, "/echo")
	c2, r2 := dial()
	io.WriteString(c2, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
	io.CopyN(io.Discard, r2, 100_000)
	srv.Close()
	wg.Wait()
	tr.Close()
	c.Close()
	c2.Close()
}
