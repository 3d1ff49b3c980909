package grpcweb

import (
	"bytes"
	"encoding/base64"
	"errors"
)

// decoder decodes base64 that comes in pieces, cut anywhere, and that may be padded in
// its middle: clients join parts that were encoded by themselves.
type decoder struct {
	quad [4]byte // the beginning of four characters that belong together
	n    int
}

var (
	errNotBase64 = errors.New("grpcweb: the body is not base64")
	errCutBase64 = errors.New("grpcweb: the base64 of the body is cut")
)

// decode appends what b holds to dst.
func (d *decoder) decode(dst, b []byte) ([]byte, error) {
	if bytes.ContainsAny(b, "\r\n") {
		return dst, errNotBase64 // encoding/base64 would skip them
	}
	for len(b) > 0 {
		if d.n > 0 || len(b) < len(d.quad) {
			k := copy(d.quad[d.n:], b)
			b = b[k:]
			if d.n += k; d.n < len(d.quad) {
				break
			}
			d.n = 0
			var err error
			if dst, err = appendDecode(dst, d.quad[:]); err != nil {
				return dst, err
			}
			continue
		}
		n := len(b) &^ 3
		if pad := bytes.IndexByte(b[:n], '='); pad >= 0 {
			n = pad&^3 + 4 // up to the end of the part
		}
		var err error
		if dst, err = appendDecode(dst, b[:n]); err != nil {
			return dst, err
		}
		b = b[n:]
	}
	return dst, nil
}

func appendDecode(dst, b []byte) ([]byte, error) {
	out, err := base64.StdEncoding.AppendDecode(dst, b)
	if err != nil {
		return dst, errNotBase64
	}
	return out, nil
}

// end says whether the text may end here.
func (d *decoder) end() error {
	if d.n > 0 {
		return errCutBase64
	}
	return nil
}
