package h1

import (
	"bytes"

	"github.com/cirqueproxy/cirque/internal/ascii"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// Limits of what a chunked body may carry besides its content.
const (
	// maxExtension bounds the bytes of chunk extensions: in all, as many as this
	// and as there is content. A sender of one-byte chunks with long extensions
	// would make us read much for nothing.
	maxExtension = 8 << 10
	// maxTrailer and maxTrailerFields bound the trailer section, which is held
	// in memory.
	maxTrailer       = 64 << 10
	maxTrailerFields = 100
)

var (
	errChunkSize    = &Error{400, reason.BadChunk, "a chunk size is malformed"}
	errChunkExt     = &Error{400, reason.BadChunk, "the chunk extensions are malformed or too long"}
	errChunkEnd     = &Error{400, reason.BadChunk, "a chunk does not end with CRLF"}
	errTrailerField = &Error{400, reason.BadChunk, "the trailer section is malformed"}
	errTrailerSize  = &Error{431, reason.TrailerTooLarge, "the trailer section is larger than the limit"}
)

// chunkState is where in a chunked body the decoder is.
//
// RFC 9112, section 7.1:
//
//	chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
//
//	size --digit--> sizeNext --';'--> ext --CR--> sizeLF --LF--> data --> dataCR --> dataLF --> size
//	                sizeNext --SP--> sizeSpace --';'--> ext        |
//	                sizeNext --CR--> sizeLF                        size 0: trailer --> done
type chunkState uint8

const (
	stateSize chunkState = iota
	stateSizeNext
	stateSizeSpace
	stateExt
	stateSizeLF
	stateData
	stateDataCR
	stateDataLF
	stateTrailer
	stateDone
)

// ChunkDecoder decodes a chunked body. The zero value is at its beginning.
type ChunkDecoder struct {
	left    int64 // of the present chunk
	content int64
	ext     int64 // bytes of extensions
	trailer int   // bytes of trailer section
	fields  int
	digits  uint8
	state   chunkState
	err     error
}

// Reset makes c ready for another body.
func (c *ChunkDecoder) Reset() { *c = ChunkDecoder{} }

// ChunkLeft returns how many bytes of the present chunk were not decoded yet.
func (c *ChunkDecoder) ChunkLeft() int64 {
	if c.state != stateData {
		return 0
	}
	return c.left
}

// Skip tells that n bytes of the present chunk were moved without Decode.
func (c *ChunkDecoder) Skip(n int64) {
	c.left -= n
	c.content += n
	if c.left == 0 {
		c.state = stateDataCR
	}
}

// Decode decodes what is in b. The content is moved to the front of b, payload
// bytes of it; consumed is how much of b was used. With done the body is
// complete and its trailer fields were added to trailer, if that is not nil;
// what follows in b is not of this body. An error is final; the payload before
// it is good.
func (c *ChunkDecoder) Decode(b []byte, trailer *message.Header) (payload, consumed int, done bool, err error) {
	for consumed < len(b) && c.err == nil && c.state != stateDone {
		switch c.state {
		case stateData:
			n := int(min(int64(len(b)-consumed), c.left))
			if payload != consumed {
				copy(b[payload:], b[consumed:consumed+n])
			}
			payload += n
			consumed += n
			c.Skip(int64(n))
		case stateTrailer:
			n := c.trailerLine(b[consumed:], trailer)
			if n == 0 {
				return payload, consumed, false, c.err
			}
			consumed += n
		default:
			c.err = c.framing(b[consumed])
			consumed++
		}
	}
	return payload, consumed, c.state == stateDone, c.err
}

// framing takes one byte that is not content.
func (c *ChunkDecoder) framing(b byte) error {
	switch c.state {
	case stateSize, stateSizeNext:
		return c.size(b)
	case stateSizeSpace:
		// RFC 9112, section 7.1.1: bad whitespace is accepted before the
		// semicolon; at the end of the line it is a known smuggling trick.
		if b == ';' {
			c.state = stateExt
		} else if b != ' ' && b != '\t' {
			return errChunkSize
		}
		return c.extended()
	case stateExt:
		if b == '\r' {
			c.state = stateSizeLF
			return nil
		}
		if b != '\t' && (b < ' ' || b == 0x7f) {
			return errChunkExt
		}
		return c.extended()
	case stateSizeLF:
		if b != '\n' {
			return errChunkSize
		}
		c.state = stateData
		if c.left == 0 {
			c.state = stateTrailer
		}
	case stateDataCR:
		if b != '\r' {
			return errChunkEnd
		}
		c.state = stateDataLF
	case stateDataLF:
		if b != '\n' {
			return errChunkEnd
		}
		c.state, c.digits = stateSize, 0
	}
	return nil
}

func (c *ChunkDecoder) size(b byte) error {
	switch {
	case ascii.IsHex(b):
		// RFC 9112, section 7.1: a recipient must expect large numbers and not
		// overflow. Fifteen digits are an exabyte.
		if c.digits == 15 {
			return errChunkSize
		}
		c.left = c.left<<4 | int64(ascii.Unhex(b))
		c.digits++
		c.state = stateSizeNext
	case c.digits == 0:
		return errChunkSize
	case b == '\r':
		c.state = stateSizeLF
	case b == ';':
		c.state = stateExt
	case b == ' ' || b == '\t':
		c.state = stateSizeSpace
	default:
		return errChunkSize
	}
	return nil
}

// extended counts a byte of an extension.
func (c *ChunkDecoder) extended() error {
	if c.ext++; c.ext > maxExtension+c.content {
		return errChunkExt
	}
	return nil
}

// trailerLine takes one line of the trailer section and returns its length, or
// 0 when it is not complete.
//
// RFC 9112, section 7.1.2; RFC 9110, section 6.5.1: fields that must not come
// in a trailer section are dropped.
func (c *ChunkDecoder) trailerLine(b []byte, trailer *message.Header) int {
	n := bytes.IndexByte(b, '\n') + 1
	size := n
	if n == 0 {
		size = len(b)
	}
	if c.trailer+size > maxTrailer {
		c.err = errTrailerSize
		return 0
	}
	if n == 0 {
		return 0
	}
	c.trailer += n
	if n < 2 || b[n-2] != '\r' {
		c.err = errTrailerField
		return n
	}
	line := b[:n-2]
	if len(line) == 0 {
		c.state = stateDone
		return n
	}
	name := ascii.TokenLen(line)
	if name == 0 || name == len(line) || line[name] != ':' || !ascii.IsValue(line[name+1:]) {
		c.err = errTrailerField
		return n
	}
	if c.fields++; c.fields > maxTrailerFields {
		c.err = errTrailerSize
		return n
	}
	if trailer != nil && message.Lookup(line[:name]).InTrailer() {
		trailer.AddParsed(line[:name], ascii.TrimOWS(line[name+1:]))
	}
	return n
}
