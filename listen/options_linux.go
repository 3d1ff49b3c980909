package listen

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cirqueproxy/cirque/internal/wire"
)

// setOptions sets what accepted connections inherit.
func setOptions(fd uintptr, network, address string, o Options) error {
	s := socket{fd: int(fd)}
	wire.TuneLoopback(fd, address)
	if o.ReusePort {
		s.set("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if o.FastOpen > 0 {
		s.set("TCP_FASTOPEN", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, o.FastOpen)
	}
	if o.ReceiveBuffer > 0 {
		s.set("SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, o.ReceiveBuffer)
	}
	if o.SendBuffer > 0 {
		s.set("SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer)
	}
	if k := o.KeepAlive; k.Idle > 0 {
		s.set("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		s.set("TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(k.Idle))
		s.set("TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(or(k.Interval, 15*time.Second)))
		s.set("TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, or(k.Count, 9))
		if k.UserTimeout > 0 {
			s.set("TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(k.UserTimeout.Milliseconds()))
		}
	}
	if o.DSCP > 0 {
		if strings.HasSuffix(network, "6") {
			s.set("IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, o.DSCP<<2)
		}
		if !o.IPv6Only {
			s.set("IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, o.DSCP<<2)
		}
	}
	return s.err
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// seconds rounds up: the kernel counts whole ones, and none is none.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
