package h2

import "github.com/cirqueproxy/cirque/internal/buf"

// chunks holds the part of a body that came and was not read. What it holds is
// bounded by the stream's receive window, and the memory for it by little more:
// pieces are put behind each other, and a buffer that is not the smallest is filled
// by three quarters at least. (DATA frames of one byte, or of one byte more than a
// buffer, must not cost a buffer each: a hundred streams would hold more than their
// windows say.)
type chunks struct {
	list []chunk
	size int // bytes in all of them
}

type chunk struct {
	mem  *buf.Buffer
	r, w int
}

// push copies p behind what is there.
func (k *chunks) push(p []byte) {
	k.size += len(p)
	if n := len(k.list); n > 0 {
		last := &k.list[n-1]
		m := copy(last.mem.B[last.w:], p)
		last.w += m
		p = p[m:]
	}
	for len(p) > 0 {
		class := buf.Small
		if len(p) <= buf.SmallSize-buf.TinySize {
			class = buf.Tiny
		}
		c := chunk{mem: buf.Get(class)}
		c.w = copy(c.mem.B, p)
		p = p[c.w:]
		k.list = append(k.list, c)
	}
}

// pop takes the first piece out. The caller frees it.
func (k *chunks) pop() chunk {
	c := k.list[0]
	k.list = append(k.list[:0], k.list[1:]...)
	k.size -= c.w - c.r
	return c
}

// drop frees everything and returns how many bytes that were.
func (k *chunks) drop() int {
	n := k.size
	for _, c := range k.list {
		c.mem.Free()
	}
	k.list, k.size = k.list[:0], 0
	return n
}

func (c chunk) bytes() []byte { return c.mem.B[c.r:c.w] }
