//go:build invariants

// Package invariant holds checks that vanish: under the build tag "invariants"
// they panic, otherwise they are constants that the compiler removes. A check
// must not change what the code does.
package invariant

// Enabled reports whether the checks are compiled in.
const Enabled = true
