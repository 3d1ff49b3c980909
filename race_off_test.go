//go:build !race

package cirque_test

// raceEnabled is explained in race_on_test.go.
const raceEnabled = false
