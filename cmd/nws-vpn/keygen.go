package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

func keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a secret key in a new file and print its public key",
		Long: `Makes a secret key in a new file that only its owner can read, and prints the
public key (npub). An existing file is left alone. The secret key is never
printed: whoever has the file has the key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := envelope.GenerateSecretKey()
			if err != nil {
				return err
			}
			if err := keyfile.Create(args[0], key); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key.Public().NPub())
			return err
		},
	}
}
