//go:build !linux

package wire

// CanSplice reports whether the kernel can move bytes from and to c.
func (c *Conn) CanSplice() bool { return false }

func spliceSys(_, _ *Conn, _ *[]byte, _ int64) (int64, int64, error, bool) { return 0, 0, nil, false }
