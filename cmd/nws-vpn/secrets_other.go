//go:build !linux

package main

// keepSecrets keeps the keys in this process's memory out of core files.
func keepSecrets() error { return noCore() }
