package h2

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/cirqueproxy/cirque/internal/memnet"
)

// TestUploadOverDistance: over a round trip of 20 ms the windows open fast and far
// enough: 100 MiB take little more than a full window each round trip.
func TestUploadOverDistance(t *testing.T) {
	const size, rtt, window = 100 << 20, 20 * time.Millisecond, 4 << 20
	withServer(t, sink, func(c *Config) {
		c.StreamWindow, c.ConnWindow, c.MaxWindow = 256<<10, 512<<10, window
		c.Windows = NewWindowBudget(64 << 20)
	}, func(b *bed) {
		b.far.SetBuffer(64 << 20)
		b.far.SetDelay(rtt / 2)
		near := b.conn.Wire().NetConn().(*memnet.Conn)
		near.SetBuffer(64 << 20)
		near.SetDelay(rtt / 2)
		b.write([]byte(http2.ClientPreface))
		b.must(b.fr.WriteSettings())
		b.frame() // SETTINGS
		b.frame() // WINDOW_UPDATE
		b.want("SETTINGS ACK")
		b.must(b.fr.WriteSettingsAck())
		began := time.Now()
		b.headers(1, false, getLines...)
		stream, conn := int64(256<<10), int64(512<<10)
		piece := make([]byte, 16<<10)
		for left := int64(size); left > 0; {
			n := min(left, int64(len(piece)), stream, conn)
			if n > 0 {
				left, stream, conn = left-n, stream-n, conn-n
				b.must(b.fr.WriteData(1, left == 0, piece[:n]))
				continue
			}
			f, err := b.fr.ReadFrame()
			b.must(err)
			switch f := f.(type) {
			case *http2.WindowUpdateFrame:
				if f.StreamID == 0 {
					conn += int64(f.Increment)
				} else {
					stream += int64(f.Increment)
				}
			case *http2.PingFrame:
				b.must(b.fr.WritePing(true, f.Data))
			}
		}
		for !strings.HasPrefix(b.frame(), "HEADERS 1 END") {
		}
		took := time.Since(began)
		best := rtt * size / window
		t.Logf("100 MiB took %v; %v by full windows alone", took, best)
		if took > best*5/4 {
			t.Errorf("100 MiB took %v, more than 80 %% of full windows allow, %v", took, best*5/4)
		}
	})
}
