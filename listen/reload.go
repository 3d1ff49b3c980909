package listen

import "errors"

// reloader is what comes from files and can be read again: certificates, CAs,
// ticket secrets.
type reloader interface {
	Reload() (changed bool, err error)
	Files() []string
}

// Files returns the files that Reload reads.
func (c *CAs) Files() []string { return fileList(c.file) }

// Files returns the files that Reload reads.
func (t *Tickets) Files() []string { return fileList(t.file) }

func fileList(file string) []string {
	if file == "" {
		return nil
	}
	return []string{file}
}

// Files returns the files that Reload reads.
func (t *TLS) Files() []string {
	var files []string
	for _, r := range t.sources() {
		files = append(files, r.Files()...)
	}
	return files
}

// Reload reads all files again and reports whether anything changed. What cannot
// be used stays as it was, and is in the error. Open connections are not touched;
// sessions that clients resume were made under the same policy and CAs.
func (t *TLS) Reload() (changed bool, err error) {
	var errs []error
	for _, r := range t.sources() {
		c, err := r.Reload()
		changed = changed || c
		errs = append(errs, err)
	}
	return changed, errors.Join(errs...)
}

func (t *TLS) sources() []reloader {
	var all []reloader
	if t.Certificates != nil {
		all = append(all, t.Certificates)
	}
	if t.Tickets != nil {
		all = append(all, t.Tickets)
	}
	seen := map[*CAs]bool{nil: true}
	add := func(c *CAs) {
		if !seen[c] {
			seen[c] = true
			all = append(all, c)
		}
	}
	add(t.ClientCAs)
	for _, n := range t.Names {
		add(n.ClientCAs)
	}
	return all
}
