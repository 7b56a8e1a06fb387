//go:build !linux

package segments

func bound(uintptr) {}
