package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var bareKey = regexp.MustCompile(`nsec1[02-9ac-hj-np-z]{58}`)

// secretInTheOpen refuses a secret key on the command line, which every user of
// the machine can read while the program runs, and in the environment of what
// runs for long, whose children inherit it. Programs that are run in or past the
// tunnel have arguments and variables of their own.
func secretInTheOpen(args, environ []string) error {
	command := ""
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			command = a
			break
		}
	}
	if slices.Contains([]string{"exec", "bypass", "portal"}, command) {
		return nil
	}
	const remedy = "take it to be known, make a new one with `nws-vpn keygen FILE`, and name the file"
	if slices.ContainsFunc(args, bareKey.MatchString) {
		return fmt.Errorf("a secret key stands on the command line, where every user of this machine can read it: %s", remedy)
	}
	if !slices.Contains([]string{"exit", "up", "relay"}, command) {
		return nil
	}
	for _, e := range environ {
		if name, value, _ := strings.Cut(e, "="); bareKey.MatchString(value) {
			return fmt.Errorf("a secret key stands in the environment variable %s, which children inherit and dumps hold: %s", oneLine(name), remedy)
		}
	}
	return nil
}
