package listen

import (
	"errors"

	"golang.org/x/sys/unix"
)

// setOptions sets what accepted connections inherit.
func setOptions(fd uintptr, _, _ string, o Options) error {
	if o.ReusePort || o.FastOpen > 0 {
		return errors.ErrUnsupported
	}
	s := socket{fd: int(fd)}
	if o.ReceiveBuffer > 0 {
		s.set("SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, o.ReceiveBuffer)
	}
	if o.SendBuffer > 0 {
		s.set("SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer)
	}
	if o.KeepAlive.Idle > 0 {
		s.set("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	if o.DSCP > 0 {
		s.set("IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, o.DSCP<<2)
	}
	return s.err
}
