//go:build !linux

package wire

import (
	"errors"
	"time"
)

// Parker is not there on this system: connections keep their goroutines.
type Parker struct{}

// NewParker fails.
func NewParker() (*Parker, error) { return nil, errors.ErrUnsupported }

// Park is never called.
func (*Parker) Park(*Conn, time.Duration, func(*Conn, WakeReason)) { panic("wire: no parker") }

func (*Parker) unpark(*Conn, WakeReason) {}

// Unpark is never called.
func (*Parker) Unpark(*Conn) {}

// Close does nothing.
func (*Parker) Close() {}
