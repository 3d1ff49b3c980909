package cirque_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
)

// attackOrigin serves each accepted connection with serve.
func attackOrigin(t *testing.T, serve func(n int, c *net.TCPConn, r *bufio.Reader)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				serve(n, c.(*net.TCPConn), bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// attackHead reads a request head.
func attackHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String(), err
		}
	}
}

// TestAttackHeadWithBodyHook: what a hook makes of the body of a response to HEAD
// is dropped.
func TestAttackHeadWithBodyHook(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello), cirque.Filter{Name: "grow",
		Response: func(s *cirque.Session) error { s.Response().SetLength(-1); return nil },
		ResponseBody: func(_ *cirque.Session, p []byte, last bool) ([]byte, error) {
			if last {
				p = append(bytes.Clone(p), " more"...)
			}
			return p, nil
		}})
	b.want(b.client(), "HEAD", "/", "", 200, "")
	if e := b.done(); e != nil {
		t.Errorf("ended with %v", e)
	}
}

// TestAttackTunnelOnUsedConnection: a CONNECT that waited in the queue of a full
// peer gets a connection of its own, not a used one.
func TestAttackTunnelOnUsedConnection(t *testing.T) {
	release := make(chan struct{})
	firsts := make(chan string, 10)
	addr := attackOrigin(t, func(n int, c *net.TCPConn, r *bufio.Reader) {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		firsts <- fmt.Sprintf("%d:%s", n, strings.TrimSpace(line))
		if !strings.HasPrefix(line, "GET") {
			return
		}
		attackHead(r)
		<-release
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if line, err := r.ReadString('\n'); err == nil {
			firsts <- fmt.Sprintf("%d:%s", n, strings.TrimSpace(line))
		}
	})
	b := newBed(t, http.NotFoundHandler())
	b.peer = &cirque.Peer{Addr: addr, MaxConns: 1}
	b.proxy.AllowConnect = true
	peers := make(chan struct{}, 10)
	b.proxy.Peer = func(*cirque.Session) (*cirque.Peer, error) { peers <- struct{}{}; return b.peer, nil }
	c1, r1 := b.raw()
	io.WriteString(c1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-peers
	<-firsts
	c2, r2 := b.raw()
	io.WriteString(c2, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nhello tunnel\n")
	<-peers
	// It is in the queue now, or about to be: either way it may not get the used one.
	time.AfterFunc(100*time.Millisecond, func() { close(release) })
	if _, err := attackHead(r1); err != nil {
		t.Fatal(err)
	}
	if head, err := attackHead(r2); err != nil || !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Fatal(head, err)
	}
	if got := <-firsts; got != "1:hello tunnel" {
		t.Errorf("the tunnel's first bytes came as %q (connection:line), want a connection of its own", got)
	}
	c2.Close()
	c1.Close()
}

// TestAttackStatsAfterRelease: the facts of an attempt are taken before its
// connection serves another session.
func TestAttackStatsAfterRelease(t *testing.T) {
	b := newBed(t, http.HandlerFunc(hello))
	b.peer.MaxConns = 1
	b.start()
	var wg sync.WaitGroup
	for range 4 {
		c := b.client()
		wg.Go(func() {
			for range 200 {
				b.do(c, "GET", "/", "")
			}
		})
	}
	wg.Wait()
}
