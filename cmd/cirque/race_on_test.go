//go:build race

package main

// raceEnabled: under the race detector pools drop what they hold at random, so
// that allocations cannot be counted.
const raceEnabled = true
