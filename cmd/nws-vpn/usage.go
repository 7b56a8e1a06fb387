package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// explainUsage has cmd and all below it say of a wrong call what is right, and
// take no word for a command that is none. (cobra prints the help then, as if it
// had been asked for, and reports success.)
func explainUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// A mistyped command has flags that nobody knows.
		if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
			return noCommand(cmd, args[0])
		}
		return fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())
	})
	if check := cmd.Args; check != nil && !cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if check(cmd, args) == nil {
				return nil
			}
			return fmt.Errorf("want `%s`: see `%s --help`", strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmd.CommandPath())
		}
	}
	if cmd.HasSubCommands() {
		explainCommands(cmd)
	}
	for _, sub := range cmd.Commands() {
		explainUsage(sub)
	}
}

// explainCommands has a command that is there for those below it tell a mistyped
// one.
func explainCommands(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return noCommand(cmd, args[0])
	}
	if !cmd.Runnable() {
		cmd.DisableFlagsInUseLine = true
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}

// noCommand says that there is no such command, and which one was meant.
func noCommand(cmd *cobra.Command, typed string) error {
	hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	if near := cmd.SuggestionsFor(typed); len(near) > 0 {
		nearest := slices.MinFunc(near, func(a, b string) int { return cmp.Compare(typingErrors(typed, a), typingErrors(typed, b)) })
		hint = fmt.Sprintf("perhaps `%s %s`", cmd.CommandPath(), nearest)
	}
	return fmt.Errorf("there is no command `%s %s`: %s", cmd.CommandPath(), oneLine(typed), hint)
}

// typingErrors is how many letters must be put in, left out, changed, or swapped
// with the next, to make b of a (optimal string alignment).
func typingErrors(a, b string) int {
	const most = 32 // more letters than a command has
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	var d [most + 1][most + 1]int
	for i := range len(a) + 1 {
		for j := range len(b) + 1 {
			switch {
			case i == 0 || j == 0:
				d[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				d[i][j] = d[i-1][j-1]
			default:
				d[i][j] = 1 + min(d[i-1][j-1], d[i-1][j], d[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], 1+d[i-2][j-2])
			}
		}
	}
	return d[len(a)][len(b)]
}
