package cirque_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/cirqueproxy/cirque/internal/memnet"
)

// The parties of the simulation read and write HTTP/1 with code of their own:
// strict, slow and plain, so that it has no mistake in common with the engine.

var errSimSyntax = errors.New("malformed")

// simHead is a head as it came.
type simHead struct {
	line   string
	fields [][2]string
}

// get returns the value of a field and how often it came.
func (h *simHead) get(name string) (value string, n int) {
	for _, f := range h.fields {
		if strings.EqualFold(f[0], name) {
			value = f[1]
			n++
		}
	}
	return value, n
}

func (h *simHead) value(name string) string {
	v, _ := h.get(name)
	return v
}

func readSimLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		if line != "" && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") {
		return "", fmt.Errorf("%w line %q", errSimSyntax, line)
	}
	return text, nil
}

// readSimHead reads a head. The error is io.EOF only before its first byte.
func readSimHead(r *bufio.Reader) (*simHead, error) {
	line, err := readSimLine(r)
	if err != nil {
		return nil, err
	}
	h := &simHead{line: line}
	h.fields, err = readSimFields(r)
	return h, err
}

func readSimFields(r *bufio.Reader) (fields [][2]string, err error) {
	for {
		line, err := readSimLine(r)
		switch {
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case line == "":
			return fields, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%w field %q", errSimSyntax, line)
		}
		fields = append(fields, [2]string{name, strings.Trim(value, " \t")})
	}
}

// simFraming is how a body ends.
type simFraming struct {
	kind   string // none, length, chunked, close
	length int
}

// framing reads how the body after h ends.
//
// RFC 9112, section 6.3: chunked, a length, or for a response the end of the
// connection.
func (h *simHead) framing(response bool) (simFraming, error) {
	te, nte := h.get("Transfer-Encoding")
	cl, ncl := h.get("Content-Length")
	switch {
	case nte > 0 && ncl > 0, nte > 1, ncl > 1, nte == 1 && te != "chunked":
		return simFraming{}, fmt.Errorf("%w framing %q", errSimSyntax, h.fields)
	case nte == 1:
		return simFraming{"chunked", 0}, nil
	case ncl == 1:
		n, err := strconv.ParseUint(cl, 10, 31)
		if err != nil {
			return simFraming{}, fmt.Errorf("%w length %q", errSimSyntax, cl)
		}
		return simFraming{"length", int(n)}, nil
	case response:
		return simFraming{"close", 0}, nil
	}
	return simFraming{"none", 0}, nil
}

// readSimBody reads a body to its end, with a pause before each read. What came
// is returned with an error too, which says that the body is visibly cut.
func readSimBody(r *bufio.Reader, f simFraming, pause func()) (body []byte, trailer [][2]string, err error) {
	switch f.kind {
	case "length":
		body, err = appendSimBody(nil, r, f.length, pause)
	case "close":
		buf := make([]byte, 8<<10)
		for err == nil {
			pause()
			var n int
			n, err = r.Read(buf)
			body = append(body, buf[:n]...)
		}
		if err == io.EOF {
			err = nil
		}
	case "chunked":
		return readSimChunks(r, pause)
	}
	return body, nil, err
}

func appendSimBody(body []byte, r *bufio.Reader, n int, pause func()) ([]byte, error) {
	buf := make([]byte, 8<<10)
	for n > 0 {
		pause()
		k, err := r.Read(buf[:min(n, len(buf))])
		body, n = append(body, buf[:k]...), n-k
		switch {
		case n == 0:
		case err == io.EOF:
			return body, io.ErrUnexpectedEOF
		case err != nil:
			return body, err
		}
	}
	return body, nil
}

func readSimChunks(r *bufio.Reader, pause func()) (body []byte, trailer [][2]string, err error) {
	for {
		line, err := readSimLine(r)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return body, nil, err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil {
			return body, nil, fmt.Errorf("%w chunk size %q", errSimSyntax, line)
		}
		if n == 0 {
			trailer, err = readSimFields(r)
			return body, trailer, err
		}
		if body, err = appendSimBody(body, r, int(n), pause); err != nil {
			return body, nil, err
		}
		if end, err := readSimLine(r); err != nil || end != "" {
			if err == nil {
				err = fmt.Errorf("%w end of chunk %q", errSimSyntax, end)
			}
			return body, nil, err
		}
	}
}

// pauses returns a function that sleeps now and then, for d at most and not often
// enough to make a run long.
func (r simRand) pauses(d time.Duration) func() {
	left := 20
	return func() {
		if d > 0 && left > 0 && r.chance(30) {
			left--
			time.Sleep(r.between(0, d))
		}
	}
}

// sendSim writes b in pieces with pauses between, as long as goon says so.
func sendSim(c *memnet.Conn, r simRand, b []byte, gap time.Duration, goon func() bool) error {
	for _, n := range r.pieces(len(b)) {
		if goon != nil && !goon() {
			return errSimStopped
		}
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if gap > 0 && r.chance(70) {
			time.Sleep(r.between(0, gap))
		}
	}
	return nil
}

var errSimStopped = errors.New("there is no reason to send more")

// exchangeSim is one end of a tunnel: it sends out and its end, and returns what
// came until the other's.
func exchangeSim(c *memnet.Conn, in *bufio.Reader, r simRand, out []byte, gap time.Duration) (got []byte, err error) {
	sentc := make(chan struct{})
	go func() {
		defer close(sentc)
		if sendSim(c, r, out, gap, nil) == nil {
			_ = c.CloseWrite()
		}
	}()
	got, err = io.ReadAll(in)
	if err != nil {
		_ = c.Close()
	}
	<-sentc
	return got, err
}
