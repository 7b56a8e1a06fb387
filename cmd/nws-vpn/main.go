// Command nws-vpn reaches the internet, and services without an address, when
// all that gets through is a WebSocket to a Nostr relay.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
)

func main() {
	// To the last, since a signal that comes late must not change what the program
	// ends with.
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// What was begun is brought to its end also when nobody reads what is said of
	// it any more. To ignore the signal would have all that is started ignore it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	err := secretInTheOpen(os.Args[1:], os.Environ())
	cmd := root()
	if err == nil {
		cmd, err = cmd.ExecuteContextC(ctx)
	}
	if err == nil {
		return
	}
	status, said := statusOf(cmd, err)
	if !said {
		fmt.Fprintln(os.Stderr, "nws-vpn:", forUser(err))
	}
	os.Exit(int(status))
}

// statusOf is what the program ends with after an error of a command, and whether
// all has been said about it.
func statusOf(cmd *cobra.Command, err error) (status exitStatus, said bool) {
	switch {
	case errors.As(err, &status):
		return status, true
	case cmd.Name() == execName: // 1 is the command's
		return statusFailed, false
	}
	return 1, isUnread(err)
}

// isUnread reports whether it was the reader of our answer who has gone, such as
// head, who knows.
func isUnread(err error) bool {
	var failed *fs.PathError
	return errors.As(err, &failed) && failed.Path == os.Stdout.Name() && errors.Is(failed, syscall.EPIPE)
}

// ourPackages stand before errors, which is for those who read the program.
var ourPackages = regexp.MustCompile(`(^|: |; |\n)(?:(?:platform|tun|netstack|dnsintercept|nostrlink|envelope|session|box): )+`)

// forUser is the text of an error for who runs the program.
func forUser(err error) string { return ourPackages.ReplaceAllString(err.Error(), "$1") }

// exitStatus is an error that ends the program with that status, when all there
// is to say has been said.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nws-vpn",
		Short: "A VPN over Nostr relays",
		Long: `nws-vpn carries every program's traffic through Nostr relays to an exit.

Standard output holds the answer, standard error what is worth knowing on the
way. Nothing on the machine is changed but by "up" and "lockdown", which "down"
and "repair" undo, and by "trust".`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.AddCommand(
		upCommand(), downCommand(), statusCommand(), confirmCommand(), repairCommand(), lockdownCommand(), rollbackGuardCommand(), portalCommand(), bypassCommand(), outsideInsideCommand(),
		exitCommand(), joinCommand(), relayCommand(), keygenCommand(), certCommand(), trustCommand(), nameCommand(),
		exitsCommand(), execCommand(), execInsideCommand(), demoCommand(), probeCommand(), versionCommand(),
		doctorCommand(), leaktestCommand(),
	)
	explainUsage(cmd)
	return cmd
}

// newLogger writes key-value lines to standard error. level is "debug",
// "info", "warn" or "error".
func newLogger(level string) (*slog.Logger, error) {
	return newLeveledLogger(level, new(slog.LevelVar))
}

// newLeveledLogger is newLogger with a level that can be changed later.
func newLeveledLogger(level string, v *slog.LevelVar) (*slog.Logger, error) {
	if err := setLevel(v, level); err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: v})), nil
}

func setLevel(v *slog.LevelVar, level string) error {
	if err := v.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	return nil
}

// configFlags are the flags that every long-running command has.
type configFlags struct {
	file    string
	verbose bool
}

func (f *configFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "config", "", "configuration file (default "+config.Path()+", if it exists)")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log at debug level")
}

// load reads the configuration file; what flags say is for the caller to add.
func (f *configFlags) load() (*config.Config, error) {
	cfg, err := config.Load(f.file)
	if err != nil {
		return nil, err
	}
	if f.verbose {
		cfg.LogLevel = "debug"
	}
	return cfg, nil
}

// oneLine keeps a foreign text from breaking a line of our output.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
