package nostrlink

// Echo is echo, for the tests from outside.
var Echo Handle = echo
