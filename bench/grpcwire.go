//go:build linux

package main

import (
	"encoding/binary"
	"errors"
)

// gRPC as the bench speaks it: every call is to one method, which sends each
// message back. The payload of a message is the body of its id, so that no call
// can pass with the answer to another.

const grpcPath = "/bench.Bench/Echo"

const messageHead = 5

// appendMessageHead appends what stands before a payload of size bytes.
func appendMessageHead(dst []byte, size int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), uint32(size))
}

// messages counts the messages that pass by. The zero value is at the start of
// one.
type messages struct {
	head [messageHead]byte
	got  int // of the head
	left int // of the payload
}

// read calls each for every piece of a payload, with the payload's length and
// where the piece is in it.
func (m *messages) read(b []byte, each func(piece []byte, off, size int) error) error {
	for len(b) > 0 {
		if m.got < messageHead {
			n := copy(m.head[m.got:], b)
			m.got, b = m.got+n, b[n:]
			if m.got < messageHead {
				return nil
			}
			m.left = m.size()
			if m.head[0] != 0 || m.left < idLen || m.left > maxBody {
				return errors.New("bad message head")
			}
			continue
		}
		n := min(m.left, len(b))
		off := m.size() - m.left
		m.left -= n
		if err := each(b[:n], off, m.size()); err != nil {
			return err
		}
		if b = b[n:]; m.left == 0 {
			m.got = 0
		}
	}
	return nil
}

func (m *messages) size() int { return int(binary.BigEndian.Uint32(m.head[1:])) }

// whole reports whether no message has begun and not ended.
func (m *messages) whole() bool { return m.got == 0 }
