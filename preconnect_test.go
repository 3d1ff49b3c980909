package cirque_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/cirquetest"
	"github.com/cirqueproxy/cirque/reason"
)

// wantStats checks the numbers of a Transport that matter here.
func wantStats(t *testing.T, tr *cirque.Transport, connects, reuses, idle, conns int64) {
	t.Helper()
	if st := tr.Stats(); st.Connects != connects || st.Reuses != reuses || st.Idle != idle || st.Conns != conns {
		t.Errorf("got %+v, want %d connects, %d reuses, %d idle of %d connections", st, connects, reuses, idle, conns)
	}
}

// TestPreconnect: row U29: connections are made ahead of their use, as many as
// are missing, and requests take them.
func TestPreconnect(t *testing.T) {
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		tr := bed.Transport()
		for range 2 { // the second call finds them
			if err := tr.Preconnect(t.Context(), bed.Peer(), 3); err != nil {
				t.Fatal(err)
			}
			wantStats(t, tr, 3, 0, 3, 3)
		}
		// Nobody makes another, also for a request that may not be repeated.
		for i, method := range []string{"POST", "GET"} {
			resp := bed.Do(httptest.NewRequest(method, "/", nil))
			cirquetest.Body(resp)
			if a := bed.Wait()[i].Attempt; !a.Reused || a.Connect != 0 {
				t.Errorf("%+v", a)
			}
		}
		wantStats(t, tr, 3, 1, 3, 3)
		if err := tr.Preconnect(t.Context(), bed.Peer(), 4); err != nil {
			t.Fatal(err)
		}
		wantStats(t, tr, 4, 1, 4, 4)
	})
}

// TestPreconnectLimits: a limit ends it, with an error that says which, and
// nothing makes room for connections that nobody has asked for yet.
func TestPreconnectLimits(t *testing.T) {
	for name, c := range map[string]struct {
		setup  func(*cirque.Peer, *cirque.Transport)
		reason cirque.Reason
	}{
		"of the peer":        {func(p *cirque.Peer, _ *cirque.Transport) { p.MaxConns = 2 }, reason.PeerLimit},
		"of the pool":        {func(_ *cirque.Peer, tr *cirque.Transport) { tr.MaxIdleConns = 2 }, reason.PoolFull},
		"of all connections": {func(_ *cirque.Peer, tr *cirque.Transport) { tr.MaxConns = 2 }, reason.ConnectionLimit},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
				tr := bed.Transport()
				c.setup(bed.Peer(), tr)
				err := tr.Preconnect(t.Context(), bed.Peer(), 3)
				var e *cirque.Error
				if !errors.As(err, &e) || e.Reason != c.reason {
					t.Errorf("got %v, want %v", err, c.reason)
				}
				if st := tr.Stats(); st.Connects > 2 || st.Evicted != 0 || st.Idle != st.Connects || st.Conns != st.Connects {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// TestPreconnectFails: what goes wrong is told, and takes no place in the pool.
func TestPreconnectFails(t *testing.T) {
	hole := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	refuse := func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		tr := bed.Transport()
		for r, dial := range map[cirque.Reason]func(context.Context, string, string) (net.Conn, error){
			reason.ConnectTimeout: hole, reason.ConnectRefused: refuse,
		} {
			began := time.Now()
			err := tr.Preconnect(t.Context(), &cirque.Peer{Addr: "a:1", Unique: r.String(), Dial: dial}, 2)
			var e *cirque.Error
			if !errors.As(err, &e) || e.Reason != r {
				t.Errorf("got %v, want %v", err, r)
			}
			if r == reason.ConnectTimeout {
				took(t, "a black hole", began, 5*time.Second)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		for range 2 { // the context has ended when it is called again
			if err := tr.Preconnect(ctx, &cirque.Peer{Addr: "a:1", Dial: hole}, 2); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		took(t, "the context", began, time.Second)
		rt := &cirque.Peer{RoundTripper: http.DefaultTransport}
		if err := tr.Preconnect(t.Context(), rt, 1); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("got %v", err)
		}
		tr.Close()
		if err := tr.Preconnect(t.Context(), bed.Peer(), 1); err == nil {
			t.Error("a closed Transport connects")
		}
		wantStats(t, tr, 0, 0, 0, 0)
	})
}

// TestKeepReady: connections that age, and those that requests took, are
// replaced; an origin that refuses is not asked all the time.
func TestKeepReady(t *testing.T) {
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		tr := bed.Transport()
		ctx, cancel := context.WithCancel(t.Context())
		donec := make(chan struct{})
		go func() {
			defer close(donec)
			tr.KeepReady(ctx, bed.Peer(), 2)
		}()
		synctest.Wait()
		wantStats(t, tr, 2, 0, 2, 2)
		time.Sleep(65 * time.Second) // their idle timeout passes
		wantStats(t, tr, 4, 0, 2, 2)
		// A connection that is busy for long is no ready one.
		bed.Origin(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(5 * time.Second) }))
		bed.Get("/")
		bed.Wait()
		wantStats(t, tr, 5, 0, 3, 3)
		cancel()
		<-donec
	})
	bubble(t, &cirque.Proxy{}, func(t *testing.T, bed *cirquetest.Bed) {
		var n atomic.Int64
		dead := &cirque.Peer{Addr: "dead:1", Dial: func(context.Context, string, string) (net.Conn, error) {
			n.Add(1)
			return nil, syscall.ECONNREFUSED
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		bed.Transport().KeepReady(ctx, dead, 1)
		if got := n.Load(); got < 10 || got > 30 {
			t.Errorf("%d connects in 10 minutes", got)
		}
	})
}
