package cirque_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/cirqueproxy/cirque"
)

// TestRetryOnNewConnection: an origin that was replaced resets all pooled connections
// when they are used, as a server does on a reload whose FIN crosses the request. One
// more attempt is enough: it is made on a new connection.
func TestRetryOnNewConnection(t *testing.T) {
	const pooled = 5
	var filled sync.WaitGroup
	filled.Add(pooled)
	l := listenLoopback(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				r := bufio.NewReader(nc)
				for i := 0; ; i++ {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					if n <= pooled && i > 0 {
						_ = nc.(*net.TCPConn).SetLinger(0)
						return
					}
					if n <= pooled { // all at a time, so that each has its connection
						filled.Done()
						filled.Wait()
					}
					fmt.Fprint(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	base := frontOf(t, cirque.NewPeer(l.Addr().String()), nil)
	get := func() int {
		resp, err := http.Get(base)
		if err != nil {
			t.Error(err)
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	var first sync.WaitGroup
	for range pooled {
		first.Go(func() { get() })
	}
	first.Wait()
	if status := get(); status != 200 {
		t.Errorf("status %d", status)
	}
}
