package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/demo"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show all of it in network namespaces, without touching this machine's network",
		Long: `Runs a relay, an exit and a client as real processes in network namespaces, has
curl, dig and nc use the tunnel, and checks every answer. Needs root; changes
nothing outside its namespaces and leaves nothing behind.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			return demo.Run(cmd.Context(), demo.Options{Binary: self, Out: cmd.OutOrStdout(), Probe: []string{self, "probe"}})
		},
	}
}

// probeCommand is the demo's stand-in for curl, dig and nc.
func probeCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "probe",
		Hidden:             true,
		DisableFlagParsing: true,
		Run: func(cmd *cobra.Command, args []string) {
			os.Exit(demo.Probe(cmd.Context(), args, os.Stdin, os.Stdout, os.Stderr))
		},
	}
}
