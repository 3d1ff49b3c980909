package wire

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// loopbackCongestion is the congestion control of connections that stay in this
// machine. There is no path to learn about: one that paces, as BBR does where it
// is the system's default, sets a timer for each segment that a splice hands
// over faster than its estimate. Reno is the one that every kernel has.
const loopbackCongestion = "reno"

// TuneLoopback sets what suits a TCP socket on or to a loopback address, and
// leaves those of other addresses alone. Connections that a listening socket
// accepts inherit it.
func TuneLoopback(fd uintptr, address string) {
	ap, err := netip.ParseAddrPort(address)
	if err == nil && ap.Addr().Unmap().IsLoopback() {
		// A kernel that refuses goes on with its default.
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, loopbackCongestion)
	}
}
