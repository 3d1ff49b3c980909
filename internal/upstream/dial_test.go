package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// TestConnectsAreBounded: row U22: an origin that does not accept is met by a
// bounded number of connects; who waits for a place among them does so for no
// longer than a connect may take, and another peer is not waited for.
func TestConnectsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		broken := errors.New("broken")
		pool := NewPool(Config{Sweep: wire.NewSweep(0), Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			if addr == "other" {
				return nil, broken
			}
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		defer pool.Close()
		slow, other := &Target{Key: "slow", Address: "slow"}, &Target{Key: "other", Address: "other"}
		var limited, late atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for range maxConnecting + 50 {
			wg.Go(func() {
				_, _, err := pool.Get(pool.Entry(slow.Key), slow, Want{Connect: 5 * time.Second})
				var re *reason.Error
				switch errors.As(err, &re); re.Reason {
				case reason.PeerLimit:
					limited.Add(1)
				case reason.ConnectTimeout:
					late.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if _, _, err := pool.Get(pool.Entry(other.Key), other, Want{}); !errors.Is(err, broken) || time.Since(began) != 0 {
			t.Errorf("the other peer: %v after %v", err, time.Since(began))
		}
		wg.Wait()
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("it took %v", d)
		}
		if most.Load() != maxConnecting || limited.Load()+late.Load() != maxConnecting+50 || late.Load() < maxConnecting {
			t.Errorf("%d connects at a time, %d limited, %d late", most.Load(), limited.Load(), late.Load())
		}
		if st := pool.Stats(); st.Conns != 0 {
			t.Errorf("%d connections are counted", st.Conns)
		}
	})
}
