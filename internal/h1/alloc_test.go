package h1

import (
	"testing"

	"github.com/cirqueproxy/cirque/message"
)

// chromeHead is what a Chrome of 2026 sends for a page behind a login.
const chromeHead = "GET /dashboard/projects/42?tab=activity&page=3 HTTP/1.1\r\n" +
	"Host: app.example.com\r\n" +
	"Connection: keep-alive\r\n" +
	"Cache-Control: max-age=0\r\n" +
	"sec-ch-ua: \"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n" +
	"sec-ch-ua-mobile: ?0\r\n" +
	"sec-ch-ua-platform: \"Linux\"\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7\r\n" +
	"Sec-Fetch-Site: same-origin\r\n" +
	"Sec-Fetch-Mode: navigate\r\n" +
	"Sec-Fetch-User: ?1\r\n" +
	"Sec-Fetch-Dest: document\r\n" +
	"Referer: https://app.example.com/dashboard/projects\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7\r\n" +
	"Cookie: session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0; theme=dark; _ga=GA1.1.1234567890.1700000000\r\n" +
	"If-None-Match: W/\"5f2b-18c0a7d2e10\"\r\n" +
	"\r\n"

// postHead is a small request of a program.
const postHead = "POST /api/v1/items HTTP/1.1\r\nHost: api.example.com:8443\r\nUser-Agent: client/1.2\r\n" +
	"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: 123\r\n\r\n"

const chunkedHead = "PUT http://files.example.com/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"

// smallResponse is what an origin says to most requests.
const smallResponse = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\n" +
	"Content-Type: application/json; charset=utf-8\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n" +
	"ETag: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\nCache-Control: no-cache\r\nVary: Accept-Encoding\r\n\r\n"

const chunkedBody = "5;a=b\r\nhello\r\n400\r\n{1024}\r\n0\r\nX-Sum: 1\r\nServer-Timing: a;dur=1\r\n\r\n"

var wideLimits = &Limits{HeadBytes: 64 << 10, Fields: 100, TargetBytes: 16 << 10}

// fatal is for code that counts allocations: it must not build messages.
func fatal(tb testing.TB, err error) {
	if err != nil {
		tb.Fatal(err)
	}
}

func TestAllocs(t *testing.T) {
	var (
		req     message.Request
		resp    message.Response
		trailer message.Header
		meta    RequestMeta
		upMeta  ResponseMeta
		decoder ChunkDecoder
		rules   ResponseRules
		err     error
		out     = make([]byte, 0, 8<<10)
		scratch = make([]byte, 4<<10)
	)
	heads := [][]byte{[]byte(chromeHead), []byte(postHead), []byte(chunkedHead)}
	small, body := []byte(smallResponse), expandBody()
	tests := []struct {
		name string
		run  func()
	}{
		{"ParseRequest", func() {
			for _, h := range heads {
				req.Reset()
				meta = RequestMeta{}
				_, _, err = HeadEnd(h, 0)
				fatal(t, err)
				fatal(t, ParseRequest(h, wideLimits, noRules, &req, &meta))
			}
		}},
		{"AppendRequestHead", func() {
			out, err = AppendRequestHead(out[:0], &req, OutFraming{Kind: Length, Length: 7, Connection: "upgrade"})
			fatal(t, err)
		}},
		{"ParseResponse", func() {
			fatal(t, ParseResponse(small, wideLimits, "GET", &rules, &resp, &upMeta))
		}},
		{"AppendResponseHead", func() {
			out, err = AppendResponseHead(out[:0], &resp, OutFraming{Kind: Chunked, Connection: "close"})
			fatal(t, err)
		}},
		{"ChunkDecoder", func() {
			decoder.Reset()
			trailer.Reset()
			_, _, _, err = decoder.Decode(scratch[:copy(scratch, body)], &trailer)
			fatal(t, err)
		}},
		{"AppendTrailer", func() {
			out = AppendChunkHead(out[:0], 1<<20)
			out, err = AppendTrailer(out, &trailer)
			fatal(t, err)
		}},
	}
	for _, tt := range tests {
		if n := testing.AllocsPerRun(100, tt.run); n != 0 {
			t.Errorf("%s: %v allocations in the steady state", tt.name, n)
		}
	}
}

func expandBody() []byte {
	const mark = "{1024}"
	var b []byte
	for i := 0; i < len(chunkedBody); i++ {
		if i+len(mark) <= len(chunkedBody) && chunkedBody[i:i+len(mark)] == mark {
			b = append(b, make([]byte, 1024)...)
			i += len(mark) - 1
			continue
		}
		b = append(b, chunkedBody[i])
	}
	return b
}

func BenchmarkParseRequestChrome(b *testing.B) { benchmarkParseRequest(b, chromeHead) }

func BenchmarkParseRequestSmall(b *testing.B) { benchmarkParseRequest(b, postHead) }

func benchmarkParseRequest(b *testing.B, text string) {
	var req message.Request
	var meta RequestMeta
	head := []byte(text)
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		req.Reset()
		meta = RequestMeta{}
		end, _, err := HeadEnd(head, 0)
		if err == nil {
			err = ParseRequest(head[:end], wideLimits, noRules, &req, &meta)
		}
		fatal(b, err)
	}
}

func BenchmarkParseResponseSmall(b *testing.B) {
	var resp message.Response
	var meta ResponseMeta
	var rules ResponseRules
	head := []byte(smallResponse)
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		end, _, err := HeadEnd(head, 0)
		if err == nil {
			err = ParseResponse(head[:end], wideLimits, "GET", &rules, &resp, &meta)
		}
		fatal(b, err)
	}
}

func BenchmarkAppendRequestChrome(b *testing.B) {
	var req message.Request
	var meta RequestMeta
	fatal(b, ParseRequest([]byte(chromeHead), wideLimits, noRules, &req, &meta))
	out := make([]byte, 0, 8<<10)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		out, err = AppendRequestHead(out[:0], &req, OutFraming{})
		fatal(b, err)
	}
}

func BenchmarkAppendResponseSmall(b *testing.B) {
	var resp message.Response
	var meta ResponseMeta
	fatal(b, ParseResponse([]byte(smallResponse), wideLimits, "GET", &ResponseRules{}, &resp, &meta))
	out := make([]byte, 0, 8<<10)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		out, err = AppendResponseHead(out[:0], &resp, OutFraming{Kind: Length, Length: 1024})
		fatal(b, err)
	}
}

func BenchmarkChunkDecoder(b *testing.B) {
	body := expandBody()
	scratch := make([]byte, len(body))
	var c ChunkDecoder
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		c.Reset()
		_, _, _, err := c.Decode(scratch[:copy(scratch, body)], nil)
		fatal(b, err)
	}
}
