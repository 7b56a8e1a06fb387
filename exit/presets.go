package exit

import (
	"fmt"
	"strings"
)

// DefaultPreset decides what no rule of the operator's does, unless the operator
// names another.
const DefaultPreset = "tor-default"

// Presets returns the names of the rule lists that an operator can choose from,
// strictest first.
func Presets() []string { return []string{"web", "reduced", "tor-default", "open"} }

// presetRules returns the rules of a preset. Each ends with one that matches
// everything.
func presetRules(preset string) ([]Rule, error) {
	if preset == "" {
		preset = DefaultPreset
	}
	text, ok := map[string]string{
		"web": `
			allow tcp *:80,443
			allow udp *:443
			allow ping *
			deny *`,
		"reduced": `
			allow tcp *:` + reducedPorts + `
			allow udp *:53,80,123,443,500,853,1194,3478-3481,4500,5349,19302-19309,51820,64738
			allow ping *
			deny *`,
		"tor-default": `
			deny *:25,119,135-139,445,563,1214,4661-4666,6346-6429,6699,6881-6999
			allow *`,
		"open": `
			allow *`,
	}[preset]
	if !ok {
		return nil, fmt.Errorf("there is no policy %q: choose one of %s", preset, strings.Join(Presets(), ", "))
	}
	var rules []Rule
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		r, err := ParseRule(line)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// reducedPorts are those of Tor's reduced exit policy: what people use, without
// mail delivery and what is mostly used to share files or to attack.
const reducedPorts = "20-23,43,53,79-81,88,110,143,194,220,389,443,464-465,531,543-544,554,563,587,636,706,749," +
	"853,873,902-904,981,989-995,1194,1220,1293,1500,1533,1677,1723,1755,1863,2082-2083,2086-2087,2095-2096," +
	"2102-2104,3128,3389,3690,4321,4643,5050,5190,5222-5223,5228,5900,6660-6669,6679,6697,8000,8008,8074,8080," +
	"8082,8087-8088,8232-8233,8332-8333,8443,8888,9418,9999-10000,11371,19294,19638,50002,64738"
