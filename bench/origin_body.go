//go:build linux

package main

import "container/heap"

// bodyReader checks an upload as it comes. The zero value is no body.
type bodyReader struct {
	left    int  // of the length, or of the chunk
	got     int  // bytes of content so far
	chunked bool // the length is not known
	state   chunkState
}

type chunkState uint8

const (
	chunkSize  chunkState = iota // in the hexadecimal digits
	chunkExt                     // after them, up to the line's end
	chunkData                    // in the content
	chunkEnd                     // in the line end behind the content
	chunkTail                    // behind the last chunk, at the start of a line
	chunkField                   // in a trailer field
)

// read takes what belongs to the body out of b.
func (r *bodyReader) read(b []byte, id uint64) (used int, done, ok bool) {
	if !r.chunked {
		n := min(r.left, len(b))
		if n > 0 && !checkBody(id, r.got, b[:n]) {
			return 0, false, false
		}
		r.left -= n
		r.got += n
		return n, r.left == 0, true
	}
	i := 0
	for i < len(b) {
		if r.state == chunkData {
			n := min(r.left, len(b)-i)
			if !checkBody(id, r.got, b[i:i+n]) {
				return i, false, false
			}
			r.left -= n
			r.got += n
			i += n
			if r.left == 0 {
				r.state = chunkEnd
			}
			continue
		}
		done, ok := r.step(b[i])
		i++
		if done || !ok {
			return i, done, ok
		}
	}
	return i, false, true
}

// step takes one byte of the framing.
func (r *bodyReader) step(c byte) (done, ok bool) {
	switch r.state {
	case chunkSize:
		switch d, hex := hexValue(c); {
		case hex:
			r.left = r.left<<4 | d
			return false, r.left <= maxBody
		case c == '\n':
			r.sizeEnds()
		default:
			r.state = chunkExt
		}
	case chunkExt:
		if c == '\n' {
			r.sizeEnds()
		}
	case chunkEnd:
		if c == '\n' {
			r.state = chunkSize
		}
	case chunkTail:
		if c == '\n' {
			return true, true
		}
		if c != '\r' {
			r.state = chunkField
		}
	case chunkField:
		if c == '\n' {
			r.state = chunkTail
		}
	}
	return false, true
}

func (r *bodyReader) sizeEnds() {
	r.state = chunkData
	if r.left == 0 {
		r.state = chunkTail
	}
}

func hexValue(c byte) (int, bool) {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0'), true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10, true
	}
	return 0, false
}

// delayQueue holds connections whose answer is due later.
type delayQueue struct{ items lateItems }

type lateItem struct {
	due int64
	c   *originConn
	gen uint32
}

type lateItems []lateItem

func (q lateItems) Len() int           { return len(q) }
func (q lateItems) Less(i, j int) bool { return q[i].due < q[j].due }
func (q lateItems) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *lateItems) Push(x any)        { *q = append(*q, x.(lateItem)) }
func (q *lateItems) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func (q *delayQueue) push(due int64, c *originConn) {
	heap.Push(&q.items, lateItem{due: due, c: c, gen: c.gen})
}

func (q *delayQueue) next() (int64, bool) {
	if len(q.items) == 0 {
		return 0, false
	}
	return q.items[0].due, true
}

// pop returns a connection whose answer is due, or nil.
func (q *delayQueue) pop(now int64) *originConn {
	for len(q.items) > 0 && q.items[0].due <= now {
		if it := heap.Pop(&q.items).(lateItem); it.gen == it.c.gen {
			return it.c
		}
	}
	return nil
}
