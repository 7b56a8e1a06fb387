package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// explainUsage has cmd and all below it say of a wrong call what is right, and
// take no word for a command that is none. (cobra prints the help then, as if it
// had been asked for, and reports success.)
func explainUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
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
		hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("perhaps `%s %s`", cmd.CommandPath(), near[0])
		}
		return fmt.Errorf("there is no command `%s %s`: %s", cmd.CommandPath(), oneLine(args[0]), hint)
	}
	if !cmd.Runnable() {
		cmd.DisableFlagsInUseLine = true
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}
