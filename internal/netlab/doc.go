// Package netlab builds small networks inside one process, for the demo, the
// tests and the benchmarks: hosts made of Linux namespaces, joined by veth
// pairs, without the ip program and without a trace on the machine.
//
// A Host is a network namespace and a mount namespace with an /etc and a /run
// of its own. Nothing of it has a name: the namespaces live as long as the
// threads and descriptors of this process, so even a kill -9 leaves nothing
// behind, and what a Host started dies with the thread that started it. The
// machine's own links, routes, rules and files are never touched.
//
//	lab := netlab.New()
//	defer lab.Close()
//	client, err := lab.Host("client")
//	...
//	err = lab.Link(netlab.Port(client, "eth0", "10.0.0.2/24"),
//		netlab.Port(router, "client", "10.0.0.1/24"))
//
// It needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and runs on Linux only.
package netlab
