package filewatch

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched is a Watch that counts its calls.
type watched struct {
	t      *testing.T
	calls  chan struct{}
	failed chan error
}

func start(t *testing.T, o Options, files ...string) *watched {
	w := &watched{t, make(chan struct{}, 100), make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { Watch(ctx, files, o, func() { w.calls <- struct{}{} }, func(err error) { w.failed <- err }) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	w.want("the beginning")
	return w
}

func (w *watched) want(what string) {
	w.t.Helper()
	select {
	case <-w.calls:
	case <-time.After(5 * time.Second):
		w.t.Fatalf("%s was not seen", what)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const soon = 2 * time.Millisecond

func TestChangesAreSeen(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a")
	write(t, a, "1")
	w := start(t, Options{Settle: soon, Poll: time.Hour}, a)
	write(t, a, "another text")
	w.want("a write")
	write(t, a+".new", "renamed over it")
	os.Rename(a+".new", a)
	w.want("a rename")
	os.Remove(a)
	w.want("an end")
	write(t, a, "again")
	w.want("a new file")
}

// TestLinks: as Kubernetes swaps a directory, and certbot a link.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		os.Mkdir(filepath.Join(dir, v), 0o700)
		write(t, filepath.Join(dir, v, "a"), v)
	}
	data, a := filepath.Join(dir, "..data"), filepath.Join(dir, "a")
	os.Symlink("v1", data)
	os.Symlink("..data/a", a)
	w := start(t, Options{Settle: soon, Poll: time.Hour}, a)
	write(t, filepath.Join(dir, "v1", "a"), "another text")
	w.want("a write behind the links")
	os.Symlink("v2", data+".new")
	os.Rename(data+".new", data)
	w.want("the swap")
	// The new target is watched too.
	write(t, filepath.Join(dir, "v2", "a"), "the other version, changed")
	w.want("a write behind the new link")
}

// TestOthersDoNotCount: what happens to other files in the directory is no
// change, and neither delays one for ever.
func TestOthersDoNotCount(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "1")
	w := start(t, Options{Settle: 20 * time.Millisecond, Poll: time.Hour}, a)
	write(t, a, "another text")
	w.want("a write")
	stopc := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stopc:
				return
			default:
				_ = os.WriteFile(b, make([]byte, i%100), 0o600)
			}
		}
	})
	defer wg.Wait()
	defer close(stopc)
	write(t, a, "in the middle of it")
	w.want("a write in a busy directory")
	select {
	case <-w.calls:
		t.Error("another file counts")
	case <-time.After(50 * time.Millisecond):
	}
}

func TestPoll(t *testing.T) {
	w := start(t, Options{Poll: soon}, filepath.Join(t.TempDir(), "none"))
	w.want("the first poll")
	w.want("the second")
}

func TestNoDirectory(t *testing.T) {
	w := start(t, Options{Poll: soon}, filepath.Join(t.TempDir(), "none", "a"))
	select {
	case <-w.failed:
	case <-time.After(5 * time.Second):
		t.Error("nobody was told")
	}
	w.want("a poll")
}
