//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/net/http2/hpack"
)

// HTTP/2 as the bench speaks it at both ends: what it costs is not to be seen
// beside the proxies, so it knows its own requests and answers and little else.
// What it does not expect is an error, which fails the round.

const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	frameHead = 9

	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePush         = 5
	framePing         = 6
	frameGoAway       = 7
	frameWindow       = 8
	frameContinuation = 9

	flagEnd        = 1 // of the stream; of settings and pings it is the ACK
	flagEndHeaders = 4
	flagPadded     = 8
	flagPriority   = 0x20

	settingTable   = 1
	settingPush    = 2
	settingStreams = 3
	settingWindow  = 4
	settingFrame   = 5

	// h2Window is what both ends of the bench let others send: so much that it
	// is never what a proxy waits for.
	h2Window = 1 << 30
	// h2Frame is the largest frame that others may send.
	h2Frame = 16 << 10
)

// h2Events learns what comes on a connection. What it is lent is valid during
// the call.
type h2Events interface {
	headers(id uint32, h *h2Head, end bool) error
	data(id uint32, b []byte, end bool) error
	reset(id uint32, code uint32) error
}

// h2Head is what the bench wants to know of a head or of trailers.
type h2Head struct {
	path       string
	status     string
	grpcStatus string
	length     int // of the body; -1: not said
}

func (h *h2Head) field(f hpack.HeaderField) {
	switch f.Name {
	case ":path":
		h.path = f.Value
	case ":status":
		h.status = f.Value
	case "grpc-status":
		h.grpcStatus = f.Value
	case "content-length":
		h.length, _ = strconv.Atoi(f.Value)
	}
}

// h2Stream is one stream of either role.
type h2Stream struct {
	id     uint32
	window int // that the other end leaves us
	target target

	// What is still to be sent: first bytes, then the body from off to end,
	// then the stream's end. open: it does not end after them.
	first []byte
	spare []byte // holds first
	off   int
	end   int
	open  bool
	ended bool // our side is
	tail  bool // trailers end it (the origin's answer to gRPC)
	held  bool // in h2Conn.held
	whole bool // the other side has ended it: it is gone as soon as ours has

	slot *loadConn // of the load generator
	body bodyReader
	msgs messages
}

// h2Conn is a connection without its socket. One thread owns it.
type h2Conn struct {
	on      h2Events
	out     []byte // to be written
	streams map[uint32]*h2Stream
	held    []*h2Stream // wait for a window, or for room in out
	enc     h2Encoder

	in       []byte // the start of a frame
	dec      *hpack.Decoder
	head     h2Head
	block    []byte // of a head that goes on in a CONTINUATION
	blockID  uint32
	blockEnd bool
	window   int // of the connection, that the other end leaves us
	initial  int // of a new stream
	frame    int // the largest that we may send
	unacked  int // received and not given back
	leaving  bool
}

// outRoom is how much may wait to be written before bodies have to wait.
const outRoom = 256 << 10

func newH2Conn(on h2Events) *h2Conn {
	c := &h2Conn{on: on, streams: map[uint32]*h2Stream{}, window: 65535, initial: 65535, frame: 16384}
	c.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) { c.head.field(f) })
	return c
}

// greet writes the settings that either end begins with.
func (c *h2Conn) greet(settings ...uint32) {
	c.out = appendFrame(c.out, 6*len(settings)/2, frameSettings, 0, 0)
	for i := 0; i < len(settings); i += 2 {
		c.out = binary.BigEndian.AppendUint16(c.out, uint16(settings[i]))
		c.out = binary.BigEndian.AppendUint32(c.out, settings[i+1])
	}
	c.grant(h2Window - 65535)
}

func (c *h2Conn) grant(n int) {
	c.out = appendFrame(c.out, 4, frameWindow, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(n))
}

func appendFrame(dst []byte, length int, kind, flags byte, id uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), kind, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// feed takes bytes that came.
func (c *h2Conn) feed(b []byte) error {
	if len(c.in) > 0 {
		c.in = append(c.in, b...)
		b = c.in
	}
	for len(b) >= frameHead {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if n > h2Frame {
			return errors.New("frame too long")
		}
		if len(b) < frameHead+n {
			break
		}
		id := binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1)
		if err := c.receive(b[3], b[4], id, b[frameHead:frameHead+n]); err != nil {
			return err
		}
		b = b[frameHead+n:]
	}
	c.in = append(c.in[:0], b...)
	return nil
}

func (c *h2Conn) receive(kind, flags byte, id uint32, b []byte) error {
	switch kind {
	case frameData:
		return c.receiveData(flags, id, b)
	case frameHeaders, frameContinuation:
		return c.receiveHead(kind, flags, id, b)
	case frameReset:
		if len(b) != 4 {
			return errors.New("bad RST_STREAM")
		}
		return c.on.reset(id, binary.BigEndian.Uint32(b))
	case frameSettings:
		return c.receiveSettings(flags, b)
	case framePush:
		return errors.New("pushed stream")
	case framePing:
		if flags&flagEnd == 0 {
			c.out = append(appendFrame(c.out, len(b), framePing, flagEnd, 0), b...)
		}
	case frameGoAway:
		if len(b) >= 8 && binary.BigEndian.Uint32(b[4:]) != 0 {
			return fmt.Errorf("GOAWAY with code %d", binary.BigEndian.Uint32(b[4:]))
		}
		c.leaving = true
	case frameWindow:
		if len(b) != 4 {
			return errors.New("bad WINDOW_UPDATE")
		}
		n := int(binary.BigEndian.Uint32(b) & (1<<31 - 1))
		if id == 0 {
			c.window += n
		} else if s := c.streams[id]; s != nil {
			s.window += n
		}
	}
	return nil
}

func (c *h2Conn) receiveData(flags byte, id uint32, b []byte) error {
	// All that was sent counts, padding too. A stream is never given anything
	// back: none has as much as the window.
	if c.unacked += len(b); c.unacked >= h2Window/4 {
		c.grant(c.unacked)
		c.unacked = 0
	}
	b, err := unpad(flags, b)
	if err != nil {
		return err
	}
	return c.on.data(id, b, flags&flagEnd != 0)
}

func unpad(flags byte, b []byte) ([]byte, error) {
	if flags&flagPadded == 0 {
		return b, nil
	}
	if len(b) == 0 || int(b[0]) >= len(b) {
		return nil, errors.New("bad padding")
	}
	return b[1 : len(b)-int(b[0])], nil
}

func (c *h2Conn) receiveHead(kind, flags byte, id uint32, b []byte) error {
	if kind == frameHeaders {
		var err error
		if b, err = unpad(flags, b); err != nil {
			return err
		}
		if flags&flagPriority != 0 {
			if len(b) < 5 {
				return errors.New("bad HEADERS")
			}
			b = b[5:]
		}
		c.blockEnd = flags&flagEnd != 0
		if flags&flagEndHeaders == 0 {
			c.block, c.blockID = append(c.block[:0], b...), id
			return nil
		}
	} else {
		if id != c.blockID {
			return errors.New("CONTINUATION of another stream")
		}
		if c.block = append(c.block, b...); flags&flagEndHeaders == 0 {
			return nil
		}
		b, c.blockID = c.block, 0
	}
	c.head = h2Head{length: -1}
	if _, err := c.dec.Write(b); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	if err := c.dec.Close(); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	return c.on.headers(id, &c.head, c.blockEnd)
}

func (c *h2Conn) receiveSettings(flags byte, b []byte) error {
	if flags&flagEnd != 0 {
		return nil
	}
	if len(b)%6 != 0 {
		return errors.New("bad SETTINGS")
	}
	for ; len(b) > 0; b = b[6:] {
		v := int(binary.BigEndian.Uint32(b[2:]))
		switch binary.BigEndian.Uint16(b) {
		case settingTable:
			// What we add is a few short fields: a smaller table gets none.
			if v < 4096 && !c.enc.off {
				c.enc.off, c.enc.shrink = true, true
			}
		case settingWindow:
			for _, s := range c.streams {
				s.window += v - c.initial
			}
			c.initial = v
		case settingFrame:
			c.frame = min(v, 64<<10)
		}
	}
	c.out = appendFrame(c.out, 0, frameSettings, flagEnd, 0)
	return nil
}

// open makes a stream.
func (c *h2Conn) open(id uint32) *h2Stream {
	s := &h2Stream{id: id, window: c.initial}
	c.streams[id] = s
	return s
}

// forget ends a stream for both sides.
func (c *h2Conn) forget(s *h2Stream) {
	delete(c.streams, s.id)
	s.ended = true
}

// beginHead reserves a HEADERS frame, and returns where it starts.
func (c *h2Conn) beginHead(id uint32, flags byte) int {
	at := len(c.out)
	c.out = appendFrame(c.out, 0, frameHeaders, flags|flagEndHeaders, id)
	c.out = c.enc.start(c.out)
	return at
}

// endHead says how long the frame at at has become.
func (c *h2Conn) endHead(at int) { setLength(c.out[at:]) }

func setLength(frame []byte) {
	n := len(frame) - frameHead
	frame[0], frame[1], frame[2] = byte(n>>16), byte(n>>8), byte(n)
}

// push writes what s has to send, as far as the windows and the room in out
// allow, and holds s if there is more.
func (c *h2Conn) push(s *h2Stream) {
	if c.pushed(s) || s.held {
		return
	}
	s.held = true
	c.held = append(c.held, s)
}

// pushed reports whether nothing of s is left to be sent.
func (c *h2Conn) pushed(s *h2Stream) bool {
	for !s.ended {
		left := len(s.first) + s.end - s.off
		if left == 0 {
			if s.tail && !s.open {
				s.ended = true
				appendTrailers(c, s.id)
			}
			return true
		}
		n := min(left, c.frame, c.window, s.window)
		if n <= 0 || len(c.out) >= outRoom {
			return false
		}
		at := len(c.out)
		c.out = appendFrame(c.out, 0, frameData, 0, s.id)
		if k := min(n, len(s.first)); k > 0 {
			c.out, s.first = append(c.out, s.first[:k]...), s.first[k:]
		} else {
			c.out = appendBody(c.out, s.target.id, s.off, n)
			s.off += len(c.out) - at - frameHead
		}
		frame := c.out[at:]
		setLength(frame)
		c.window -= len(frame) - frameHead
		s.window -= len(frame) - frameHead
		if len(s.first) == 0 && s.off == s.end && !s.open && !s.tail {
			s.ended = true
			frame[4] = flagEnd
		}
	}
	return true
}

// pushHeld goes on with the streams that had to wait.
func (c *h2Conn) pushHeld() {
	if len(c.held) == 0 || len(c.out) >= outRoom || c.window <= 0 {
		return
	}
	c.held = slices.DeleteFunc(c.held, func(s *h2Stream) bool {
		if s.held = !c.pushed(s); !s.held && s.whole && s.ended {
			delete(c.streams, s.id)
		}
		return !s.held
	})
}

// h2Encoder writes heads. What is the same in all of them goes into the dynamic
// table, as every real client and server has it.
type h2Encoder struct {
	table  []hpack.HeaderField
	off    bool // the other end has no table for us
	shrink bool // and is to be told that we know
}

// start begins a head.
func (e *h2Encoder) start(dst []byte) []byte {
	if e.shrink {
		e.shrink, e.table = false, nil
		dst = append(dst, 0x20)
	}
	return dst
}

// fixed appends a field that every head of its kind has. index is that of its
// name in the static table, 0 if it has none.
func (e *h2Encoder) fixed(dst []byte, index int, name, value string) []byte {
	if e.off {
		return e.once(dst, index, name, value)
	}
	for i, f := range e.table {
		if f.Name == name && f.Value == value {
			return appendInt(dst, 0x80, 7, 62+len(e.table)-1-i)
		}
	}
	e.table = append(e.table, hpack.HeaderField{Name: name, Value: value})
	return appendLiteral(dst, 0x40, 6, index, name, value)
}

// once appends a field that goes into no table.
func (e *h2Encoder) once(dst []byte, index int, name, value string) []byte {
	return appendLiteral(dst, 0, 4, index, name, value)
}

func appendLiteral(dst []byte, pattern byte, bits uint, index int, name, value string) []byte {
	dst = appendInt(dst, pattern, bits, index)
	if index == 0 {
		dst = append(appendInt(dst, 0, 7, len(name)), name...)
	}
	return append(appendInt(dst, 0, 7, len(value)), value...)
}

// appendInt is HPACK's integer with a prefix of so many bits.
func appendInt(dst []byte, pattern byte, bits uint, n int) []byte {
	limit := 1<<bits - 1
	if n < limit {
		return append(dst, pattern|byte(n))
	}
	dst = append(dst, pattern|byte(limit))
	for n -= limit; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}
