//go:build outer

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// talk is a conversation over a WebSocket as its client has it: the server
// greets, the client does one thing after the other, and what each end saw is
// a list of lines. Two ways to the same server must give equal lists.
type talk struct {
	URL      string `json:"url"`
	CA       string `json:"ca,omitempty"` // file that verifies a wss URL's server
	HTTP2    bool   `json:"-"`            // by extended CONNECT (RFC 8441)
	Compress bool   `json:"compress"`
	Early    string `json:"-"` // a message sent together with the handshake, by the client in Go
	Ops      []op   `json:"ops"`
}

// op is one thing that a client does.
type op struct {
	// Do is send (a message, which the server echoes), push (ask for Count
	// messages), ping, pinged (ask to be pinged), close, be closed (ask for it),
	// vanish (without a close), be left, or half (end the own direction, and read on).
	Do     string `json:"do"`
	Kind   string `json:"kind,omitempty"` // text or binary
	Seed   string `json:"seed,omitempty"` // of the content
	Size   int    `json:"size"`
	Cuts   []int  `json:"cuts,omitempty"` // where the message is cut into fragments
	Count  int    `json:"count"`
	Code   int    `json:"code,omitempty"`
	Reason string `json:"reason"`
}

// talkLimit bounds the messages of both ends.
const talkLimit = 4 << 20

// talkWait bounds a conversation.
const talkWait = 15 * time.Second

// randomTalk is a conversation that follows from its seed.
func randomTalk(seed uint64) talk {
	r := rand.New(rand.NewPCG(seed, 1))
	t := talk{Compress: seed%2 == 0}
	if r.IntN(3) == 0 {
		sizes := []int{1, 100, 125, 126, 1000, 5000}
		t.Early = string(fill("text", fmt.Sprint("early", seed), sizes[r.IntN(len(sizes))]))
	}
	kinds := []string{"text", "binary"}
	for i := range 2 + r.IntN(10) {
		o := op{Seed: fmt.Sprintf("%d-%d", seed, i), Kind: kinds[r.IntN(2)]}
		// Sizes around those at which the frame's length takes more bytes, and
		// around those of buffers.
		edges := []int{0, 1, 125, 126, 4095, 4096, 16384, 65535, 65536, 100000}
		o.Size = max(0, edges[r.IntN(len(edges))]+r.IntN(3)-1)
		switch n := r.IntN(10); {
		case n < 6:
			o.Do = "send"
			for at := 0; r.IntN(3) == 0 && at < o.Size; {
				at += r.IntN(o.Size - at + 1)
				o.Cuts = append(o.Cuts, at)
			}
		case n < 8:
			o.Do, o.Count, o.Size = "push", 1+r.IntN(20), o.Size%5000
		case n < 9:
			o.Do = "ping"
		default:
			o.Do = "pinged"
		}
		t.Ops = append(t.Ops, o)
	}
	ends := []op{
		{Do: "close", Code: 1000, Reason: "bye"}, {Do: "close", Code: 4001}, {Do: "be closed", Code: 1001, Reason: "going"},
		{Do: "be closed", Code: 4999, Reason: "a reason with spaces"}, {Do: "vanish"}, {Do: "be left"},
		{Do: "half", Seed: fmt.Sprint("half", seed), Count: r.IntN(5), Size: r.IntN(20000)},
	}
	t.Ops = append(t.Ops, ends[r.IntN(len(ends))])
	return t
}

// fill returns bytes that follow from the seed, as sockets.py makes them.
func fill(kind, seed string, size int) []byte {
	var b []byte
	for i := 0; len(b) < size; i++ {
		sum := sha256.Sum256([]byte(seed + ":" + strconv.Itoa(i)))
		if kind == "text" {
			b = hex.AppendEncode(b, sum[:])
		} else {
			b = append(b, sum[:]...)
		}
	}
	return b[:size]
}

// end is one end of a WebSocket. A goroutine reads, as the library wants it:
// without a reader nobody answers pings.
type end struct {
	c   *websocket.Conn
	ctx context.Context
	in  chan wsMessage
	err error // why in was closed
	log []string

	half func() error // ends the own direction; the client's alone
}

type wsMessage struct {
	kind websocket.MessageType
	data []byte
}

func newEnd(ctx context.Context, c *websocket.Conn) *end {
	c.SetReadLimit(talkLimit)
	e := &end{c: c, ctx: ctx, in: make(chan wsMessage)}
	go func() {
		defer close(e.in)
		for {
			kind, data, err := c.Read(ctx)
			if err != nil {
				e.err = err
				return
			}
			select {
			case e.in <- wsMessage{kind, data}:
			case <-ctx.Done():
				e.err = ctx.Err()
				return
			}
		}
	}()
	return e
}

func (e *end) say(format string, args ...any) { e.log = append(e.log, fmt.Sprintf(format, args...)) }

// receive returns the next message. At the end it notes how that came.
func (e *end) receive() (wsMessage, bool) {
	m, ok := <-e.in
	if !ok {
		var closed websocket.CloseError
		if errors.As(e.err, &closed) {
			e.say("closed %d %s", closed.Code, closed.Reason)
		} else {
			e.say("closed 1006 ")
		}
	}
	return m, ok
}

func (m wsMessage) String() string {
	kind := "binary"
	if m.kind == websocket.MessageText {
		kind = "text"
	}
	return fmt.Sprintf("%s %d %s", kind, len(m.data), hashOf(m.data))
}

// send sends a message in fragments.
func (e *end) send(kind string, data []byte, cuts []int) error {
	typ := websocket.MessageBinary
	if kind == "text" {
		typ = websocket.MessageText
	}
	if len(cuts) == 0 {
		return e.c.Write(e.ctx, typ, data)
	}
	w, err := e.c.Writer(e.ctx, typ)
	if err != nil {
		return err
	}
	from := 0
	for _, to := range append(cuts[:len(cuts):len(cuts)], len(data)) {
		if _, err := w.Write(data[from:to]); err != nil {
			return err
		}
		from = to
	}
	return w.Close()
}

// note waits for a message and notes it; false means that there is none.
func (e *end) note() bool {
	m, ok := e.receive()
	if ok {
		e.say("%s", m)
	}
	return ok
}

// step does one thing and reports whether there can be another.
func (e *end) step(o op) bool {
	var err error
	switch o.Do {
	case "send":
		data := fill(o.Kind, o.Seed, o.Size)
		if err = e.send(o.Kind, data, o.Cuts); err != nil {
			break
		}
		m, ok := e.receive()
		if ok && !bytes.Equal(m.data, data) {
			e.say("wrong echo of %d bytes %s", len(data), hashOf(data))
		}
		if ok {
			e.say("%s", m)
		}
		return ok
	case "push":
		err = e.send("text", fmt.Appendf(nil, "!push %d %d %s", o.Count, o.Size, o.Seed), nil)
		for range o.Count {
			if err == nil && !e.note() {
				return false
			}
		}
	case "ping":
		if err = e.c.Ping(e.ctx); err == nil {
			e.say("pong")
		}
	case "pinged":
		if err = e.send("text", []byte("!ping"), nil); err == nil {
			return e.note()
		}
	default:
		e.finish(o)
		return false
	}
	if err != nil {
		e.say("failed: %v", err)
	}
	return err == nil
}

// finish does the last thing of a conversation.
func (e *end) finish(o op) {
	switch o.Do {
	case "close":
		if err := e.c.Close(websocket.StatusCode(o.Code), o.Reason); err != nil {
			e.say("failed: %v", err)
			return
		}
		e.say("closed it")
	case "be closed":
		_ = e.send("text", fmt.Appendf(nil, "!close %d %s", o.Code, o.Reason), nil)
		e.note()
	case "vanish":
		_ = e.c.CloseNow()
		e.say("vanished")
	case "be left":
		_ = e.send("text", []byte("!vanish"), nil)
		e.note()
	case "half":
		// What the server says after it has seen the end still has to arrive.
		_ = e.send("text", fmt.Appendf(nil, "!late %d %d %s", o.Count, o.Size, o.Seed), nil)
		e.note()
		if err := e.half(); err != nil {
			e.say("failed: %v", err)
			return
		}
		for e.note() {
		}
	}
}

// have has the conversation and returns what the client saw.
func (t talk) have() []string {
	ctx, cancel := context.WithTimeout(context.Background(), talkWait)
	defer cancel()
	way, err := t.way()
	if err != nil {
		return []string{err.Error()}
	}
	defer way.close()
	o := &websocket.DialOptions{Subprotocols: []string{"talk.v1"}, HTTPClient: &http.Client{Transport: way}}
	if t.Compress {
		o.CompressionMode = websocket.CompressionContextTakeover
	}
	c, resp, err := websocket.Dial(ctx, t.URL, o)
	if err != nil {
		if resp != nil {
			return []string{fmt.Sprintf("refused %d %s", resp.StatusCode, resp.Header.Get("X-Why"))}
		}
		return []string{err.Error()}
	}
	defer c.CloseNow()
	e := newEnd(ctx, c)
	e.say("%s compressed=%t", c.Subprotocol(), resp.Header.Get("Sec-Websocket-Extensions") != "")
	ok := e.note()
	if ok && t.Early != "" {
		ok = e.note() // its echo
	}
	e.half = way.half
	for ; ok && len(t.Ops) > 0; t.Ops = t.Ops[1:] {
		ok = e.step(t.Ops[0])
	}
	if ctx.Err() != nil {
		e.say("it took too long")
	}
	cancel()
	for range e.in {
	}
	return e.log
}

// talkServer is the other end on github.com/coder/websocket.
type talkServer struct {
	addr string
	mu   sync.Mutex
	logs map[string]chan []string // by path. Guarded by mu.
}

func startTalkServer(t *testing.T) *talkServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &talkServer{addr: l.Addr().String(), logs: map[string]chan []string{}}
	var busy sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		busy.Add(1)
		defer busy.Done()
		s.serve(w, r)
	})}
	donec := make(chan struct{})
	go func() {
		defer close(donec)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-donec
		busy.Wait()
	})
	return s
}

// logc is where what the server saw of a conversation is put.
func (s *talkServer) logc(path string) chan []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.logs[path]
	if c == nil {
		c = make(chan []string, 1)
		s.logs[path] = c
	}
	return c
}

// saw returns what the server saw of the conversation on a path.
func (s *talkServer) saw(t *testing.T, path string) []string {
	t.Helper()
	select {
	case log := <-s.logc(path):
		return log
	case <-time.After(patience):
		t.Fatalf("the server's conversation %s does not end", path)
		return nil
	}
}

func (s *talkServer) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/refused") {
		w.Header().Set("X-Why", "no")
		http.Error(w, "not you", http.StatusForbidden)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{"talk.v1"}, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		return
	}
	defer c.CloseNow()
	ctx, cancel := context.WithTimeout(context.Background(), talkWait)
	defer cancel()
	e := newEnd(ctx, c)
	_ = e.send("text", []byte("hello "+r.URL.Path), nil)
	for {
		m, ok := e.receive()
		if !ok {
			break
		}
		e.say("%s", m)
		if !e.answer(m) {
			break
		}
	}
	cancel()
	for range e.in {
	}
	s.logc(r.URL.RequestURI()) <- e.log
}

// answer does what a message wants and reports whether another may come.
func (e *end) answer(m wsMessage) bool {
	kind, command := "binary", []string{""}
	if m.kind == websocket.MessageText {
		kind, command = "text", strings.SplitN(string(m.data), " ", 4)
	}
	switch command[0] {
	case "!push":
		count, _ := strconv.Atoi(command[1])
		size, _ := strconv.Atoi(command[2])
		for i := range count {
			_ = e.send("binary", fill("binary", fmt.Sprintf("%s/%d", command[3], i), size), nil)
		}
	case "!ping":
		if e.c.Ping(e.ctx) == nil {
			_ = e.send("text", []byte("ponged"), nil)
		}
	case "!close":
		code, _ := strconv.Atoi(command[1])
		_ = e.c.Close(websocket.StatusCode(code), strings.Join(command[2:], " "))
		e.say("closed it")
		return false
	case "!vanish":
		_ = e.c.CloseNow()
		return false
	case "!late":
		_ = e.send("text", []byte("ready"), nil)
		for e.note() {
		}
		count, _ := strconv.Atoi(command[1])
		size, _ := strconv.Atoi(command[2])
		for i := range count {
			if err := e.send("binary", fill("binary", fmt.Sprintf("%s/%d", command[3], i), size), nil); err != nil {
				e.say("failed: %v", err)
			}
		}
		return false
	default:
		third := len(m.data) / 3
		if len(m.data)%2 == 0 {
			third = 0
		}
		_ = e.send(kind, m.data, []int{third, 2 * third}[:2*(len(m.data)%2)])
	}
	return true
}
