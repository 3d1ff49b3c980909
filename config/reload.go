package config

import (
	"errors"
	"fmt"
)

// Files returns the files that Reload reads: those of the listeners' TLS.
func (b *Built) Files() []string {
	var files []string
	for _, s := range b.Servers {
		if s.TLS != nil {
			files = append(files, s.TLS.Files()...)
		}
	}
	return files
}

// Reload reads the files of the listeners' TLS again and returns the names of
// the listeners for which something changed. What cannot be used stays as it was,
// and is in the error.
func (b *Built) Reload() (changed []string, err error) {
	var errs []error
	for _, s := range b.Servers {
		if s.TLS == nil {
			continue
		}
		c, err := s.TLS.Reload()
		if c {
			changed = append(changed, s.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("listeners.%s.tls: %w", s.Name, err))
		}
	}
	return changed, errors.Join(errs...)
}
