// Package accesslog writes a line for each session of a proxy, also for those
// that failed or whose client left, to an io.Writer: as JSON, in the two common
// text formats, or in a format of the operator's. Formatting allocates nothing,
// no value can break a line, and an output that is slow or fails costs lines,
// never a session: what was lost is counted.
//
// It is a filter on the public API alone. It does not open, rotate or close
// files.
package accesslog

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque"
)

// Options say what is logged and where to.
type Options struct {
	// Output gets the lines, many or one at a call, always whole ones. It is used
	// by one goroutine at a time and never closed. Required.
	Output io.Writer

	// Format is "json", "common", "combined", or a text with variables such as
	//
	//	$client $method $path $status $duration
	//
	// A variable is $name or ${name}; $$ is a dollar. If empty, it is "json".
	// [Variables] lists the names. Besides these, $http_user_agent is the field
	// User-Agent of the request and $sent_http_etag the field ETag of the
	// response, and so on for any name. Times are in UTC, durations in seconds.
	//
	// In text formats a value that is not known is "-", and a quote, a backslash,
	// a control character and what is not ASCII are written as \xHH. Put in
	// quotes what may hold spaces.
	Format string

	// Fields are the names of the variables that a line of the format "json" has,
	// in order. If empty, they are those of [DefaultFields].
	Fields []string

	// FlushAfter bounds how long a line waits for more of them. If zero, 1 s. If
	// negative, lines are written as soon as the output takes them.
	FlushAfter time.Duration

	// MaxBuffered bounds the bytes that wait while the output is busy; a line
	// over it is dropped. As much again may be in the output's hands. If zero or
	// negative, 1 MiB.
	MaxBuffered int

	// Skip, if not nil, is asked about each session whether to leave it out.
	Skip func(s *cirque.Session) bool

	// OnError, if not nil, is called when the output begins to fail. It must not
	// block.
	OnError func(error)
}

// Log is an access log. It serves all Proxies and Servers at once.
type Log struct {
	// Immutable after New.
	format *format
	skip   func(*cirque.Session) bool
	lines  sync.Pool // of *line
	out    *output
}

// New returns a Log, or what is wrong with the options. It must be closed.
func New(o Options) (*Log, error) {
	if o.Output == nil {
		return nil, errors.New("accesslog: there is no output")
	}
	f, err := compile(o.Format, o.Fields)
	if err != nil {
		return nil, err
	}
	l := &Log{format: f, skip: o.Skip, out: newOutput(o)}
	l.lines.New = func() any { return &line{b: make([]byte, 0, 1024)} }
	return l, nil
}

// Filter returns the filter that writes the lines. Its place in the list of
// filters does not matter.
func (l *Log) Filter() cirque.Filter {
	return cirque.Filter{Name: "access-log", Done: l.done}
}

// Close writes what is buffered and ends the Log; later lines are dropped. It
// returns the output's error, if the last write failed, and gives up on an
// output that is stuck for 5 s.
func (l *Log) Close() error { return l.out.close() }

// Dropped returns how many lines were lost: because the output was too slow and
// the buffer full, because a write failed, or after Close.
func (l *Log) Dropped() int64 { return l.out.dropped.Load() }

// done is the hook.
func (l *Log) done(s *cirque.Session, err error) {
	if l.skip != nil && l.skip(s) {
		return
	}
	n := l.lines.Get().(*line)
	n.begin(s, err)
	n.b = l.format.append(n.b[:0], n)
	l.out.add(n.b)
	if cap(n.b) <= maxKeptLine {
		n.end()
		l.lines.Put(n)
	}
}

// maxKeptLine bounds the memory that a line keeps for the next one: a client
// that sends long fields must not make all lines large for good.
const maxKeptLine = 16 << 10

// line is a session while its line is made. It is owned by the session's
// goroutine.
type line struct {
	b       []byte
	s       *cirque.Session
	err     *cirque.Error // nil if there was none
	attempt cirque.Attempt
	now     time.Time
	elapsed time.Duration
	// iso and common outlive the line.
	iso, common second
}

func (n *line) begin(s *cirque.Session, err error) {
	n.s, n.attempt, n.err = s, s.Attempt(), nil
	n.elapsed = s.Elapsed()
	n.now = s.Began().Add(n.elapsed)
	if e, ok := err.(*cirque.Error); ok {
		n.err = e
	}
}

// end forgets the session, which is reused by its connection.
func (n *line) end() { n.s, n.err, n.attempt = nil, nil, cirque.Attempt{} }
