package main

import "net"

// namedListener is a listener that tells its server what the configuration
// calls it.
type namedListener struct {
	net.Listener
	name string
}

// Name makes cirque.Server say it in Session.Listener.
func (l namedListener) Name() string { return l.name }
