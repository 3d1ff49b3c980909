package trim

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestTrim: one trim for a burst, after the last of it went idle; not for a few; put
// off no longer than it may when connections go idle without end; not too often.
func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var trims atomic.Int64
		tr := &Trimmer{collect: func() { trims.Add(1) }}
		note := func(n int) {
			for range n {
				tr.Note()
			}
		}
		expect := func(what string, want int64) {
			t.Helper()
			synctest.Wait()
			if n := trims.Load(); n != want {
				t.Fatalf("%s: %d trims, want %d", what, n, want)
			}
		}
		note(after - 1)
		time.Sleep(time.Minute)
		expect("too few", 0)

		for range 6 { // a burst of six seconds
			note(2000)
			time.Sleep(time.Second)
		}
		expect("while connections go idle", 0)
		time.Sleep(2 * delay)
		expect("after the burst", 1)
		time.Sleep(time.Minute)
		expect("nothing new", 1)

		for range 60 { // without end
			note(1000)
			time.Sleep(time.Second)
		}
		expect("put off no longer than it may", 3)

		note(after)
		time.Sleep(delay)
		expect("not too often", 3)
		time.Sleep(every + maxWait*delay)
		expect("but in the end", 4)
	})
}
