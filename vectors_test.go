package cirque_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/internal/h1"
	"github.com/cirqueproxy/cirque/message"
	"github.com/cirqueproxy/cirque/reason"
)

// Vectors: hostile and odd messages, a group per file in testdata/vectors. A
// vector is a paragraph of lines `key: value`; keys that may be repeated add up.
//
//	vector  its name
//	why     the rule that decides, in our words
//	set     an option of the Server (option vectors): accept-both-lengths
//	send    bytes of the client; \r \n \t \0 \\ \{ \xNN, and {N*text} for N times text
//	end     the client ends its sending side after them
//	answer  bytes of the origin (response vectors); without it every request gets a 200
//	then    what the origin does after the answer: close, reset, or stay (the default)
//	status  what the client gets, one per response, 1xx included
//	conn    what becomes of the client's connection: keep, close, or cut (inside a body)
//	reason  why each session ended
//	origin  what the origin gets, exactly: heads, bodies without framing, trailers; or `nothing`
//	client  what the client gets, the same way; where it is absent anything is right
//	pool    whether the origin's connection serves the next request: reused or dropped
//
// After the bytes of a request vector the client sends vecNext in the same
// write: only where conn is keep may anybody ever see it. A response vector is
// followed by the same request, which must get its own answer.
type vector struct {
	file, name, why, option string
	line                    int
	send, answer            []byte
	end                     bool
	then, conn, pool        string
	status, reason          []string
	origin, client          []byte
	hasOrigin, hasClient    bool
	hasAnswer               bool
}

const (
	vecWait   = 10 * time.Second
	vecTarget = "/smuggled"
	// vecBothLengths is Server.AcceptBothLengths.
	vecBothLengths = "accept-both-lengths"

	vecNext = "GET " + vecTarget + " HTTP/1.1\r\nHost: next.test\r\n\r\n"
)

// loadVectors reads the vectors of the files whose names begin with prefix.
func loadVectors(t *testing.T, prefix string) []*vector {
	t.Helper()
	files, err := filepath.Glob("testdata/vectors/" + prefix + "*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors %s: %v", prefix, err)
	}
	var all []*vector
	seen := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(text), "\n") {
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			key, value, ok := strings.Cut(line, ":")
			if !ok {
				t.Fatalf("%s:%d: no colon", f, n+1)
			}
			value = strings.TrimPrefix(value, " ")
			if key == "vector" {
				if seen[value] {
					t.Fatalf("%s:%d: there is another %s", f, n+1, value)
				}
				seen[value] = true
				all = append(all, &vector{file: filepath.Base(f), line: n + 1, name: value, then: "stay"})
				continue
			}
			if err := all[len(all)-1].set(key, value); err != nil {
				t.Fatalf("%s:%d: %v", f, n+1, err)
			}
		}
	}
	return all
}

func (v *vector) set(key, value string) error {
	var err error
	switch key {
	case "why":
		v.why += value + " "
	case "set":
		v.option = value
		if v.option != vecBothLengths {
			err = fmt.Errorf("unknown option %q", value)
		}
	case "send":
		v.send, err = vecUnescape(v.send, value)
	case "answer":
		v.hasAnswer = true
		v.answer, err = vecUnescape(v.answer, value)
	case "end":
		v.end = true
	case "then":
		v.then = value
	case "conn":
		v.conn = value
	case "pool":
		v.pool = value
	case "status":
		v.status = strings.Fields(value)
	case "reason":
		v.reason = strings.Fields(value)
	case "origin":
		v.hasOrigin = true
		if value != "nothing" {
			v.origin, err = vecUnescape(v.origin, value)
		}
	case "client":
		v.hasClient = true
		v.client, err = vecUnescape(v.client, value)
	default:
		err = fmt.Errorf("unknown key %q", key)
	}
	return err
}

// vecUnescape appends what a line of bytes stands for.
func vecUnescape(dst []byte, s string) ([]byte, error) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return nil, errors.New("a { without }")
			}
			count, text, _ := strings.Cut(s[i+1:i+end], "*")
			n, err := strconv.Atoi(count)
			if err != nil {
				return nil, err
			}
			part, err := vecUnescape(nil, text)
			if err != nil {
				return nil, err
			}
			dst = append(dst, bytes.Repeat(part, n)...)
			i += end
		case s[i] != '\\':
			dst = append(dst, s[i])
		case i+1 == len(s):
			return nil, errors.New("a \\ at the end")
		default:
			i++
			at := strings.IndexByte("rnt0\\{", s[i])
			switch {
			case at >= 0:
				dst = append(dst, "\r\n\t\x00\\{"[at])
			case s[i] == 'x' && i+2 < len(s):
				n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
				if err != nil {
					return nil, err
				}
				dst = append(dst, byte(n))
				i += 2
			default:
				return nil, fmt.Errorf("unknown escape \\%c", s[i])
			}
		}
	}
	return dst, nil
}

// TestVectorTable checks the table itself.
func TestVectorTable(t *testing.T) {
	requests, responses := loadVectors(t, "requests-"), loadVectors(t, "responses-")
	if n := len(requests); n < 85 {
		t.Errorf("%d request vectors, want at least 85", n)
	}
	if n := len(responses); n < 45 {
		t.Errorf("%d response vectors, want at least 45", n)
	}
	reasons := map[string]bool{}
	for r := range reason.Len {
		reasons[reason.Reason(r).String()] = true
	}
	options := loadVectors(t, "options-")
	for _, v := range slices.Concat(requests, responses, options) {
		where := fmt.Sprintf("%s:%d: %s", v.file, v.line, v.name)
		if !strings.Contains(v.why, "RFC ") && !strings.Contains(v.why, "limit") {
			t.Errorf("%s: why names neither an RFC nor a limit", where)
		}
		if v.conn != "keep" && v.conn != "close" && v.conn != "cut" {
			t.Errorf("%s: conn is %q", where, v.conn)
		}
		for _, r := range v.reason {
			if !reasons[r] {
				t.Errorf("%s: reason %q is not in the list", where, r)
			}
		}
		if v.hasAnswer != strings.HasPrefix(v.file, "responses-") {
			t.Errorf("%s: an answer is what a response vector has", where)
		}
		if !v.hasAnswer && !v.hasOrigin {
			t.Errorf("%s: does not say what the origin sees", where)
		}
		if (v.option != "") != strings.HasPrefix(v.file, "options-") {
			t.Errorf("%s: an option is what an option vector sets", where)
		}
		if v.hasAnswer && v.pool != "reused" && v.pool != "dropped" {
			t.Errorf("%s: pool is %q", where, v.pool)
		}
	}
}

// vecOrigin is a scripted origin. It answers every request with a 200 that
// names the target, but for what the vector says.
type vecOrigin struct {
	net.Listener
	v      *vector
	single bool // writes byte by byte
	wg     sync.WaitGroup
	saidc  chan struct{} // closed when an answer was written to its end
	said   sync.Once

	mu    sync.Mutex
	got   bytes.Buffer   // Guarded by mu: complete requests
	cut   bytes.Buffer   // Guarded by mu: requests that ended inside their body
	conn  map[string]int // Guarded by mu: on which connection a target came
	conns []net.Conn     // Guarded by mu
}

func newVecOrigin(t *testing.T, v *vector, single bool) *vecOrigin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &vecOrigin{Listener: l, v: v, single: single, conn: map[string]int{}, saidc: make(chan struct{})}
	o.wg.Go(o.accept)
	return o
}

func (o *vecOrigin) accept() {
	for {
		c, err := o.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.conns = append(o.conns, c)
		n := len(o.conns)
		o.mu.Unlock()
		o.wg.Go(func() { o.serve(c, n) })
	}
}

// stop ends the origin and waits for its goroutines.
func (o *vecOrigin) stop() {
	o.Close()
	o.mu.Lock()
	for _, c := range o.conns {
		c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
}

func (o *vecOrigin) serve(c net.Conn, n int) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 1<<20)
	for {
		m, err := vecReadMessage(r, "request")
		o.mu.Lock()
		if err != nil {
			if len(m.head) > 0 {
				fmt.Fprintf(&o.cut, "%s%s", m.head, m.body)
			}
			o.mu.Unlock()
			return
		}
		fmt.Fprintf(&o.got, "%s%s%s", m.head, m.body, m.trailer)
		method, target, _ := strings.Cut(m.start, " ")
		target, _, _ = strings.Cut(target, " ")
		o.conn[target] = n
		o.mu.Unlock()
		if o.v.hasAnswer && target != vecTarget {
			if !o.answer(c) {
				return
			}
			continue
		}
		body := target
		if method == "HEAD" {
			body = ""
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Target: %s\r\nContent-Length: %d\r\n\r\n%s", target, len(target), body)
	}
}

// answer sends the vector's answer and reports whether the connection stays.
func (o *vecOrigin) answer(c net.Conn) bool {
	vecWrite(c, o.v.answer, o.single)
	o.said.Do(func() { close(o.saidc) })
	if o.v.then == "reset" {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	return o.v.then == "stay"
}

// vecWrite sends b, at once or byte by byte. A party that has closed is no
// failure of the writer.
func vecWrite(c net.Conn, b []byte, single bool) {
	if !single {
		_, _ = c.Write(b)
		return
	}
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return
		}
	}
}

// vecMessage is a message as a plain and slow reader has it, written apart from
// the codec under test.
type vecMessage struct {
	start   string
	head    string // all of it
	fields  map[string]string
	body    []byte
	trailer string
	chunked bool
	toEnd   bool // the body ended with the connection
	close   bool // the message says that the connection ends
}

func (m *vecMessage) status() string {
	if len(m.start) < 12 {
		return "?"
	}
	return m.start[9:12]
}

// vecReadMessage reads a request (method is "request") or the response to a
// request of the method. With an error, what was read is returned.
func vecReadMessage(r *bufio.Reader, method string) (*vecMessage, error) {
	m := &vecMessage{fields: map[string]string{}}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			m.head += line
			return m, err
		}
		m.head += line
		line = strings.TrimSuffix(line, "\r\n")
		if m.start == "" {
			m.start = line
			continue
		}
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		m.fields[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	m.close = strings.EqualFold(m.fields["connection"], "close")
	m.chunked = strings.EqualFold(m.fields["transfer-encoding"], "chunked")
	return m, m.readBody(r, method)
}

func (m *vecMessage) readBody(r *bufio.Reader, method string) error {
	length, told := m.fields["content-length"]
	if method != "request" {
		if s := m.status(); s[0] == '1' || s == "204" || s == "304" || method == "HEAD" {
			return nil
		}
		m.toEnd = !told && !m.chunked
	}
	switch {
	case m.chunked:
		return m.readChunks(r)
	case told:
		n, err := strconv.Atoi(length)
		if err != nil {
			return err
		}
		m.body = make([]byte, n)
		got, err := io.ReadFull(r, m.body)
		m.body = m.body[:got]
		return err
	case m.toEnd:
		m.close = true
		var err error
		m.body, err = io.ReadAll(r)
		return err
	}
	return nil
}

func (m *vecMessage) readChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(line, "\r\n"), 16, 31)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		b := make([]byte, n+2)
		got, err := io.ReadFull(r, b)
		m.body = append(m.body, b[:min(got, int(n))]...)
		if err != nil {
			return err
		}
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			return nil
		}
		m.trailer += line
	}
}

// vecVerdict is what happened.
type vecVerdict struct {
	status   []string // of all responses but that to vecNext
	conn     string
	client   string // what came, without framing
	pages    []string
	lastHead string
	reasons  []string
	origin   string // complete requests but vecNext
	partial  string // requests that the origin saw cut
	sawNext  bool   // the origin got vecNext
	pool     string
}

// vecMethods returns the methods of the requests in b as far as a client that
// sends them must know them.
func vecMethod(b []byte) string {
	if bytes.HasPrefix(bytes.TrimLeft(b, "\r\n"), []byte("HEAD ")) {
		return "HEAD"
	}
	return "GET"
}

// vecExchange talks to a proxy at addr as the client of a request vector.
func vecExchange(t *testing.T, addr string, v *vector, single bool, wait time.Duration) *vecVerdict {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		b := v.send
		if !v.end {
			b = append(slices.Clip(b), vecNext...)
		}
		vecWrite(c, b, single)
		if v.end {
			_ = c.(*net.TCPConn).CloseWrite()
		}
	})
	got := &vecVerdict{}
	r := bufio.NewReader(c)
	for {
		m, err := vecReadMessage(r, vecMethod(v.send))
		switch {
		case m.fields["x-target"] == vecTarget:
			got.conn = "keep"
			return got
		case err == nil:
			got.add(m)
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			got.conn = "stuck"
		case len(m.head) == 0:
			got.conn = "close"
		default:
			got.add(m)
			got.conn = "cut"
		}
		return got
	}
}

func (got *vecVerdict) add(m *vecMessage) {
	got.status = append(got.status, m.status())
	got.client += m.head + string(m.body) + m.trailer
	got.lastHead = m.head
	if s := m.status(); s >= "400" {
		got.pages = append(got.pages, string(m.body))
	}
}

// vecCirque is a Server in front of a scripted origin.
type vecCirque struct {
	addr    string
	origin  *vecOrigin
	srv     *cirque.Server
	tr      cirque.Transport
	servedc chan error

	mu      sync.Mutex
	reasons []string // Guarded by mu
}

func startVecCirque(t *testing.T, o *vecOrigin) *vecCirque {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &vecCirque{addr: l.Addr().String(), origin: o, servedc: make(chan error, 1)}
	peer := cirque.NewPeer(o.Addr().String())
	p.srv = &cirque.Server{
		Logger:            slog.New(slog.DiscardHandler),
		AcceptBothLengths: o.v.option == vecBothLengths,
		Proxy: &cirque.Proxy{
			Transport:  &p.tr,
			Retry:      cirque.Retry{Attempts: -1},
			Forwarding: cirque.Forwarding{NoXForwarded: true, Via: "-", RequestID: "-"},
			Peer:       func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
			Filters:    []cirque.Filter{{Name: "watch", Done: p.done}},
		},
	}
	go func() { p.servedc <- p.srv.Serve(l) }()
	return p
}

func (p *vecCirque) done(_ *cirque.Session, err error) {
	r := reason.None
	var e *cirque.Error
	if errors.As(err, &e) {
		r = e.Reason
	}
	p.mu.Lock()
	p.reasons = append(p.reasons, r.String())
	p.mu.Unlock()
}

// stop waits until every connection has ended: from then on nobody can parse
// anything any more. It completes the verdict.
func (p *vecCirque) stop(t *testing.T, got *vecVerdict) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), vecWait)
	defer cancel()
	if err := p.srv.Shutdown(ctx); err != nil {
		t.Errorf("connections did not end: %v", err)
	}
	if err := <-p.servedc; !errors.Is(err, cirque.ErrServerClosed) {
		t.Error(err)
	}
	p.tr.Close()
	p.origin.stop()
	p.mu.Lock()
	got.reasons = p.reasons
	p.mu.Unlock()
	got.takeOrigin(p.origin)
}

// takeOrigin notes what a stopped origin saw.
func (got *vecVerdict) takeOrigin(o *vecOrigin) {
	all := o.got.String()
	at := strings.Index(all, "GET "+vecTarget+" ")
	if got.sawNext = at >= 0; got.sawNext {
		all = all[:at]
	}
	got.origin, got.partial = all, o.cut.String()
	got.pool = "dropped"
	for target, n := range o.conn {
		if target != vecTarget && n == o.conn[vecTarget] {
			got.pool = "reused"
		}
	}
}

// vecDeliveries are the ways in which bytes are sent.
var vecDeliveries = []struct {
	name   string
	single bool
}{{"whole", false}, {"bytes", true}}

// vecTooLong is what is not sent byte by byte.
const vecTooLong = 4 << 10

// TestVectorRequests sends every request vector through a server.
func TestVectorRequests(t *testing.T) { vecRequests(t, "requests-") }

// TestVectorOptions does so with those that need an option of the server. No
// other party has it, so they are not compared.
func TestVectorOptions(t *testing.T) { vecRequests(t, "options-") }

func vecRequests(t *testing.T, prefix string) {
	for _, v := range loadVectors(t, prefix) {
		for _, d := range vecDeliveries {
			if d.single && len(v.send) > vecTooLong {
				continue
			}
			t.Run(v.name+"/"+d.name, func(t *testing.T) {
				t.Parallel()
				p := startVecCirque(t, newVecOrigin(t, v, false))
				got := vecExchange(t, p.addr, v, d.single, vecWait)
				p.stop(t, got)
				v.check(t, got, d.single)
			})
		}
	}
}

func (v *vector) check(t *testing.T, got *vecVerdict, single bool) {
	t.Helper()
	if !slices.Equal(got.status, v.status) || got.conn != v.conn {
		t.Errorf("client got %v %s, want %v %s\n%s", got.status, got.conn, v.status, v.conn, got.client)
	}
	want := v.reason
	if v.conn == "keep" {
		want = append(slices.Clip(want), "none")
	}
	if !slices.Equal(got.reasons, want) {
		t.Errorf("reasons %v, want %v", got.reasons, want)
	}
	if got.sawNext != (v.conn == "keep") {
		t.Errorf("the origin saw the request behind: %t", got.sawNext)
	}
	if got.origin != string(v.origin) {
		t.Errorf("the origin got\n%q, want\n%q", got.origin, v.origin)
	}
	// A body that goes on while it comes is cut when it turns out to be bad; one
	// that came with its head never leaves.
	if !single && len(v.send) <= vecTooLong && got.partial != "" {
		t.Errorf("the origin got a part:\n%q", got.partial)
	}
	v.checkPages(t, got)
	if v.hasClient && got.client != string(v.client) {
		t.Errorf("the client got\n%q, want\n%q", got.client, v.client)
	}
	// RFC 9112, section 9.6: the last response says that it is; to HTTP/1.0 that
	// goes without saying.
	says := strings.Contains(got.lastHead, "\r\nConnection: close\r\n")
	if !bytes.Contains(v.send, []byte(" HTTP/1.0\r\n")) && says != (v.conn == "close") {
		t.Errorf("conn is %s, but the last response says\n%s", v.conn, got.lastHead)
	}
}

// checkPages: an error page names its reason.
func (v *vector) checkPages(t *testing.T, got *vecVerdict) {
	t.Helper()
	var bad []string
	for _, r := range v.reason {
		if r != "none" {
			bad = append(bad, r)
		}
	}
	for i, page := range got.pages {
		if page != "" && i < len(bad) && !strings.Contains(page, "reason: "+bad[i]+"\n") {
			t.Errorf("the error page does not name %s:\n%s", bad[i], page)
		}
	}
}

// TestVectorResponses sends every response vector through a server.
func TestVectorResponses(t *testing.T) {
	for _, v := range loadVectors(t, "responses-") {
		for _, d := range vecDeliveries {
			if d.single && len(v.answer) > vecTooLong {
				continue
			}
			t.Run(v.name+"/"+d.name, func(t *testing.T) {
				t.Parallel()
				p := startVecCirque(t, newVecOrigin(t, v, d.single))
				got := &vecVerdict{}
				v.converse(t, p, got)
				p.stop(t, got)
				v.check2(t, got)
			})
		}
	}
}

// converse sends the request of a response vector and then vecNext, on the same
// connection if it is still there.
func (v *vector) converse(t *testing.T, p *vecCirque, got *vecVerdict) {
	t.Helper()
	send := v.send
	if send == nil {
		send = []byte("GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n")
	}
	c, r := vecDial(t, p.addr)
	defer func() { c.Close() }()
	vecWrite(c, send, false)
	for {
		m, err := vecReadMessage(r, vecMethod(send))
		if err != nil {
			got.conn = "cut"
			if errors.Is(err, os.ErrDeadlineExceeded) {
				got.conn = "stuck"
			}
		}
		if len(m.head) == 0 {
			break
		}
		if v.hasClient && !bytes.Contains(v.answer, []byte("\r\nDate:")) {
			m.head = vecWithoutDate(m.head)
		}
		got.add(m)
		if err != nil {
			break
		}
		if s := m.status(); s[0] != '1' {
			got.conn = "keep"
			if m.close || (bytes.Contains(send, []byte("HTTP/1.0\r\n")) && m.fields["connection"] == "") {
				got.conn = vecEOF(r)
			}
			break
		}
	}
	if got.conn != "keep" {
		c.Close()
		c, r = vecDial(t, p.addr)
	}
	// What the origin says too much may come byte by byte: nobody can tell what has
	// not been said yet.
	<-p.origin.saidc
	vecWrite(c, []byte(vecNext), false)
	m, err := vecReadMessage(r, "GET")
	if err != nil || m.status() != "200" || string(m.body) != vecTarget {
		t.Errorf("the next request got another answer than its own: %v\n%s%s", err, m.head, m.body)
	}
}

func vecDial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(vecWait))
	return c, bufio.NewReader(c)
}

// vecEOF reports what follows the last response of a connection.
func vecEOF(r *bufio.Reader) string {
	if b, err := r.Peek(1); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		return "not closed"
	}
	return "close"
}

func vecWithoutDate(head string) string {
	var kept strings.Builder
	for line := range strings.SplitAfterSeq(head, "\r\n") {
		if !strings.HasPrefix(line, "Date: ") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func (v *vector) check2(t *testing.T, got *vecVerdict) {
	t.Helper()
	if !slices.Equal(got.status, v.status) || got.conn != v.conn {
		t.Errorf("client got %v %s, want %v %s\n%s", got.status, got.conn, v.status, v.conn, got.client)
	}
	if want := append(slices.Clip(v.reason), "none"); !slices.Equal(got.reasons, want) {
		t.Errorf("reasons %v, want %v", got.reasons, want)
	}
	if got.pool != v.pool {
		t.Errorf("the origin's connection was %s, want %s", got.pool, v.pool)
	}
	v.checkPages(t, got)
	if v.hasClient && got.client != string(v.client) {
		t.Errorf("the client got\n%q, want\n%q", got.client, v.client)
	}
}

// vecCodecReasons are those that the codec alone decides on.
var vecCodecReasons = []reason.Reason{
	reason.BadRequest, reason.BadFraming, reason.BadHost, reason.BadVersion, reason.BadChunk,
	reason.HeadTooLarge, reason.TargetTooLong, reason.TrailerTooLarge, reason.BadExpect,
}

// TestVectorCodec gives each request vector to the codec whole and cut in two at
// every byte: where the cut is changes nothing.
func TestVectorCodec(t *testing.T) {
	for _, v := range slices.Concat(loadVectors(t, "requests-"), loadVectors(t, "options-")) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			rules := &h1.RequestRules{DropLength: v.option == vecBothLengths}
			all := append(slices.Clip(v.send), vecNext...)
			whole := vecDecode(rules, all)
			if len(v.reason) > 0 {
				last := v.reason[len(v.reason)-1]
				for _, r := range vecCodecReasons {
					// What never becomes a whole head is the connection's to judge.
					if r.String() == last && bytes.Contains(v.send, []byte("\r\n")) && !v.end && !strings.HasSuffix(whole, " "+last) {
						t.Errorf("the codec says %q, want %s", whole, last)
					}
				}
			}
			step := 1 + len(all)/vecTooLong*64
			for i := 0; i < len(all); i += step {
				if got := vecDecode(rules, all[:i], all[i:]); got != whole {
					t.Fatalf("cut at %d: %q, whole: %q", i, got, whole)
				}
			}
		})
	}
}

// vecDecode returns what a connection that gets the pieces one by one makes of
// them: targets and bodies, and how it ended.
func vecDecode(rules *h1.RequestRules, pieces ...[]byte) string {
	var (
		out     []string
		buf     []byte
		next    int
		inBody  bool
		req     message.Request
		meta    h1.RequestMeta
		decoder h1.ChunkDecoder
		body    []byte
		left    int64
	)
	limits := &h1.Limits{HeadBytes: 64 << 10, Fields: 100, TargetBytes: 16 << 10}
	for _, p := range pieces {
		buf = append(buf, p...)
		for progress := true; progress; {
			progress = false
			if !inBody {
				end, at, err := h1.HeadEnd(buf, next)
				next = at
				if end >= 0 && err == nil {
					req.Reset()
					meta = h1.RequestMeta{}
					err = h1.ParseRequest(buf[:end], limits, rules, &req, &meta)
				}
				if err != nil {
					return strings.Join(append(out, " "+err.(*h1.Error).Reason.String()), "")
				}
				if end < 0 {
					continue
				}
				buf, next, progress = append([]byte(nil), buf[end:]...), 0, true
				inBody, body, left = true, nil, req.Length()
				decoder.Reset()
			}
			n, consumed, done := int(min(left, int64(len(buf)))), 0, false
			var err error
			if meta.Framing == h1.Chunked {
				n, consumed, done, err = decoder.Decode(buf, &req.Trailer)
			} else {
				left -= int64(n)
				consumed, done = n, left == 0
			}
			body = append(body, buf[:n]...)
			buf = append([]byte(nil), buf[consumed:]...)
			if err != nil {
				return strings.Join(append(out, " "+err.(*h1.Error).Reason.String()), "")
			}
			if done {
				out = append(out, fmt.Sprintf("%s %q %d;", req.Target(), body, req.Trailer.Len()))
				inBody, progress = false, true
			}
		}
	}
	return strings.Join(out, "")
}
