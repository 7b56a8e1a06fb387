// Package world is the small internet in which the demo, the whole-system tests
// and the benchmarks run nws-vpn: five hosts of netlab with the servers that
// the programs under test talk to.
//
//	client 10.77.1.2 ──┐               ┌── internet 203.0.113.53 DNS
//	                   ├── relay-net ──┤            203.0.113.80 web and others
//	relay  10.77.2.2 ──┘   (router)    └── exit 10.77.3.2
//
// All have IPv6 too. The client reaches everything by its default route, so
// that a leak would arrive; the resolver that its network hands out knows the
// relay's name and nothing else. The binary of nws-vpn runs in it as real
// processes.
package world
