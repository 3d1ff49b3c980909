package message

// Response is a response head and what is known of its body. The zero value is
// empty. It belongs to one goroutine at a time and must not be copied.
type Response struct {
	// Header holds the fields. Trailer holds those after the body, once it was
	// read to its end, or those to be sent after it.
	Header  Header
	Trailer Header
	// Status is the status code.
	Status int

	reason     []byte
	reasonText string
	hasReason  bool
	length     int64
}

// Reset empties the response and keeps its memory.
func (r *Response) Reset() {
	r.Header.Reset()
	r.Trailer.Reset()
	r.Status, r.length = 0, 0
	r.reason, r.reasonText, r.hasReason = r.reason[:0], "", false
}

// CopyFrom makes r equal to o, which stays as it is. Trailers are copied too.
func (r *Response) CopyFrom(o *Response) {
	r.Header.CopyFrom(&o.Header)
	r.Trailer.CopyFrom(&o.Trailer)
	r.Status, r.length = o.Status, o.length
	r.reason = append(r.reason[:0], o.reason...)
	r.reasonText, r.hasReason = o.reasonText, o.hasReason
}

// Reason returns the reason phrase: the one that came or was set, else the
// status's usual one.
func (r *Response) Reason() string {
	if !r.hasReason {
		return StatusText(r.Status)
	}
	if r.reasonText == "" && len(r.reason) > 0 {
		r.reasonText = string(r.reason)
	}
	return r.reasonText
}

// AppendReason appends what Reason returns to dst.
func (r *Response) AppendReason(dst []byte) []byte {
	if r.hasReason {
		return append(dst, r.reason...)
	}
	return append(dst, StatusText(r.Status)...)
}

// SetReason sets the reason phrase; "" means the status's usual one. Control
// characters in it become spaces.
func (r *Response) SetReason(text string) {
	r.reason, r.reasonText, r.hasReason = r.reason[:0], "", text != ""
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c < ' ' || c == 0x7f {
			c = ' '
		}
		r.reason = append(r.reason, c)
	}
}

// LoadReason takes a copy of a reason phrase that a parser has checked. It may
// be empty.
func (r *Response) LoadReason(text []byte) {
	r.reason, r.reasonText, r.hasReason = append(r.reason[:0], text...), "", true
}

// Length returns the length of the body in bytes: 0 when there is none, -1 when
// only its end will tell. For a response without a body that tells the length
// of another one's (to HEAD, 304) it is that length, -1 if it is not told.
func (r *Response) Length() int64 { return r.length }

// SetLength says how long the body is, -1 for unknown. The engine frames the
// message by it.
func (r *Response) SetLength(n int64) { r.length = max(n, -1) }
