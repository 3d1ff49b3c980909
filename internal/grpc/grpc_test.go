package grpc

import "testing"

func TestIs(t *testing.T) {
	for v, want := range map[string]bool{
		"application/grpc": true, "Application/gRPC": true, "application/grpc+proto": true, "application/grpc;x=1": true,
		"application/grpc-web": false, "application/grpcx": false, "application/grp": false, "": false,
	} {
		if Is([]byte(v)) != want {
			t.Errorf("%q is taken for the other", v)
		}
	}
}

func TestStatus(t *testing.T) {
	for http, want := range map[int]int{
		400: 13, 401: 16, 403: 7, 404: 12, 405: 12, 408: 4, 413: 8, 418: 2, 429: 14, 431: 8, 499: 1, 500: 13, 501: 12, 502: 14, 503: 14, 504: 4, 599: 2,
	} {
		if got := Status(http); got != want {
			t.Errorf("%d is %d, want %d", http, got, want)
		}
	}
}

func TestMessage(t *testing.T) {
	for text, want := range map[string]string{"a b~": "a b~", "100%": "100%25", "\n\x7f": "%0A%7F", "ü": "%C3%BC"} {
		if got := Message(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
