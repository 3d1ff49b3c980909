//go:build !linux

package wire

func (s *Sock) readNow(p []byte) (int, error) { return s.readNowPortable(p) }

func (c *Conn) writeNow([]byte) (int, error) { panic("wire: no descriptor") }
