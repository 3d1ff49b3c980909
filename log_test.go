package cirque_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"

	"github.com/cirqueproxy/cirque"
)

// TestFailureIsLogged: row X14: one line with side, reason, peer, attempt and
// cause; LogError takes its place.
func TestFailureIsLogged(t *testing.T) {
	for _, own := range []bool{false, true} {
		var log bytes.Buffer
		var got *cirque.Error
		b := newBed(t, http.NotFoundHandler())
		b.srv.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		b.proxy.LogError = nil
		if own {
			b.proxy.LogError = func(_ *cirque.Session, e *cirque.Error) { got = e }
		}
		b.peer = &cirque.Peer{Addr: "127.0.0.1:1", Name: "dead"}
		b.want(b.client(), "GET", "/x", "", 502, "")
		b.done()
		if own {
			if got == nil || got.Peer != "dead" || log.Len() > 0 {
				t.Errorf("LogError got %v, the log %q", got, log.Bytes())
			}
			continue
		}
		var line map[string]any
		if err := json.Unmarshal(log.Bytes(), &line); err != nil {
			t.Fatalf("not one line: %q, %v", log.Bytes(), err)
		}
		for key, want := range map[string]any{
			"side": "upstream", "reason": "connect_refused", "peer": "dead", "attempt": 3.0, "sent": false,
			"status": 502.0, "method": "GET", "path": "/x", "route": "test", "client": "127.0.0.1",
		} {
			if line[key] != want {
				t.Errorf("%s is %v, want %v", key, line[key], want)
			}
		}
		if s, _ := line["cause"].(string); s == "" || line["request_id"] == "" {
			t.Errorf("no cause or id: %v", line)
		}
	}
}
