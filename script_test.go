package cirque_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httputil"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/balance"
)

// Wire scripts: what both ends of the proxy see, one story per file in
// testdata/scripts. A line is
//
//	client> text     the client sends the text and CRLF
//	client>> text    the client sends the text alone; \r \n \t \\ \xNN, and {N*c} for N times c
//	client< text     the client receives the text and CRLF; a * stands for anything
//	client<< text    the client receives the text alone
//	client fin       the client ends its sending side; also: close, reset
//	client eof       the client sees the connection's end; cut: an end or a reset
//	origin ...       the same for the origin's present connection; origin next: accept another
//	origin none      no further connection is made
//	set NAME VALUE   a setting, before anything else; see settings
//	done STATUS REASON   a session has ended with the status and the reason
//	connects N, reuses N, strays N   the Transport's counters
//	parked 1         the client's connection is parked
//	trickle text     the origin sends the text again and again, until the client gets something
//	chunks text      the client receives the text in chunks, and their end
//
// A client that sends when it has no connection makes one.

const scriptWait = 5 * time.Second

type script struct {
	t       *testing.T
	file    string
	line    int
	srv     *cirque.Server
	proxy   *cirque.Proxy
	peer    *cirque.Peer
	origin  net.Listener
	front   net.Listener
	client  *end
	up      *end
	donec   chan doneRecord
	started bool
	wg      sync.WaitGroup
}

type doneRecord struct {
	status int
	reason string
}

// end is one party's connection.
type end struct {
	net.Conn
	r *bufio.Reader
}

func newEnd(c net.Conn) *end { return &end{c, bufio.NewReaderSize(c, 1<<20)} }

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			t.Parallel()
			runScript(t, f)
		})
	}
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, file: file, donec: make(chan doneRecord, 100)}
	s.setup()
	defer s.teardown()
	for i, line := range strings.Split(string(text), "\n") {
		s.line = i + 1
		if line = strings.TrimRight(line, " \t"); line == "" || line[0] == '#' {
			continue
		}
		s.step(line)
	}
}

func (s *script) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s:%d: %s", s.file, s.line, fmt.Sprintf(format, args...))
}

func (s *script) setup() {
	var err error
	if s.origin, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		s.t.Fatal(err)
	}
	if s.front, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		s.t.Fatal(err)
	}
	s.peer = &cirque.Peer{Addr: s.origin.Addr().String(), Name: "origin"}
	s.proxy = &cirque.Proxy{
		Name:       "test",
		Transport:  &cirque.Transport{},
		Forwarding: cirque.Forwarding{NoXForwarded: true, Via: "-", RequestID: "-"},
		Peer:       func(*cirque.Session) (*cirque.Peer, error) { return s.peer, nil },
		LogError:   func(*cirque.Session, *cirque.Error) {},
	}
	s.srv = &cirque.Server{Proxy: s.proxy, Logger: slog.New(slog.DiscardHandler)}
}

// start makes the server live: nothing can be set after it.
func (s *script) start() {
	if s.started {
		return
	}
	s.started = true
	s.proxy.Filters = append(s.proxy.Filters, cirque.Filter{Name: "recorder", Done: func(x *cirque.Session, err error) {
		r := doneRecord{x.Response().Status, "none"}
		var e *cirque.Error
		if errors.As(err, &e) {
			r.reason = e.Reason.String()
		}
		s.donec <- r
	}})
	s.wg.Go(func() { _ = s.srv.Serve(s.front) })
}

func (s *script) teardown() {
	s.start()
	for _, e := range []*end{s.client, s.up} {
		if e != nil {
			e.Close()
		}
	}
	s.origin.Close()
	s.srv.Close()
	s.wg.Wait()
	s.proxy.Transport.Close()
}

func (s *script) step(line string) {
	word, rest, _ := strings.Cut(line, " ")
	switch strings.TrimRight(word, "<>") {
	case "set":
		name, value, _ := strings.Cut(rest, " ")
		set := settings[name]
		if set == nil || s.started {
			s.fatalf("cannot set %q here", name)
		}
		if err := set(s, value); err != nil {
			s.fatalf("%v", err)
		}
	case "done":
		s.wantDone(rest)
	case "connects":
		s.wantCount("connects", s.proxy.Transport.Stats().Connects, rest)
	case "reuses":
		s.wantCount("reuses", s.proxy.Transport.Stats().Reuses, rest)
	case "strays":
		s.wantCount("strays", s.proxy.Transport.Stats().Strays, rest)
	case "parked":
		for deadline := time.Now().Add(scriptWait); s.srv.Stats().ConnsParked != 1; {
			if time.Now().After(deadline) {
				s.fatalf("the connection is not parked")
			}
			runtime.Gosched()
		}
	case "trickle":
		s.trickle(unescape(rest))
	case "chunks":
		s.wantChunks(unescape(rest))
	case "client":
		s.start()
		if s.client == nil {
			c, err := net.Dial("tcp", s.front.Addr().String())
			if err != nil {
				s.fatalf("%v", err)
			}
			s.client = newEnd(c)
		}
		s.act(&s.client, word, rest)
	case "origin":
		s.start()
		if rest == "none" {
			s.wantNoOrigin()
			return
		}
		if s.up == nil || rest == "next" {
			s.accept()
		}
		if rest != "next" {
			s.act(&s.up, word, rest)
		}
	default:
		s.fatalf("unknown line %q", line)
	}
}

func (s *script) accept() {
	_ = s.origin.(*net.TCPListener).SetDeadline(time.Now().Add(scriptWait))
	c, err := s.origin.Accept()
	if err != nil {
		s.fatalf("no connection to the origin: %v", err)
	}
	if s.up != nil {
		s.up.Close()
	}
	s.up = newEnd(c)
}

func (s *script) wantNoOrigin() {
	_ = s.origin.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond))
	if c, err := s.origin.Accept(); err == nil {
		c.Close()
		s.fatalf("a connection to the origin was made")
	}
}

func (s *script) act(e **end, word, rest string) {
	_ = (*e).SetDeadline(time.Now().Add(scriptWait))
	switch {
	case strings.HasSuffix(word, ">>"):
		s.send(*e, unescape(rest))
	case strings.HasSuffix(word, ">"):
		s.send(*e, unescape(rest)+"\r\n")
	case strings.HasSuffix(word, "<<"):
		s.receive(*e, unescape(rest))
	case strings.HasSuffix(word, "<"):
		s.receiveLine(*e, rest)
	default:
		s.command(e, rest)
	}
}

func (s *script) command(e **end, what string) {
	switch what {
	case "fin":
		if err := (*e).Conn.(*net.TCPConn).CloseWrite(); err != nil {
			s.fatalf("%v", err)
		}
	case "reset":
		_ = (*e).Conn.(*net.TCPConn).SetLinger(0)
		(*e).Close()
		*e = nil
	case "close":
		(*e).Close()
		*e = nil
	case "eof", "cut":
		rest, err := io.ReadAll((*e).r)
		if len(rest) > 0 {
			s.fatalf("got %q before the end", clip(rest))
		}
		if err != nil && (what == "eof" || isTimeout(err)) {
			s.fatalf("no clean end: %v", err)
		}
	default:
		s.fatalf("unknown command %q", what)
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func (s *script) send(e *end, text string) {
	if _, err := e.Write([]byte(text)); err != nil {
		s.fatalf("send: %v", err)
	}
}

func (s *script) receive(e *end, want string) {
	got := make([]byte, len(want))
	n, err := io.ReadFull(e.r, got)
	if err != nil || string(got) != want {
		s.fatalf("got %q (%v), want %q", clip(got[:n]), err, clip([]byte(want)))
	}
}

func (s *script) receiveLine(e *end, want string) {
	got, err := e.r.ReadString('\n')
	if err != nil || !strings.HasSuffix(got, "\r\n") || !match(strings.TrimSuffix(got, "\r\n"), want) {
		s.fatalf("got %q (%v), want %q", got, err, want)
	}
}

// match reports whether got is want, where each * stands for anything.
func match(got, want string) bool {
	parts := strings.Split(want, "*")
	if len(parts) == 1 {
		return got == want
	}
	if !strings.HasPrefix(got, parts[0]) {
		return false
	}
	got = got[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		_, after, ok := strings.Cut(got, p)
		if !ok {
			return false
		}
		got = after
	}
	return strings.HasSuffix(got, parts[len(parts)-1])
}

func clip(b []byte) []byte {
	if len(b) > 300 {
		return append(bytes.Clone(b[:300]), "..."...)
	}
	return b
}

// trickle has the origin send text again and again, until the client hears
// something.
func (s *script) trickle(text string) {
	for range 1000 {
		if _, err := s.up.Write([]byte(text)); err != nil {
			return
		}
		_ = s.client.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := s.client.r.Peek(1); err == nil {
			return
		}
	}
	s.fatalf("the head was waited for without end")
}

func (s *script) wantChunks(want string) {
	_ = s.client.SetDeadline(time.Now().Add(scriptWait))
	got, err := io.ReadAll(httputil.NewChunkedReader(s.client.r))
	if err != nil || string(got) != want {
		s.fatalf("got %q (%v), want %q", clip(got), err, clip([]byte(want)))
	}
	s.receive(s.client, "\r\n")
}

func (s *script) wantDone(want string) {
	select {
	case r := <-s.donec:
		if got := fmt.Sprintf("%d %s", r.status, r.reason); got != want {
			s.fatalf("the session ended with %s, want %s", got, want)
		}
	case <-time.After(scriptWait):
		s.fatalf("no session ended")
	}
}

func (s *script) wantCount(what string, got int64, want string) {
	if strconv.FormatInt(got, 10) != want {
		s.fatalf("%s: got %d, want %s", what, got, want)
	}
}

// unescape reads the escapes of a script line.
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		switch {
		case s[0] == '\\' && len(s) > 1:
			switch s[1] {
			case 'r':
				b.WriteByte('\r')
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'x':
				n, _ := strconv.ParseUint(s[2:4], 16, 8)
				b.WriteByte(byte(n))
				s = s[2:]
			default:
				b.WriteByte(s[1])
			}
			s = s[2:]
		case s[0] == '{' && strings.Contains(s, "}") && strings.Contains(s, "*"):
			inner, after, _ := strings.Cut(s[1:], "}")
			count, text, _ := strings.Cut(inner, "*")
			n, err := strconv.Atoi(count)
			if err != nil {
				b.WriteByte(s[0])
				s = s[1:]
				continue
			}
			b.WriteString(strings.Repeat(text, n))
			s = after
		default:
			b.WriteByte(s[0])
			s = s[1:]
		}
	}
	return b.String()
}

func durationSetting(p func(s *script) *time.Duration) func(*script, string) error {
	return func(s *script, v string) error {
		d, err := time.ParseDuration(v)
		*p(s) = d
		return err
	}
}

func boolSetting(p func(s *script) *bool) func(*script, string) error {
	return func(s *script, _ string) error {
		*p(s) = true
		return nil
	}
}

func intSetting(p func(s *script) *int) func(*script, string) error {
	return func(s *script, v string) error {
		n, err := strconv.Atoi(v)
		*p(s) = n
		return err
	}
}

// settings are what a script may set.
var settings = map[string]func(*script, string) error{
	"head-timeout":       durationSetting(func(s *script) *time.Duration { return &s.srv.ReadHeaderTimeout }),
	"idle-timeout":       durationSetting(func(s *script) *time.Duration { return &s.srv.IdleTimeout }),
	"body-timeout":       durationSetting(func(s *script) *time.Duration { return &s.srv.BodyTimeout }),
	"park-after":         durationSetting(func(s *script) *time.Duration { return &s.srv.ParkAfter }),
	"connect-timeout":    durationSetting(func(s *script) *time.Duration { return &s.peer.Timeouts.Connect }),
	"first-byte-timeout": durationSetting(func(s *script) *time.Duration { return &s.peer.Timeouts.FirstByte }),
	"read-timeout":       durationSetting(func(s *script) *time.Duration { return &s.peer.Timeouts.Read }),
	"peer-idle-timeout":  durationSetting(func(s *script) *time.Duration { return &s.peer.Timeouts.Idle }),
	"total-timeout":      durationSetting(func(s *script) *time.Duration { return &s.proxy.Timeouts.Total }),
	"tunnel-timeout":     durationSetting(func(s *script) *time.Duration { return &s.proxy.Timeouts.Tunnel }),
	"per-try":            durationSetting(func(s *script) *time.Duration { return &s.proxy.Retry.PerTry }),
	"half-close":         boolSetting(func(s *script) *bool { return &s.srv.AllowHalfClose }),
	"h2c":                boolSetting(func(s *script) *bool { return &s.srv.H2C }),
	"drain-early":        boolSetting(func(s *script) *bool { return &s.srv.DrainEarlyUploads }),
	"both-lengths":       boolSetting(func(s *script) *bool { return &s.srv.AcceptBothLengths }),
	"allow-connect":      boolSetting(func(s *script) *bool { return &s.proxy.AllowConnect }),
	"drop-interim":       boolSetting(func(s *script) *bool { return &s.proxy.DropInterim }),
	"keep-hop-by-hop":    boolSetting(func(s *script) *bool { return &s.proxy.KeepHopByHop }),
	"accept-bad-length":  boolSetting(func(s *script) *bool { return &s.peer.AcceptBadLength }),
	"non-idempotent":     boolSetting(func(s *script) *bool { return &s.proxy.Retry.NonIdempotent }),
	"max-requests":       intSetting(func(s *script) *int { return &s.srv.MaxRequests }),
	"max-header-bytes":   intSetting(func(s *script) *int { return &s.srv.MaxHeaderBytes }),
	"peer-max-requests":  intSetting(func(s *script) *int { return &s.peer.MaxRequests }),
	"attempts":           intSetting(func(s *script) *int { return &s.proxy.Retry.Attempts }),
	"replay-bytes":       intSetting(func(s *script) *int { return &s.proxy.Retry.ReplayBytes }),
	"peer": func(s *script, v string) error {
		s.peer.Addr = v
		return nil
	},
	"second-peer": func(s *script, v string) error {
		g := balance.RoundRobin(v, s.peer.Addr)
		s.proxy.Peer = g.Peer
		return nil
	},
	"max-body": func(s *script, v string) (err error) {
		s.proxy.MaxRequestBody, err = strconv.ParseInt(v, 10, 64)
		return err
	},
	"drain-bytes": func(s *script, v string) (err error) {
		s.srv.DrainBytes, err = strconv.ParseInt(v, 10, 64)
		return err
	},
	"via": func(s *script, v string) error {
		s.proxy.Forwarding.Via = v
		return nil
	},
	"x-forwarded": func(s *script, _ string) error {
		s.proxy.Forwarding.NoXForwarded = false
		return nil
	},
	"forwarded": func(s *script, _ string) error {
		s.proxy.Forwarding.Forwarded = true
		return nil
	},
	"filter": func(s *script, v string) error {
		f, ok := scriptFilters[v]
		if !ok {
			return fmt.Errorf("no filter %q", v)
		}
		f.Name = v
		s.proxy.Filters = append(s.proxy.Filters, f)
		return nil
	},
}

// scriptFilters are what a script may put into the proxy.
var scriptFilters = map[string]cirque.Filter{
	"refuse-403": {Request: func(s *cirque.Session) error {
		return cirque.Reject(403, errors.New("not you"))
	}},
	"respond": {Request: func(s *cirque.Session) error {
		return s.Respond(200, "local\n")
	}},
	"own-limits": {Request: func(s *cirque.Session) error {
		if !s.Request().Header.Has("X-Own") {
			return nil
		}
		s.SetTimeouts(cirque.Timeouts{FirstByte: 150 * time.Millisecond})
		return s.SetClientLimits(cirque.ClientLimits{Body: 150 * time.Millisecond})
	}},
	"panic-request":  {Request: func(s *cirque.Session) error { panic("request") }},
	"panic-response": {Response: func(s *cirque.Session) error { panic("response") }},
	"panic-body": {ResponseBody: func(s *cirque.Session, b []byte, last bool) ([]byte, error) {
		panic("body")
	}},
	"bad-field": {Response: func(s *cirque.Session) error {
		s.Response().Header.Set("X-Bad", "a\r\nSet-Cookie: b")
		return nil
	}},
	"upper": {
		RequestBody: func(s *cirque.Session, b []byte, last bool) ([]byte, error) {
			return bytes.ToUpper(b), nil
		},
		ResponseBody: func(s *cirque.Session, b []byte, last bool) ([]byte, error) {
			return bytes.ToUpper(b), nil
		},
	},
	"edit": {
		UpstreamRequest: func(s *cirque.Session) error {
			s.UpstreamRequest().Header.Set("X-Up", "1")
			return nil
		},
		Response: func(s *cirque.Session) error {
			s.Response().Header.Set("X-Down", "2")
			return nil
		},
	},
	"grow": {
		Response: func(s *cirque.Session) error {
			s.Response().SetLength(-1)
			return nil
		},
		ResponseBody: func(s *cirque.Session, b []byte, last bool) ([]byte, error) {
			if last {
				return append(bytes.Clone(b), "more\n"...), nil
			}
			return b, nil
		},
	},
	"buffer": {Request: func(s *cirque.Session) error {
		b, err := s.BufferRequest(10)
		s.Request().Header.Set("X-Size", strconv.Itoa(len(b)))
		return err
	}},
}
