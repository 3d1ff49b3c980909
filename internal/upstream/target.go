// Package upstream makes and keeps connections to origins: it dials, pools by
// reuse key, limits, queues, and speaks HTTP/1 and HTTP/2 on the way out. It does
// not choose peers and does not retry.
package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/h2"
)

// Target is what a connection is made to and how it may be used. Durations and
// numbers of zero mean none or no limit: defaults were resolved before.
// Immutable once used.
type Target struct {
	Network string // "tcp" or "unix"
	Address string
	// Key is the reuse key: two targets with equal keys share connections.
	Key string
	// Dial makes the connection; nil means the pool's own way.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// HTTP2 says when HTTP/2 is spoken, with the limits of H2.
	HTTP2 HTTP2Mode
	H2    *h2.Config

	// TLS secures the connections; nil means that they are plain. What it says is
	// in the key.
	TLS *tls.Config
	// Err, if not nil, is why there can be no connection.
	Err error

	IdleTimeout time.Duration
	NoReuse     bool // one exchange per connection

	MaxConns     int // busy and idle ones together
	MaxQueue     int // exchanges that may wait for one of them; 0: none
	QueueTimeout time.Duration
	MaxRequests  int // exchanges on one connection
	MaxAge       time.Duration

	Limits h1.Limits
	Rules  h1.ResponseRules
}
