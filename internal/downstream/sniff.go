package downstream

import (
	"bytes"
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/wire"
)

// BeginsHTTP2 reads as much of a connection as tells whether it begins with the
// preface of HTTP/2. The first byte that does not belong to it decides, so that a
// request of HTTP/1.0, which may be shorter than the preface, does not wait for
// more. What was read stays in the buffer; a failed read is left to who reads next.
//
// RFC 9113, section 3.4.
func BeginsHTTP2(wc *wire.Conn, timeout time.Duration) bool {
	preface := []byte(h2frame.Preface)
	wc.SetReadTimeout(timeout)
	defer wc.SetReadTimeout(0) // a connection of HTTP/2 may be silent for long
	err := wc.FillIdle()
	for err == nil {
		b := wc.Buffered()
		n := min(len(b), len(preface))
		if !bytes.Equal(b[:n], preface[:n]) {
			return false
		}
		if n == len(preface) {
			return true
		}
		err = wc.Fill()
	}
	return false
}
