//go:build race

package test

// raceEnabled: the tests were built with the race detector, and so is the
// program under test.
const raceEnabled = true
