package main

import (
	"fmt"
	"regexp"
	"strings"
)

// Where the failure at a relay begins in the error of a link, which has one after
// another, and what is said of one relay. A relay's own words may be in it.
var (
	anotherRelay = regexp.MustCompile(`; (?:relay wss?://|exit npub1)`)
	ofRelay      = regexp.MustCompile(`^relay (wss?://\S+?):? (.*)$`)
	ofExit       = regexp.MustCompile(`^exit npub1\w+ (.*?) (?:on|through) relay (wss?://\S+?)(?:: is the exit running.*?| (\(the relay said: .*\)): is the exit running.*)$`)
)

// noWay is the error of a link that has found no way to its exit, as a user wants
// to read it: a line for each relay, and what to do.
type noWay struct {
	error
	exit   string
	relays []string // what failed at each
	exits  bool     // a relay was reached, and the exit was not there
}

// explainNoWay makes a noWay of a link's error, if it is one.
func explainNoWay(err error, exit string) error {
	way := &noWay{error: err, exit: exit}
	rest := oneLine(err.Error())
	for rest != "" {
		part := rest
		if at := anotherRelay.FindStringIndex(rest); at != nil {
			part, rest = rest[:at[0]], rest[at[0]+len("; "):]
		} else {
			rest = ""
		}
		switch m, x := ofRelay.FindStringSubmatch(part), ofExit.FindStringSubmatch(part); {
		case m != nil:
			way.relays = append(way.relays, "relay "+m[1]+": "+shortProblem(m[2]))
		case x != nil:
			way.exits = true
			way.relays = append(way.relays, strings.TrimSpace(fmt.Sprintf("relay %s: the exit %s %s", x[2], x[1], x[3])))
		default:
			return err
		}
	}
	return way
}

func (w *noWay) Unwrap() error { return w.error }

func (w *noWay) Error() string {
	lines := append([]string{"there is no way to the exit " + w.exit + ":"}, w.relays...)
	text := strings.Join(lines, "\n  ")
	if w.exits {
		text += "\nis the exit running, on this relay, and is its key right?"
		if len(w.relays) > 1 {
			text = strings.Replace(text, "on this relay", "on these relays", 1)
		}
	}
	return text
}

// The words of the system and of Go's library around a problem.
var (
	dialing  = regexp.MustCompile(`dial (?:tcp|udp)[46]?(?: \S+)?: (?:connect: )?`)
	deadline = regexp.MustCompile(`context deadline exceeded|i/o timeout|not answer in time`)
)

// shortProblem is what is wrong with a relay in a few words.
func shortProblem(problem string) string {
	const handshake = "accepted the connection but did not answer the "
	switch {
	case strings.HasPrefix(problem, handshake):
		problem, _, _ = strings.Cut(problem, " in time: ")
		return problem
	case deadline.MatchString(problem) && !strings.Contains(problem, "lookup "):
		return "no answer in 10 s"
	}
	return dialing.ReplaceAllString(problem, "")
}
