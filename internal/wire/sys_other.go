//go:build !linux

package wire

import "net"

type readOp uint8

const (
	opFill readOp = iota
	opIdle
)

// sysConn is the descriptor path, which this system does not have.
type sysConn struct{}

func (sysConn) init(*Conn)                                       {}
func (sysConn) ok() bool                                         { return false }
func (sysConn) read(readOp) (bool, int, error)                   { panic("wire: no descriptor") }
func (sysConn) write(_, _, _ []byte) (bool, int, error)          { panic("wire: no descriptor") }
func (sysConn) resume(op readOp) readOp                          { return op }
func (sysConn) peek() error                                      { panic("wire: no descriptor") }
func (sysConn) peerClosed() bool                                 { panic("wire: no descriptor") }
func (c *Conn) exchangeSys(_, _ []byte, _ Releaser) (int, error) { panic("wire: no descriptor") }
func rawPeerClosed(net.Conn) (is, closed bool)                   { return false, false }
