// Package imports holds the rules that keep the packages' imports pointing
// down, with the reason beside each, and the test that enforces them.
package imports
