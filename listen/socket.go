package listen

import (
	"os"

	"golang.org/x/sys/unix"
)

// socket sets options until one fails.
type socket struct {
	fd  int
	err error
}

func (s *socket) set(name string, level, opt, value int) {
	if s.err == nil {
		s.err = os.NewSyscallError("setsockopt "+name, unix.SetsockoptInt(s.fd, level, opt, value))
	}
}
