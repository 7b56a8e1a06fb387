// Package demo shows the main job of nws-vpn on one machine without touching
// the machine's own network: relay, exit and client run as real processes in
// network namespaces, the system's curl, dig, nc and ping use the tunnel, and every
// answer, the client's wire, the relay's view and the restored state are
// checked, not only shown.
//
// The output is for people: it says in words what colours say too, and has
// neither colours nor control characters when it does not go to a terminal.
package demo

import "io"

// Options say how the demo runs.
type Options struct {
	Binary string    // required: the path of nws-vpn
	Out    io.Writer // required: where the story goes

	// Probe is the command, with its first arguments, that runs the function
	// Probe of this package. It stands in for curl, dig, nc or ping where one is not
	// installed. When it is empty too, the demo fails and says what to install.
	Probe []string
}
