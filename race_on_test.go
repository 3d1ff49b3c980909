//go:build race

package cirque_test

// raceEnabled: under the race detector pools drop what they hold at random, so
// that allocations cannot be counted.
const raceEnabled = true
