package filewatch

import (
	"io/fs"
	"syscall"
)

// fileID tells a file from another that took its name.
func fileID(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
