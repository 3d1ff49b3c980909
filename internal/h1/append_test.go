package h1

import (
	"errors"
	"testing"

	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

func newRequest(method, target string, fields ...string) *message.Request {
	var r message.Request
	r.SetMethod(method)
	r.SetTarget(target)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return &r
}

func TestAppendRequestHead(t *testing.T) {
	tests := []struct {
		name string
		req  *message.Request
		f    OutFraming
		want string
	}{
		{"plain", newRequest("GET", "/a?b", "hOST", "a", "X", ""), OutFraming{}, "GET /a?b HTTP/1.1\r\nhOST: a\r\nX: \r\n\r\n"},
		{"length kept in place", newRequest("PUT", "/", "content-length", "5", "X", "1"), OutFraming{Kind: Length, Length: 5}, "PUT / HTTP/1.1\r\ncontent-length: 5\r\nX: 1\r\n\r\n"},
		{"length wrong", newRequest("PUT", "/", "Content-Length", "6", "X", "1"), OutFraming{Kind: Length, Length: 5}, "PUT / HTTP/1.1\r\nX: 1\r\nContent-Length: 5\r\n\r\n"},
		{"length twice", newRequest("PUT", "/", "Content-Length", "5", "Content-Length", "5"), OutFraming{Kind: Length, Length: 5}, "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"},
		{"length zero", newRequest("PUT", "/"), OutFraming{Kind: Length}, "PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"},
		{"chunked", newRequest("PUT", "/", "Content-Length", "5", "Transfer-Encoding", "gzip"), OutFraming{Kind: Chunked}, "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"none", newRequest("GET", "/", "Content-Length", "5", "Transfer-Encoding", "chunked"), OutFraming{}, "GET / HTTP/1.1\r\n\r\n"},
		{"connection fields", newRequest("GET", "/", "Connection", "x", "Keep-Alive", "y", "Proxy-Connection", "z", "TE", "t", "Upgrade", "u"), OutFraming{}, "GET / HTTP/1.1\r\n\r\n"},
		{"upgrade", newRequest("GET", "/", "Upgrade", "u"), OutFraming{Connection: "upgrade"}, "GET / HTTP/1.1\r\nUpgrade: u\r\nConnection: upgrade\r\n\r\n"},
		{"asterisk", newRequest("OPTIONS", "*"), OutFraming{}, "OPTIONS * HTTP/1.1\r\n\r\n"},
		{"connect", newRequest("CONNECT", "a:1"), OutFraming{}, "CONNECT a:1 HTTP/1.1\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendRequestHead([]byte("before "), tt.req, tt.f)
			if err != nil || string(got) != "before "+tt.want {
				t.Errorf("%v\ngot  %q\nwant %q", err, got, tt.want)
			}
		})
	}
}

// TestAppendRefuses: what hooks set cannot split a message.
func TestAppendRefuses(t *testing.T) {
	check := func(name string, got []byte, err error) {
		t.Helper()
		var e *Error
		if !errors.As(err, &e) || e.Reason != reason.BadHookField || e.Status != 500 || string(got) != "before" {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	requests := map[string]*message.Request{
		"CR in value":       newRequest("GET", "/", "X", "a\rb"),
		"LF in value":       newRequest("GET", "/", "X", "a\nb"),
		"NUL in value":      newRequest("GET", "/", "X", "a\x00b"),
		"CRLF in name":      newRequest("GET", "/", "X: 1\r\nY", "a"),
		"space in name":     newRequest("GET", "/", "X Y", "a"),
		"empty name":        newRequest("GET", "/", "", "a"),
		"space in target":   newRequest("GET", "/a b"),
		"CRLF in target":    newRequest("GET", "/ HTTP/1.1\r\nX: 1"),
		"empty target":      newRequest("GET", ""),
		"relative target":   newRequest("GET", "a"),
		"fragment":          newRequest("GET", "/#"),
		"asterisk and more": newRequest("OPTIONS", "*x"),
		"space in method":   newRequest("GE T", "/"),
		"empty method":      newRequest("", "/"),
	}
	for name, req := range requests {
		got, err := AppendRequestHead([]byte("before"), req, OutFraming{})
		check(name, got, err)
	}
	for _, status := range []int{-1, 0, 99, 1000} {
		got, err := AppendResponseHead([]byte("before"), &message.Response{Status: status}, OutFraming{})
		check("status", got, err)
	}
	resp := &message.Response{Status: 200}
	resp.Header.Add("X", "a\r\nb")
	got, err := AppendResponseHead([]byte("before"), resp, OutFraming{})
	check("response", got, err)
	got, err = AppendTrailer([]byte("before"), &resp.Header)
	check("trailer", got, err)
}

func TestAppendResponseHead(t *testing.T) {
	response := func(status int, text string, fields ...string) *message.Response {
		r := &message.Response{Status: status}
		if text != "" {
			r.SetReason(text)
		}
		for i := 0; i < len(fields); i += 2 {
			r.Header.Add(fields[i], fields[i+1])
		}
		return r
	}
	tests := []struct {
		name string
		resp *message.Response
		f    OutFraming
		want string
	}{
		{"length", response(200, "", "X", "1"), OutFraming{Kind: Length, Length: 3}, "HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 3\r\n\r\n"},
		{"phrase", response(200, "Fine\r\nX: 1"), OutFraming{Kind: Length}, "HTTP/1.1 200 Fine  X: 1\r\nContent-Length: 0\r\n\r\n"},
		{"no phrase known", response(799, ""), OutFraming{Kind: Length}, "HTTP/1.1 799 \r\nContent-Length: 0\r\n\r\n"},
		{"chunked", response(200, ""), OutFraming{Kind: Chunked, Connection: "close"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"},
		{"close", response(200, "", "Content-Length", "9"), OutFraming{Kind: Close}, "HTTP/1.1 200 OK\r\n\r\n"},
		// RFC 9110, section 8.6: where Content-Length has no place.
		{"HEAD", response(200, "", "Content-Length", "9"), OutFraming{NoBody: true, Length: 9}, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"},
		{"HEAD unknown", response(200, "", "Content-Length", "9"), OutFraming{NoBody: true, Length: -1}, "HTTP/1.1 200 OK\r\n\r\n"},
		{"204", response(204, "", "Content-Length", "9"), OutFraming{NoBody: true, Length: 9}, "HTTP/1.1 204 No Content\r\n\r\n"},
		{"103", response(103, "", "Content-Length", "9", "Link", "x"), OutFraming{NoBody: true, Length: 9}, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"},
		{"304", response(304, ""), OutFraming{NoBody: true, Length: 9}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendResponseHead(nil, tt.resp, tt.f)
			if err != nil || string(got) != tt.want {
				t.Errorf("%v\ngot  %q\nwant %q", err, got, tt.want)
			}
		})
	}
}

func TestAppendChunks(t *testing.T) {
	// RFC 9112, section 7.1.
	b := AppendChunkHead(nil, 10)
	b = append(b, "0123456789"+ChunkEnd...)
	b = AppendChunkHead(b, 0x1f2e)
	if want := "a\r\n0123456789\r\n1f2e\r\n"; string(b) != want {
		t.Errorf("got %q", b)
	}
	var trailer message.Header
	trailer.Add("X-Sum", "1")
	trailer.Add("Content-Length", "5")
	trailer.Add("y", "")
	// RFC 9112, section 7.1.2; RFC 9110, section 6.5.1.
	if b, err := AppendTrailer(nil, &trailer); err != nil || string(b) != "0\r\nX-Sum: 1\r\ny: \r\n\r\n" {
		t.Errorf("got %q %v", b, err)
	}
	if d := decodeAll([]byte(LastChunk)); !d.done {
		t.Error("LastChunk does not end a body")
	}
}
