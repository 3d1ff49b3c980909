// Package linelog is the access log of the small proxies that have none of
// their own: one JSON line for each request, gathered in memory and written
// when 64 KiB are there or a second has passed, as nginx is set up to do.
package linelog

import (
	"bufio"
	"os"
	"strconv"
	"sync"
	"time"
)

// Log is safe for use by many goroutines.
type Log struct {
	mu  sync.Mutex
	out *bufio.Writer
	buf []byte
}

// Open returns a log that appends to the file path.
func Open(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Log{out: bufio.NewWriterSize(f, 64<<10)}
	go func() {
		for range time.Tick(time.Second) {
			l.mu.Lock()
			_ = l.out.Flush()
			l.mu.Unlock()
		}
	}()
	return l, nil
}

// Write adds the line of a request.
func (l *Log) Write(client, method, uri string, status int, bytes int64, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := append(l.buf[:0], `{"time":"`...)
	b = time.Now().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","client":`...)
	b = strconv.AppendQuote(b, client)
	b = append(b, `,"method":`...)
	b = strconv.AppendQuote(b, method)
	b = append(b, `,"uri":`...)
	b = strconv.AppendQuote(b, uri)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendInt(b, bytes, 10)
	b = append(b, `,"seconds":`...)
	b = strconv.AppendFloat(b, took.Seconds(), 'f', 6, 64)
	b = append(b, "}\n"...)
	l.buf = b
	_, _ = l.out.Write(b)
}
