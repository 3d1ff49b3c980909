package cirque

import "github.com/cirqueproxy/cirque/reason"

// Reason says why a connection, an attempt or a session ended: a value from
// the closed list of package reason. Logs, metrics and tests use the value.
type Reason = reason.Reason

// Side says whose part of an exchange went wrong.
type Side = reason.Side

// The sides.
const (
	Internal   = reason.Internal   // the proxy itself, or a hook
	Downstream = reason.Downstream // the client and the connection to it
	Upstream   = reason.Upstream   // the origin and the connection to it
)
