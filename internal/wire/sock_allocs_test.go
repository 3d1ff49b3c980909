//go:build !race

package wire

import (
	"io"
	"testing"
	"time"
)

// TestAllocsExchangeTLS: crypto/tls allocates 24 bytes each time it looks for a
// record, once before a wait and once after it, here at both ends; we allocate
// nothing.
func TestAllocsExchangeTLS(t *testing.T) {
	near, far := kinds["tls server"](t)
	defer far.Close()
	p := New(near, NewSweep(fast))
	defer p.Close()
	go func() {
		b := make([]byte, 8)
		for {
			if _, err := io.ReadFull(far, b); err != nil {
				return
			}
			far.Write(b)
		}
	}()
	q := []byte("question")
	p.SetReadTimeout(time.Minute)
	n := testing.AllocsPerRun(500, func() {
		if _, err := p.Exchange(q, nil, nobody{}); err != nil {
			t.Fatal(err)
		}
		p.Discard(len(p.Buffered()))
		p.ReleaseBuffer()
	})
	if n > 3 {
		t.Errorf("%v allocations per exchange, want 3 of crypto/tls", n)
	}
}
