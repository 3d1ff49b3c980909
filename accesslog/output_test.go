package accesslog

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errDisk = errors.New("the disk is full")

// disk is an output that can be stuck or fail. Each write is one element.
type disk struct {
	mu     sync.Mutex
	writes []string
	take   int   // bytes that the next write takes before err
	err    error // nil: all is well
	stuckc chan struct{}
}

func (d *disk) Write(p []byte) (int, error) {
	if d.stuckc != nil {
		<-d.stuckc
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(p)
	if d.err != nil {
		n = min(n, d.take)
	}
	if n > 0 {
		d.writes = append(d.writes, string(p[:n]))
	}
	return n, d.err
}

func (d *disk) set(take int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.take, d.err = take, err
}

func (d *disk) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.writes, "|")
}

func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.writes)
}

func TestFlushAfterASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		o := newOutput(Options{Output: d})
		for i := range 3 {
			o.add([]byte("1\n"))
			o.add([]byte("2\n"))
			time.Sleep(999 * time.Millisecond)
			synctest.Wait()
			if n := d.count(); n != i {
				t.Fatalf("%d writes before a second had passed, want %d", n, i)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if d.String() != "1\n2\n|1\n2\n|1\n2\n" {
			t.Errorf("writes %q", d.String())
		}
		o.add([]byte("3\n"))
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(d.String(), "|3\n") {
			t.Errorf("Close did not write: %q", d.String())
		}
		o.add([]byte("4\n"))
		if o.dropped.Load() != 1 {
			t.Errorf("dropped %d after Close", o.dropped.Load())
		}
		if err := o.close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestFlushAtSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		o := newOutput(Options{Output: d})
		defer o.close()
		line := []byte(strings.Repeat("x", 1023) + "\n")
		for range 63 {
			o.add(line)
		}
		synctest.Wait()
		if d.String() != "" {
			t.Fatal("written before 64 KiB and before a second")
		}
		o.add(line)
		synctest.Wait()
		if n := len(d.String()); n != 64<<10 {
			t.Errorf("%d bytes written at 64 KiB", n)
		}
	})
}

func TestFlushAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		o := newOutput(Options{Output: d, FlushAfter: -1})
		defer o.close()
		o.add([]byte("1\n"))
		synctest.Wait()
		if d.String() != "1\n" {
			t.Errorf("writes %q", d.String())
		}
	})
}

// TestStuckOutput has an output that takes nothing for an hour: lines are
// dropped beyond the bound, in no time, and what was kept is written in the end.
func TestStuckOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{stuckc: make(chan struct{})}
		o := newOutput(Options{Output: d, FlushAfter: -1, MaxBuffered: 8})
		o.add([]byte("0\n"))
		synctest.Wait() // the write hangs
		began := time.Now()
		for i := range 10 {
			o.add(fmt.Appendf(nil, "%d\n", i))
		}
		if !time.Now().Equal(began) {
			t.Error("a line waited for the output")
		}
		if o.dropped.Load() != 6 {
			t.Errorf("dropped %d, want 6", o.dropped.Load())
		}
		time.Sleep(time.Hour)
		close(d.stuckc)
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
		if d.String() != "0\n|0\n1\n2\n3\n" {
			t.Errorf("writes %q", d.String())
		}
	})
}

func TestCloseGivesUpOnAStuckOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{stuckc: make(chan struct{})}
		o := newOutput(Options{Output: d})
		o.add([]byte("0\n"))
		began := time.Now()
		if err := o.close(); err != errStuck {
			t.Errorf("close: %v", err)
		}
		if d := time.Since(began); d != closeWait {
			t.Errorf("waited %v", d)
		}
		close(d.stuckc)
		<-o.donec
	})
}

// TestFailingOutput loses exactly the lines of the writes that failed, says so
// once, and never lets a line grow out of a torn one.
func TestFailingOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		said := 0
		o := newOutput(Options{Output: d, OnError: func(err error) {
			if said++; err != errDisk {
				t.Errorf("said %v", err)
			}
		}})
		write := func(lines ...string) {
			for _, l := range lines {
				o.add([]byte(l + "\n"))
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
		}
		d.set(5, errDisk)
		write("one", "two") // takes "one\nt"
		d.set(0, errDisk)
		write("three")
		if n := o.dropped.Load(); n != 2 {
			t.Errorf("dropped %d, want 2", n)
		}
		d.set(0, nil)
		write("four")
		if d.String() != "one\nt|\n|four\n" {
			t.Errorf("writes %q", d.String())
		}
		d.set(0, errDisk)
		o.add([]byte("five\n"))
		if err := o.close(); err != errDisk {
			t.Errorf("close: %v", err)
		}
		if said != 2 || o.dropped.Load() != 3 {
			t.Errorf("said %d times, dropped %d", said, o.dropped.Load())
		}
	})
}

// shortWriter takes less than it was given and says nothing.
type shortWriter struct{}

func (shortWriter) Write(p []byte) (int, error) { return len(p) - 1, nil }

func TestShortWrite(t *testing.T) {
	o := newOutput(Options{Output: shortWriter{}})
	o.add([]byte("one\n"))
	if err := o.close(); err != io.ErrShortWrite || o.dropped.Load() != 1 {
		t.Errorf("%v, dropped %d", err, o.dropped.Load())
	}
}

// TestWholeLines has many sessions write at once: no line is cut or mixed.
func TestWholeLines(t *testing.T) {
	d := &disk{}
	o := newOutput(Options{Output: d, FlushAfter: -1, MaxBuffered: 64 << 20})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			line := []byte(strings.Repeat(string(rune('a'+i)), 50*(i+1)) + "\n")
			for range 500 {
				o.add(line)
			}
		})
	}
	wg.Wait()
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, w := range d.writes {
		if !strings.HasSuffix(w, "\n") {
			t.Fatal("a write ended inside a line")
		}
		for l := range strings.Lines(w) {
			lines++
			l = strings.TrimSuffix(l, "\n")
			if l != strings.Repeat(l[:1], 50*int(l[0]-'a'+1)) {
				t.Fatalf("mixed line %q", l)
			}
		}
	}
	if lines != 8*500 || o.dropped.Load() != 0 {
		t.Errorf("%d lines, %d dropped", lines, o.dropped.Load())
	}
}
