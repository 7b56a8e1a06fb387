package main

import (
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

// What the packet filter is to do is refused without one, however the two come
// together.
func TestFlagsThatNeedThePacketFilter(t *testing.T) {
	off, blocks, refuses := config.Default().Up, config.Default().Up, config.Default().Up
	off.KillSwitch, blocks.Forward, refuses.Inbound = "off", config.ForwardBlock, false
	for _, c := range []struct {
		name  string
		up    config.Up
		flags upOptions
		want  string // or "" for no error
	}{
		{"both flags", config.Default().Up, upOptions{killSwitch: "off", refuse: true}, "inbound: the packet filter"},
		{"inbound in the configuration", refuses, upOptions{killSwitch: "off"}, "inbound: the packet filter"},
		{"the kill switch in the configuration", off, upOptions{refuse: true}, "inbound: the packet filter"},
		{"forward in the configuration", blocks, upOptions{killSwitch: "off"}, "forward: the packet filter"},
		{"the kill switch is on again", off, upOptions{killSwitch: "on", refuse: true}, ""},
		{"off alone", config.Default().Up, upOptions{killSwitch: "off"}, ""},
	} {
		err := c.flags.override(&c.up)
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// What platform would refuse on every machine is refused before there is a state.
func TestNoMachineOfARefusedConfiguration(t *testing.T) {
	up := config.Default().Up
	up.Inbound = false
	if _, err := newMachine(lifecycle.On, &up, usualFakes(), lifecycle.Options{}); err != nil {
		t.Errorf("with the kill switch on: %v", err)
	}
	if _, err := newMachine(lifecycle.Off, &up, usualFakes(), lifecycle.Options{}); err == nil {
		t.Error("with the kill switch off it is taken")
	}
}
