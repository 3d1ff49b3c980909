// Package filewatch tells when files may have changed: soon after their
// directories say so, and every minute whatever these say. It does not read the
// files; who is called finds out whether their content is another.
package filewatch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options say how often to look. Zero fields have the defaults said there.
type Options struct {
	// Settle is how long nothing may have happened before a change counts as
	// complete: a certificate and its key are two files. If zero, 200 ms.
	Settle time.Duration
	// Poll is how often the files are taken for changed without a sign of it:
	// not all file systems give one. If zero, a minute.
	Poll time.Duration
}

// maxUnsettled bounds the wait for a directory in which something happens all
// the time.
const maxUnsettled = 10 // times Settle

// Watch calls changed when one of the files may have changed, until ctx ends, and
// once when it has begun to watch: they may have changed since they were read.
// An error says that changes are found by polling alone, which goes on; failed,
// if not nil, gets it.
//
// It watches directories: who replaces a file renames another over it, and a
// watch on the file would stay with the old one. That is also how a change of a
// symbolic link on the way is seen, in the directory of either end.
func Watch(ctx context.Context, files []string, o Options, changed func(), failed func(error)) {
	if o.Settle <= 0 {
		o.Settle = 200 * time.Millisecond
	}
	if o.Poll <= 0 {
		o.Poll = time.Minute
	}
	w := &watch{files: files, options: o, changed: changed}
	n, err := fsnotify.NewWatcher()
	if err == nil {
		defer n.Close()
		w.notes, w.errs = n.Events, n.Errors
		err = w.addDirs(n)
	}
	if err != nil && failed != nil {
		failed(err)
	}
	w.run(ctx, n)
}

type watch struct {
	files   []string
	options Options
	changed func()
	notes   chan fsnotify.Event // nil: there are none
	errs    chan error
	dirs    map[string]bool
}

// addDirs watches the directories of the files, and of what they stand for.
func (w *watch) addDirs(n *fsnotify.Watcher) error {
	if w.dirs == nil {
		w.dirs = map[string]bool{}
	}
	var errs []error
	for _, f := range w.files {
		dirs := []string{filepath.Dir(f)}
		if real, err := filepath.EvalSymlinks(f); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
		for _, d := range dirs {
			if w.dirs[d] {
				continue
			}
			if err := n.Add(d); err != nil {
				errs = append(errs, &os.PathError{Op: "watch", Path: d, Err: err})
			}
			w.dirs[d] = true
		}
	}
	return errors.Join(errs...)
}

func (w *watch) run(ctx context.Context, n *fsnotify.Watcher) {
	poll := time.NewTicker(w.options.Poll)
	defer poll.Stop()
	settle := time.NewTimer(0)
	settle.Stop()
	var first time.Time // of what has not settled; zero: all has
	seen := w.look()
	w.changed()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			seen = w.look()
			w.changed()
		case <-w.notes:
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			if now.Sub(first) < maxUnsettled*w.options.Settle {
				settle.Reset(w.options.Settle)
			}
		case <-w.errs:
			// Notes were lost: look at the next sign, or poll.
		case <-settle.C:
			first = time.Time{}
			if now := w.look(); !slices.Equal(now, seen) {
				seen = now
				_ = w.addDirs(n) // a link may lead elsewhere now
				w.changed()
			}
		}
	}
}

// sign is what a file shows of itself without being read.
type sign struct {
	size    int64
	changed time.Time
	id      uint64
}

// look returns the signs of the files.
func (w *watch) look() []sign {
	signs := make([]sign, len(w.files))
	for i, f := range w.files {
		if info, err := os.Stat(f); err == nil {
			signs[i] = sign{info.Size(), info.ModTime(), fileID(info)}
		}
	}
	return signs
}
