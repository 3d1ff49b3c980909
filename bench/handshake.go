//go:build linux

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// shaker makes connections, each with a handshake and one request. Its clients
// block and are goroutines: a handshake costs the client about as much as the
// proxy, and an event loop would not make that less.
type shaker struct {
	spec   loadSpec
	resume bool
	base   uint64 // of the ids

	// Guarded by mu.
	mu     sync.Mutex
	res    loadResult
	counts bool
	stop   bool
	sent   uint64
}

// runHandshakes is runLoad for handshakes.
func runHandshakes(spec loadSpec, resume bool, edge func(end bool)) *loadResult {
	h := &shaker{spec: spec, resume: resume, base: uint64(time.Now().UnixNano()) &^ (patternSpan - 1)}
	h.res.errors = map[string]int64{}
	var clients sync.WaitGroup
	for range spec.conns {
		clients.Go(h.client)
	}
	time.Sleep(spec.warm)
	edge(false)
	h.set(true, false)
	from := time.Now()
	time.Sleep(spec.measure)
	h.set(false, false)
	elapsed := time.Since(from)
	edge(true)
	h.set(false, true)
	clients.Wait()
	h.res.elapsed = elapsed
	return &h.res
}

func (h *shaker) set(counts, stop bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts, h.stop = counts, stop
}

// client makes one connection after another until it is told to stop.
func (h *shaker) client() {
	config := h.spec.tls.config()
	if h.resume {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	buf := make([]byte, 16<<10)
	for {
		h.mu.Lock()
		h.sent++
		id := h.base + h.sent
		stop := h.stop || h.res.errorCount() > 1000
		h.mu.Unlock()
		if stop {
			return
		}
		from := time.Now()
		resumed, err := h.one(config, id, buf)
		h.count(time.Since(from), resumed, err)
	}
}

func (h *shaker) count(took time.Duration, resumed bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.res.errors[err.Error()]++
		return
	}
	h.res.all++
	if !h.counts {
		return
	}
	h.res.completed++
	h.res.connects++
	h.res.latency.add(int64(took))
	if resumed {
		h.res.resumed++
	}
}

// one makes a connection, sends a request on it and reads the answer.
func (h *shaker) one(config *tls.Config, id uint64, buf []byte) (resumed bool, err error) {
	sock, err := net.Dial("tcp", h.spec.addr)
	if err != nil {
		return false, errors.New("connect")
	}
	defer sock.Close()
	_ = sock.SetDeadline(time.Now().Add(handshakeWait))
	conn := tls.Client(sock, config)
	if err := conn.Handshake(); err != nil {
		return false, fmt.Errorf("handshake: %w", err)
	}
	state := conn.ConnectionState()
	if err := h.spec.tls.agreed(&state); err != nil {
		return false, err
	}
	c := loadConn{}
	t := h.spec.target
	t.id = id
	c.begin(t, 0)
	c.head = append(t.appendPath(append(c.head, "GET "...)), " HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\nConnection: close\r\n\r\n"...)
	if _, err := conn.Write(c.head); err != nil {
		return false, errors.New("write")
	}
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			done, problem := c.receive(buf[:n])
			if problem != "" {
				return false, errors.New(problem)
			}
			if done {
				return state.DidResume, conn.Close()
			}
		}
		if err != nil {
			return false, errors.New("early end")
		}
	}
}
