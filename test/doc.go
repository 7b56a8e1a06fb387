// Package test holds the tests of the whole system: nws-vpn's real processes in
// network namespaces, used by real programs.
//
// They need root. Without it they are skipped and say so; with
// NWS_REQUIRE_INTEGRATION=1 in the environment a skip is a failure, so that a
// run that was to test everything cannot pass by testing nothing.
package test
