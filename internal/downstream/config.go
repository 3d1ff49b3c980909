// Package downstream turns an accepted connection into a row of exchanges: it
// reads and checks request heads, keeps or ends the connection, and answers in
// the protocol's own way. It does not know routes, hooks or upstreams: each
// exchange goes to a Handler.
package downstream

import (
	"time"

	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/internal/h2"
	"github.com/cirqueproxy/cirque/internal/wire"
	"github.com/cirqueproxy/cirque/reason"
)

// Handler gets what a connection produces. Its methods run on the
// connection's goroutine.
type Handler interface {
	// ServeExchange answers the request of c. The exchange ends when it returns.
	ServeExchange(c *H1)
	// RefuseHead answers a head that could not be read (err names the status);
	// c holds what could be parsed of it. The connection ends after it.
	RefuseHead(c *H1, err *h1.Error)
	// Parked tells that c will be idle for long: what is kept for its next request
	// may be given back.
	Parked(c *H1)
	// ServeStream answers the request of d, on a goroutine of its own.
	ServeStream(d *H2)
	// ParkedH2 is Parked for a connection of HTTP/2.
	ParkedH2(c *H2Conn)
	// EndedH2 is Ended for a connection of HTTP/2.
	EndedH2(c *H2Conn, r reason.Reason)
	// Ended tells why the connection ended; c is not used again.
	Ended(c *H1, r reason.Reason)
}

// State is what a connection does between two requests.
type State uint8

const (
	// StateNew is a connection before its first byte.
	StateNew State = iota
	// StateActive is one with a request.
	StateActive
	// StateIdle is one that waits for its next request.
	StateIdle
	// StateParked is an idle one that gave its goroutine back.
	StateParked
	// StateClosed is one that ended.
	StateClosed
	// States is the number of states.
	States
)

// String returns the state's name as metrics carry it.
func (s State) String() string {
	return [...]string{"new", "active", "idle", "parked", "closed"}[s]
}

// Bounds are what an exchange may take of time and bytes.
type Bounds struct {
	IdleTimeout  time.Duration // between this exchange and the next request
	BodyTimeout  time.Duration // between two reads of the request body
	WriteTimeout time.Duration // between two writes that made progress

	MinRate      int // bytes per second of either body, while the client is waited for
	MinRateGrace time.Duration

	DrainBytes int64 // of an unread body, to keep the connection
	DrainTime  time.Duration
}

// Config is what the connections of a listener share. Durations and numbers of
// zero mean none or no limit: the defaults were resolved before.
// Immutable once a connection uses it.
type Config struct {
	Handler Handler
	Parker  *wire.Parker // nil: idle connections keep their goroutine

	H2          *h2.Config // its Handler is set for each connection; nil: HTTP/1 only
	Limits      h1.Limits
	Rules       h1.RequestRules
	MaxRequests int // on one connection

	HeadTimeout time.Duration // from a head's first byte (or the accept) to its end
	ParkAfter   time.Duration // idle for so long: parked
	Bounds                    // of each exchange, until it gets its own

	AllowHalfClose bool // a FIN does not mean that the client left
	DrainEarly     bool // read the rest of an upload whose response is complete
}
