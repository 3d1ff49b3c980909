package h2frame

import "encoding/binary"

// AppendHeader appends a frame header. To fill in the header of a payload that
// is already behind it, append to the slice that ends where the header begins.
func AppendHeader(dst []byte, h Header) []byte {
	return append(dst,
		byte(h.Length>>16), byte(h.Length>>8), byte(h.Length),
		byte(h.Type), byte(h.Flags),
		byte(h.Stream>>24), byte(h.Stream>>16), byte(h.Stream>>8), byte(h.Stream))
}

// flagIf returns f if on is true.
func flagIf(on bool, f Flags) Flags {
	if on {
		return f
	}
	return 0
}

// AppendSettings appends a SETTINGS frame.
func AppendSettings(dst []byte, settings ...Setting) []byte {
	dst = AppendHeader(dst, Header{Length: 6 * len(settings), Type: TypeSettings})
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Value)
	}
	return dst
}

// AppendSettingsAck appends the acknowledgement of a SETTINGS frame.
func AppendSettingsAck(dst []byte) []byte {
	return AppendHeader(dst, Header{Type: TypeSettings, Flags: FlagAck})
}

// AppendHeaders appends a HEADERS frame. Without endHeaders CONTINUATION frames
// must follow, with nothing between.
func AppendHeaders(dst []byte, stream uint32, fragment []byte, endStream, endHeaders bool) []byte {
	dst = AppendHeader(dst, Header{
		Length: len(fragment), Type: TypeHeaders, Stream: stream,
		Flags: flagIf(endStream, FlagEndStream) | flagIf(endHeaders, FlagEndHeaders),
	})
	return append(dst, fragment...)
}

// AppendContinuation appends a CONTINUATION frame.
func AppendContinuation(dst []byte, stream uint32, fragment []byte, endHeaders bool) []byte {
	dst = AppendHeader(dst, Header{
		Length: len(fragment), Type: TypeContinuation, Stream: stream, Flags: flagIf(endHeaders, FlagEndHeaders),
	})
	return append(dst, fragment...)
}

// AppendFieldBlock appends a whole field block: one HEADERS frame, and as many
// CONTINUATION frames as maxFrame makes necessary.
func AppendFieldBlock(dst []byte, stream uint32, block []byte, endStream bool, maxFrame int) []byte {
	n := min(len(block), maxFrame)
	dst = AppendHeaders(dst, stream, block[:n], endStream, n == len(block))
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n = min(len(block), maxFrame)
		dst = AppendContinuation(dst, stream, block[:n], n == len(block))
	}
	return dst
}

// AppendDataHeader appends the header of a DATA frame of n bytes, which follow.
func AppendDataHeader(dst []byte, stream uint32, n int, endStream bool) []byte {
	return AppendHeader(dst, Header{Length: n, Type: TypeData, Flags: flagIf(endStream, FlagEndStream), Stream: stream})
}

// AppendReset appends a RST_STREAM frame.
func AppendReset(dst []byte, stream uint32, code Code) []byte {
	dst = AppendHeader(dst, Header{Length: 4, Type: TypeReset, Stream: stream})
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// AppendPing appends a PING frame, or the answer to one.
func AppendPing(dst []byte, ack bool, data [8]byte) []byte {
	dst = AppendHeader(dst, Header{Length: 8, Type: TypePing, Flags: flagIf(ack, FlagAck)})
	return append(dst, data[:]...)
}

// AppendGoAway appends a GOAWAY frame. debug is shown to people at the other end.
func AppendGoAway(dst []byte, last uint32, code Code, debug string) []byte {
	dst = AppendHeader(dst, Header{Length: 8 + len(debug), Type: TypeGoAway})
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame; stream 0 is the connection.
func AppendWindowUpdate(dst []byte, stream, n uint32) []byte {
	dst = AppendHeader(dst, Header{Length: 4, Type: TypeWindowUpdate, Stream: stream})
	return binary.BigEndian.AppendUint32(dst, n)
}

// AppendPriorityUpdate appends a PRIORITY_UPDATE frame: field is the value of a
// Priority field.
func AppendPriorityUpdate(dst []byte, stream uint32, field string) []byte {
	dst = AppendHeader(dst, Header{Length: 4 + len(field), Type: TypePriorityUpdate})
	dst = binary.BigEndian.AppendUint32(dst, stream)
	return append(dst, field...)
}
