// Package tunbench measures how fast the TUN device and the netstack are
// together: programs' sockets on one side, handlers in memory on the other,
// nothing behind. It needs root and Linux, and works in a network namespace of
// its own.
//
// The programs are plain threads with blocking system calls, as most real ones
// are, so that this process's Go scheduler serves the stack only.
package tunbench
