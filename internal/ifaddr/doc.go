// Package ifaddr gives interfaces addresses that can be used when it returns.
//
// Linux installs the route by which it knows an IPv6 address as its own from a
// work queue, some time after the call that added the address has returned.
// What arrives for the address in between is dropped.
package ifaddr
