// Command leakdoc writes docs/leak-tests.md: the leak checks with the tests that
// make them. What is a check's test is read from the source of the tests: a call
// of the method check with its number, or a line in a test function's comment,
//
//	// leak check 36: what of it is tested here
//	// leak check 36 is open: what is not kept yet, or cannot be tested, and why
//
// the second of which may stand anywhere in a test file.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: leakdoc ROOT FILE")
		os.Exit(2)
	}
	text, err := document(os.DirFS(os.Args[1]))
	if err == nil {
		err = os.WriteFile(os.Args[2], text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "leakdoc:", err)
		os.Exit(1)
	}
}
