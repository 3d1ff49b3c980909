package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/cirqueproxy/cirque/config"
	"github.com/cirqueproxy/cirque/filewatch"
)

// followFiles takes what changes in the files of the listeners' TLS while they
// serve. The function that it returns ends that.
func followFiles(b *config.Built, logger *slog.Logger) (stop func()) {
	files := b.Files()
	if len(files) == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &reload{b: b, logger: logger}
	var wg sync.WaitGroup
	wg.Go(func() {
		filewatch.Watch(ctx, files, filewatch.Options{}, r.run, func(err error) {
			logger.Warn("changes of files are found by looking once a minute only", "error", err)
		})
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// reload reads the files again. A file that stays bad is reported once.
type reload struct {
	b      *config.Built
	logger *slog.Logger
	said   string
}

func (r *reload) run() {
	changed, err := r.b.Reload()
	for _, name := range changed {
		r.logger.Info("certificates reloaded", "listener", name)
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != r.said && text != "" {
		r.logger.Error("files cannot be used, what was there before stays", "error", text)
	}
	if text == "" && r.said != "" {
		r.logger.Info("all files can be used again")
	}
	r.said = text
}
