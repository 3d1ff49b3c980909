// Package buf keeps byte buffers of two sizes for reuse. Each buffer has one
// holder, who gives it back; the package does not know what is in it.
package buf

import (
	"sync"
	"sync/atomic"

	"github.com/cirqueproxy/cirque/internal/invariant"
)

// Class is a size of buffers.
type Class uint8

const (
	// Small buffers hold a head and a small body.
	Small Class = iota
	// Tiny buffers hold a part of a body that waits to be read, of which a
	// connection may have many.
	Tiny
	// Large buffers move bodies, with a quarter of the system calls.
	Large
)

// Sizes of the classes in bytes.
const (
	TinySize  = 4 << 10
	SmallSize = 16 << 10
	LargeSize = 64 << 10
)

// Size returns the size of the class's buffers.
func (c Class) Size() int { return sizes[c] }

var sizes = [...]int{Tiny: TinySize, Small: SmallSize, Large: LargeSize}

// Buffer is a piece of memory with one holder.
type Buffer struct {
	// B is the whole memory. The holder may do with the bytes what it likes and
	// must not replace the slice.
	B     []byte
	class Class
	free  bool // owned by the invariants build: given back
}

var pools = [...]sync.Pool{
	Tiny:  {New: func() any { return &Buffer{B: make([]byte, TinySize), class: Tiny} }},
	Small: {New: func() any { return &Buffer{B: make([]byte, SmallSize), class: Small} }},
	Large: {New: func() any { return &Buffer{B: make([]byte, LargeSize), class: Large} }},
}

var outstanding atomic.Int64

// Get returns a buffer, whose content is arbitrary. The caller holds it until
// it calls Free.
func Get(c Class) *Buffer {
	b := pools[c].Get().(*Buffer)
	if invariant.Enabled {
		b.free = false
		outstanding.Add(1)
	}
	return b
}

// Free gives the buffer back; nobody may use it or what was in it any more.
func (b *Buffer) Free() {
	if invariant.Enabled {
		if b.free {
			panic("buf: buffer given back twice")
		}
		b.free = true
		for i := range b.B {
			b.B[i] = 0xDB
		}
		outstanding.Add(-1)
	}
	pools[b.class].Put(b)
}

// Outstanding returns how many buffers have a holder. It is 0 in a build
// without invariants.
func Outstanding() int64 { return outstanding.Load() }
