package main

import "syscall"

// shareAddress does nothing: nothing is taken over here.
func shareAddress(_, _ string, _ syscall.RawConn) error { return nil }
