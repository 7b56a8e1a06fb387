// Package nonblock makes system calls on descriptors in non-blocking mode
// without the announcement that Go makes of calls that may block.
//
// With that announcement the runtime's monitor looks after the goroutine: it
// wakes up every 20 µs as long as it finds calls under way, takes their
// processor away and starts threads for it. Reading or writing 64 KiB takes
// longer than that, so a process that moves much data keeps the monitor busy,
// which costs a tenth of its time and most of its context switches. A call that
// cannot block is better left alone.
//
// All functions take descriptors of sockets, pipes and TUN devices that are in
// non-blocking mode, as those of net and os are: use them in a callback of a
// [syscall.RawConn]. They return the number of bytes and a [syscall.Errno], among
// them EAGAIN, or nil. EINTR is not returned: the call is repeated.
package nonblock
