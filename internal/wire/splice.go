package wire

import (
	"errors"
	"io"

	"github.com/cirqueproxy/cirque/internal/buf"
)

// SpliceError is a failure of Splice and the side it is on.
type SpliceError struct {
	Read bool // at the source
	Err  error
}

// Error returns the cause's text.
func (e *SpliceError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SpliceError) Unwrap() error { return e.Err }

// Splice sends first to dst and moves n bytes from src behind it, or all until
// src ends if n < 0. Nothing may be buffered in src. Where both have a descriptor the bytes do not enter
// the process. It returns how many bytes were taken from src and how many
// reached dst, which are the same and all if err is nil; an end of src before n
// bytes is io.ErrUnexpectedEOF. First never waits for src.
func Splice(dst, src *Conn, first []byte, n int64) (taken, moved int64, err error) {
	if dst.CanSplice() && src.CanSplice() {
		var ok bool
		if taken, moved, err, ok = spliceSys(dst, src, &first, n); ok {
			return taken, moved, err
		}
		if n >= 0 {
			n -= moved
		}
	}
	if _, err := dst.Write(first); err != nil {
		return taken, moved, &SpliceError{false, err}
	}
	k, err := copyThrough(dst, src, n)
	return taken + k, moved + k, err
}

// copyThrough is Splice through a buffer.
func copyThrough(dst, src *Conn, n int64) (moved int64, err error) {
	defer src.ReleaseBuffer()
	for n < 0 || moved < n {
		if src.w == src.r {
			if err := src.FillMore(); err != nil {
				if errors.Is(err, io.EOF) {
					if n < 0 {
						return moved, nil
					}
					err = io.ErrUnexpectedEOF
				}
				return moved, &SpliceError{true, err}
			}
		}
		b := src.Buffered()
		if n >= 0 && int64(len(b)) > n-moved {
			b = b[:n-moved]
		}
		k, err := dst.Write(b)
		moved += int64(k)
		src.Discard(k)
		if err != nil {
			return moved, &SpliceError{false, err}
		}
	}
	return moved, nil
}

// FillMore is Fill for bytes that are moved on at once: it waits without a buffer,
// but for a source that has more: that one gets a large buffer. Nothing may be
// buffered.
func (c *Conn) FillMore() error {
	if !c.lastFilled {
		return c.FillIdle()
	}
	if len(c.b) < buf.LargeSize {
		c.dropBuffer()
		c.useBuffer(buf.Large)
	}
	return c.Fill()
}
