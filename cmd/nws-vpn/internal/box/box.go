// Package box runs one command in namespaces of its own, whose only network is a
// TUN that this process serves. It needs no root, and changes nothing on the
// machine: everything it makes goes with the last process in it.
//
//	nws-vpn exec ── socket ── init (process 1 of the box) ── the command
//	      └────────── the TUN's file ───┘                     └─ its children
//
// Start starts the program itself once more, in new user, network, mount and PID
// namespaces, where it calls Init. That one makes the TUN and hands its file out,
// so that the sockets of this process stay where they are; hides the sockets by
// which programs outside would do a command's work, look-ups above all, since
// UNIX sockets with a path know no network namespace; and then is what a process
// 1 has to be. The command is the user himself, without any capability and
// without a way to get one.
//
// When the command has ended, the box waits for what it has left behind. When
// this process ends, however that happens, everything in the box is killed; and
// since the TUN has gone with it, it has no network in the meantime.
//
// The box keeps honest programs from leaking. It is no sandbox: files are the
// user's own, and a program that asks another one outside by a socket that is
// not among those hidden gets its answer.
package box

import (
	"errors"
	"net/netip"
)

// Config is what the command finds in its box.
type Config struct {
	// Path is the program's file, and Args its arguments, the name first. Its
	// environment, directory and descriptors are those of this process.
	Path string
	Args []string
	// Device is the TUN's name, MTU its largest packet in bytes, Addresses what
	// it has, and Nameservers what resolv.conf names.
	Device      string
	MTU         int
	Addresses   []netip.Prefix
	Nameservers []netip.Addr
}

// A ForbiddenError says what on this machine forbids a box, and what to do.
type ForbiddenError struct {
	Reason string // names the setting and the remedy
	Err    error
}

func (e *ForbiddenError) Error() string { return "box: " + e.Err.Error() + ": " + e.Reason }
func (e *ForbiddenError) Unwrap() error { return e.Err }

// A StartError is about the command itself: its file cannot be run.
type StartError struct{ Err error }

func (e *StartError) Error() string { return "box: start the command: " + e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// ErrKilled means that the box has ended before the command did.
var ErrKilled = errors.New("box: everything in it was killed")
