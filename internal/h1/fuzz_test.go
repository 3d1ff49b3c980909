package h1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"

	"github.com/cirqueproxy/cirque/message"
)

// cutHead is HeadEnd for a head that comes in two pieces.
func cutHead(b []byte, at int) (int, error) {
	end, next, err := HeadEnd(b[:at], 0)
	if end < 0 && err == nil {
		end, _, err = HeadEnd(b, next)
	}
	return end, err
}

// checkFields: what was accepted can be sent, and hides no line.
func checkFields(t *testing.T, h *message.Header) {
	t.Helper()
	for name, value := range h.All() {
		if strings.ContainsAny(name, "\r\n\x00 \t:") || name == "" || strings.ContainsAny(value, "\r\n\x00") || strings.TrimSpace(value) != value && strings.Trim(value, " \t") != value {
			t.Fatalf("accepted field %q: %q", name, value)
		}
	}
}

// FuzzParseRequest: where the bytes are cut changes nothing; what we accept and
// send on is read the same way by us and by net/http, or refused by net/http.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(chromeHead), uint16(9))
	f.Add([]byte(postHead), uint16(1))
	f.Add([]byte(chunkedHead), uint16(60))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), uint16(9))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		end, _, err := HeadEnd(b, 0)
		cutEnd, cutErr := cutHead(b, min(int(at), len(b)))
		if err == nil && cutErr == errBareLF {
			// Seen sooner, since the head was not whole at first.
			if err := ParseRequest(b[:end], wideLimits, noRules, &message.Request{}, &RequestMeta{}); err == nil {
				t.Fatalf("cut at %d: %v, whole: accepted", at, cutErr)
			}
			return
		}
		if cutEnd != end || cutErr != err {
			t.Fatalf("cut at %d: %d %v, whole: %d %v", at, cutEnd, cutErr, end, err)
		}
		var req message.Request
		var meta RequestMeta
		if end < 0 || err != nil {
			return
		}
		if ParseRequest(b[:end], wideLimits, noRules, &req, &meta) != nil {
			checkDropped(t, b[:end])
			return
		}
		checkFields(t, &req.Header)
		checkAgain(t, &req, meta)
		compareRequest(t, b[:end], &req, meta)
	})
}

// checkDropped looks at a head that is refused: if the rule makes it good, it had
// both lengths, one is gone and the connection ends.
func checkDropped(t *testing.T, head []byte) {
	t.Helper()
	var req message.Request
	var meta RequestMeta
	if ParseRequest(head, wideLimits, &RequestRules{DropLength: true}, &req, &meta) != nil {
		return
	}
	if !meta.LengthDropped || meta.KeepAlive || meta.Framing != Chunked || req.Header.Has("Content-Length") {
		t.Fatalf("%+v %q", meta, head)
	}
	checkAgain(t, &req, meta)
}

// checkAgain sends an accepted request on and reads it again.
func checkAgain(t *testing.T, req *message.Request, meta RequestMeta) {
	t.Helper()
	out, err := AppendRequestHead(nil, req, OutFraming{Kind: meta.Framing, Length: req.Length()})
	if err != nil {
		t.Fatalf("accepted, but cannot be sent: %v", err)
	}
	if meta.Minor == 0 && !req.Header.Has("Host") {
		return // nobody takes it as HTTP/1.1 without that
	}
	var again message.Request
	var meta2 RequestMeta
	if end, _, err := HeadEnd(out, 0); err != nil || end != len(out) {
		t.Fatalf("what is sent has no end: %d %v\n%q", end, err, out)
	}
	wide := *wideLimits
	wide.HeadBytes, wide.Fields = wide.HeadBytes+1024, wide.Fields+1
	if err := ParseRequest(out, &wide, noRules, &again, &meta2); err != nil {
		t.Fatalf("what is sent is refused: %v\n%q", err, out)
	}
	if again.Method() != req.Method() || again.Target() != req.Target() || again.Authority() != req.Authority() ||
		again.Length() != req.Length() || meta2.Framing != meta.Framing {
		t.Fatalf("what is sent is another request:\n%q", out)
	}
}

// compareRequest reads the head with net/http.
func compareRequest(t *testing.T, head []byte, req *message.Request, meta RequestMeta) {
	t.Helper()
	theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head[skipEmptyLines(head):])))
	if err != nil {
		return
	}
	if theirs.Method != req.Method() {
		t.Fatalf("method %q, net/http says %q", req.Method(), theirs.Method)
	}
	if chunked := slices.Equal(theirs.TransferEncoding, []string{"chunked"}); chunked != (meta.Framing == Chunked) {
		t.Fatalf("framing %s, net/http says %q", meta.Framing, theirs.TransferEncoding)
	}
	if theirs.ContentLength != req.Length() {
		t.Fatalf("length %d, net/http says %d", req.Length(), theirs.ContentLength)
	}
	// For CONNECT net/http takes the target for the host; we leave Host alone.
	if theirs.Host != req.Authority() && req.Method() != "CONNECT" {
		t.Fatalf("authority %q, net/http says %q", req.Authority(), theirs.Host)
	}
}

// FuzzParseResponse is FuzzParseRequest for responses.
func FuzzParseResponse(f *testing.F) {
	f.Add([]byte(smallResponse), "GET", uint16(3))
	f.Add([]byte("HTTP/1.0 200\r\nTransfer-Encoding: chunked\r\n\r\n"), "HEAD", uint16(30))
	f.Fuzz(func(t *testing.T, b []byte, method string, at uint16) {
		end, _, err := HeadEnd(b, 0)
		cutEnd, cutErr := cutHead(b, min(int(at), len(b)))
		if err == nil && cutErr == errBareLF {
			if err := ParseResponse(b[:end], wideLimits, "GET", &ResponseRules{}, &message.Response{}, &ResponseMeta{}); err == nil {
				t.Fatalf("cut at %d: %v, whole: accepted", at, cutErr)
			}
			return
		}
		if cutEnd != end || cutErr != err {
			t.Fatalf("cut at %d: %d %v, whole: %d %v", at, cutEnd, cutErr, end, err)
		}
		var resp message.Response
		var meta ResponseMeta
		var rules ResponseRules
		if end < 0 || err != nil || ParseResponse(b[:end], wideLimits, method, &rules, &resp, &meta) != nil {
			return
		}
		checkFields(t, &resp.Header)
		bodiless := resp.Status < 200 || resp.Status == 204 || resp.Status == 304 || method == "HEAD"
		if bodiless != (meta.Framing == None) && resp.Length() != 0 {
			t.Fatalf("status %d to %s is framed by %s", resp.Status, method, meta.Framing)
		}
		send := OutFraming{Kind: meta.Framing, Length: resp.Length(), NoBody: bodiless}
		if send.Kind == None && !bodiless {
			send.Kind = Length // of zero
		}
		out, err := AppendResponseHead(nil, &resp, send)
		if err != nil {
			t.Fatalf("accepted, but cannot be sent: %v", err)
		}
		wide := *wideLimits
		wide.HeadBytes, wide.Fields = wide.HeadBytes+1024, wide.Fields+1
		var again message.Response
		var meta2 ResponseMeta
		if err := ParseResponse(out, &wide, method, &rules, &again, &meta2); err != nil {
			t.Fatalf("what is sent is refused: %v\n%q", err, out)
		}
		if again.Status != resp.Status || again.Reason() != resp.Reason() || meta2.Framing != meta.Framing || again.Length() != resp.Length() {
			t.Fatalf("what is sent is another response:\n%q", out)
		}
		compareResponse(t, b[:end], method, &resp, meta)
	})
}

// compareResponse reads the head with net/http.
func compareResponse(t *testing.T, head []byte, method string, resp *message.Response, meta ResponseMeta) {
	t.Helper()
	theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: method})
	if err != nil {
		return
	}
	defer theirs.Body.Close()
	if theirs.StatusCode != resp.Status {
		t.Fatalf("status %d, net/http says %d", resp.Status, theirs.StatusCode)
	}
	switch meta.Framing {
	case Chunked:
		if !slices.Equal(theirs.TransferEncoding, []string{"chunked"}) {
			t.Fatalf("chunked, net/http says %q", theirs.TransferEncoding)
		}
	case Length:
		if theirs.ContentLength != resp.Length() {
			t.Fatalf("length %d, net/http says %d", resp.Length(), theirs.ContentLength)
		}
	case Close:
		if theirs.ContentLength != -1 || len(theirs.TransferEncoding) > 0 {
			t.Fatalf("till the end, net/http says %d %q", theirs.ContentLength, theirs.TransferEncoding)
		}
	}
}

// FuzzChunkDecoder: where the bytes are cut changes nothing, and a body that
// net/http's reader accepts too has the same content.
func FuzzChunkDecoder(f *testing.F) {
	for _, tt := range chunkTests {
		if len(tt.in) < 1000 {
			f.Add([]byte(tt.in), uint16(len(tt.in)/2))
		}
	}
	f.Add(expandBody(), uint16(2))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		whole := decodeAll(b)
		i := min(int(at), len(b))
		if got := decodeAll(b[:i], b[i:]); got != whole {
			t.Fatalf("cut at %d: %+v, whole: %+v", i, got, whole)
		}
		if len(b) < 512 {
			var single [][]byte
			for i := range b {
				single = append(single, b[i:i+1])
			}
			if got := decodeAll(single...); got != whole {
				t.Fatalf("byte by byte: %+v, whole: %+v", got, whole)
			}
		}
		if !whole.done {
			return
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
		if err == nil && string(theirs) != whole.payload {
			t.Fatalf("content %q, net/http says %q", whole.payload, theirs)
		}
		if !strings.HasSuffix(string(b), whole.rest) {
			t.Fatalf("%q follows the body", whole.rest)
		}
	})
}
