package platform

import "errors"

// Preview returns what Set would do on this machine as it is now, as the
// commands a person would type, and what it would note. It changes nothing and
// needs no privileges. A Device that does not exist yet is taken as to be made.
func Preview(cfg Config) (changes, notes []string, err error) { return preview(cfg, machineEnv()) }

func preview(cfg Config, e *env) (changes, notes []string, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, nil, err
	}
	f, err := gather(e, cfg)
	var gone *DeviceGoneError
	if errors.As(err, &gone) {
		changes = append(changes, "ip tuntap add dev "+cfg.Device+" mode tun")
		absent := cfg
		absent.Device = ""
		f, err = gather(e, absent)
	}
	if err != nil {
		return nil, nil, err
	}
	list, notes, err := plan(cfg, f, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range list {
		changes = append(changes, describe(c)...)
	}
	return changes, notes, nil
}
