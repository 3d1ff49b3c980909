package cirque_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

// TestHTTP2ClientLeaves: a client that closes its connection, or resets its stream,
// while the origin is silent ends the session for that reason, not for the origin's.
func TestHTTP2ClientLeaves(t *testing.T) {
	for _, how := range []string{"close", "cancel", "close before the head", "cancel before the head"} {
		silent := make(chan struct{}, 1)
		b := newBed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(how, "head") {
				_ = http.NewResponseController(w).Flush()
			}
			silent <- struct{}{}
			<-r.Context().Done()
		}))
		b.srv.H2C = true
		b.start()
		var conn net.Conn
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: p, DialContext: func(ctx context.Context, network, addr string) (nc net.Conn, err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return conn, err
		}}
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+b.addr+"/", nil)
		gotc := make(chan *http.Response, 1)
		go func() {
			resp, _ := tr.RoundTrip(req)
			gotc <- resp
		}()
		<-silent
		if !strings.HasSuffix(how, "head") {
			resp := <-gotc
			defer resp.Body.Close()
		}
		if strings.HasPrefix(how, "close") {
			conn.Close()
		} else {
			cancel()
		}
		var e *cirque.Error
		if err := <-b.donec; !errors.As(err, &e) || e.Reason != reason.ClientGone {
			t.Errorf("%s: %v", how, err)
		}
		if st := b.proxy.Transport.Stats(); st.Connects != 1 {
			t.Errorf("%s: %d attempts", how, st.Connects)
		}
		cancel()
		tr.CloseIdleConnections()
	}
}
