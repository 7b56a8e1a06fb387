package imports

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nws-vpn/nws-vpn/"

// layer says which packages of this module a package may import. A trailing /*
// stands for everything below.
type layer struct {
	pkg    string
	allow  []string
	reason string
}

var layers = []layer{
	{"cmd/nws-vpn", []string{"*"}, "the command assembles everything"},
	{"cmd/nws-vpn/internal/tunnel", []string{"platform"}, "a state machine without I/O: events in, state and desired platform.Config out"},
	{"cmd/nws-vpn/internal/demo", []string{"internal/netlab/*", "internal/netlab"}, "the demo runs the program as a user would, from outside"},
	{"cmd/nws-vpn/internal/config", []string{"nostrlink/name", "nostrlink/envelope", "nostrlink/announce", "nostrlink/relayd", "exit", "platform"}, "reads values and defaults of the packages that it configures; starts nothing"},
	{"cmd/nws-vpn/internal/keyfile", []string{"nostrlink/envelope", "cmd/nws-vpn/internal/service"}, "a secret key and the file it is in"},
	{"cmd/nws-vpn/internal/box", []string{"platform", "tun"}, "namespaces with a device and a command in them; what serves the device is the command's"},
	{"cmd/nws-vpn/internal/tlssite", []string{"nostrlink/cert", "nostrlink/envelope", "nostrlink/name", "internal/splice"}, "certificates and flows; how relays are asked and exits reached is the command's"},
	{"cmd/nws-vpn/internal/doctor", []string{"platform"}, "judges observations: values in, report out"},
	{"cmd/nws-vpn/internal/leaktest", []string{"platform"}, "judges this machine by platform's values and by probes of its own"},
	{"cmd/nws-vpn/internal/*", nil, "parts of the command that know nothing of the tunnel"},
	{"tun", []string{"internal/nonblock"}, "the lowest layer of the entry: a device and its packets"},
	{"netstack", []string{"tun", "internal/splice"}, "packets to flows; it has never heard of Nostr"},
	{"dnsintercept", []string{"netstack", "nostrlink/name", "internal/splice"}, "works on flows and names, not on links"},
	{"nostrlink", []string{"nostrlink/*", "internal/splice", "internal/segments"}, "joins its children; it has never heard of IP packets"},
	{"nostrlink/wire", nil, "the protocol as others could take it: nothing but the standard library"},
	{"nostrlink/name", nil, "a leaf: text in, name out"},
	{"nostrlink/envelope", []string{"nostrlink/envelope/internal/*"}, "the only crypto on the data path, on its own"},
	{"nostrlink/envelope/internal/*", nil, "arithmetic"},
	{"nostrlink/envelope/envelopetest", []string{"nostrlink/envelope"}, "keys and events for tests"},
	{"nostrlink/announce", []string{"nostrlink/name", "nostrlink/envelope"}, "what exits say of themselves, without I/O: events in, values out"},
	{"nostrlink/invite", []string{"nostrlink/name", "nostrlink/envelope"}, "a leaf: text in, invitation out"},
	{"nostrlink/cert", []string{"nostrlink/name", "nostrlink/envelope"}, "certificates and the events that vouch for them; who serves with them is others' business"},
	{"nostrlink/session", []string{"internal/splice", "nostrlink/wire"}, "reliability, and only here: no crypto, no Nostr, no relay"},
	{"nostrlink/relay", []string{"nostrlink/relay/*", "internal/segments"}, "one relay's client; events are bytes to it"},
	{"nostrlink/relay/ws", []string{"internal/nonblock"}, "the websocket of relays, both ends"},
	{"nostrlink/relay/*", nil, "a relay's wire types and its websocket"},
	{"nostrlink/relayd", []string{"nostrlink/relay/*", "nostrlink/envelope", "internal/metrics"}, "the server shares the client's wire types and checks signatures"},
	{"nostrlink/relaytest", []string{"nostrlink/relay/*", "nostrlink/relay", "nostrlink/relayd", "nostrlink/envelope"}, "a hostile relay for tests"},
	{"nostrlink/compat", []string{"nostrlink/wire", "nostrlink/envelope", "nostrlink/name", "internal/splice"}, "messages in, streams out: no relay, no session"},
	{"nostrlink/compat/reftest", []string{"nostrlink/wire", "nostrlink/envelope", "nostrlink/name", "nostrlink/relay"}, "stands in for another program: nothing of compat"},
	{"nostrlink/direct", []string{"nostrlink/session"}, "carriers without a relay: a secret and an address in, packets out; whose session it is, is others' business"},
	{"exit", []string{"nostrlink", "nostrlink/name", "nostrlink/wire", "internal/splice", "internal/segments"}, "accepts streams and dials; no TUN, no gVisor, no root"},
	{"exit/admission", []string{"nostrlink", "nostrlink/announce", "nostrlink/envelope", "nostrlink/wire"}, "who may use an exit: keys and files; it serves nobody"},
	{"platform", []string{"internal/ifaddr"}, "routes, rules and DNS of the machine; it takes values and knows nothing of ours"},
	{"internal/await", nil, "the patience of tests"},
	{"internal/ifaddr", nil, "one call of the kernel, and waiting for its effect"},
	{"internal/nonblock", nil, "a few system calls"},
	{"internal/metrics", nil, "a text format"},
	{"internal/segments", nil, "an option of sockets, which dialers share"},
	{"internal/splice", []string{"internal/nonblock"}, "the copy loop both ends share"},
	{"internal/netlab", []string{"internal/ifaddr"}, "a tool for tests and the demo"},
	{"internal/netlab/*", []string{"internal/netlab"}, "a tool for tests and the demo"},
	{"test", []string{"*"}, "whole-system tests see everything"},
	{"test/*", []string{"*"}, "whole-system tests see everything"},
}

// library says who may import packages that begin with prefix.
type library struct {
	prefix string
	users  []string
	reason string
}

var libraries = []library{
	{module + "cmd/", []string{"cmd/nws-vpn", "cmd/nws-vpn/*"}, "nobody imports the command"},
	{module + "test", []string{"test", "test/*"}, "nothing that ships is made of tests"},
	{module + "internal/netlab", []string{"internal/netlab/*", "cmd/nws-vpn/internal/demo", "test", "test/*"}, "namespaces of the lab are for the demo and tests; the VPN's are platform's"},
	{"gvisor.dev/gvisor", []string{"netstack", "netstack/*"}, "gVisor's types must not travel: its API has no versions"},
	{"golang.zx2c4.com/wireguard", []string{"tun", "tun/*"}, "its vectors, offsets and headers stay hidden behind Device"},
	{"github.com/nbd-wtf/go-nostr", []string{"nostrlink/envelope", "nostrlink/name", "nostrlink/relay", "nostrlink/relay/*", "nostrlink/relayd", "nostrlink/compat/reftest"}, "above these, an event is bytes and a key an array"},
	{"github.com/decred/dcrd", []string{"nostrlink/envelope", "nostrlink/envelope/internal/*"}, "one place for cryptography to review"},
	{"github.com/btcsuite/btcd", nil, "signatures are envelope's, on the arithmetic of one library"},
	{"golang.org/x/crypto/acme", []string{"cmd/nws-vpn"}, "certificates for a public relay; no cryptography of ours"},
	{"go.etcd.io/bbolt", []string{"nostrlink/relayd"}, "the events that the embedded relay keeps, and nothing else, are in a database"},
	{"golang.org/x/crypto", []string{"nostrlink/envelope", "nostrlink/envelope/internal/*"}, "one place for cryptography to review"},
	{"github.com/coder/websocket", []string{"nostrlink/relay", "nostrlink/relay/*", "nostrlink/relayd", "nostrlink/relaytest"}, "only relays speak websocket"},
	{"github.com/vishvananda/netlink", []string{"platform", "platform/*", "internal/ifaddr", "internal/netlab", "test/bench/*"}, "only platform changes the machine's network; netlab changes its own"},
	{"github.com/godbus/dbus", []string{"platform"}, "only platform tells other programs of this machine what to do"},
	{"github.com/mdlayher/netlink", []string{"platform"}, "the socket of nftables, whose buffers a large filter needs"},
	{"github.com/google/nftables", []string{"platform", "platform/*", "internal/netlab"}, "only platform changes the machine's network"},
	{"github.com/spf13", []string{"cmd/nws-vpn"}, "flags are the command's"},
	{"github.com/BurntSushi/toml", []string{"cmd/nws-vpn", "cmd/nws-vpn/internal/config"}, "one format, read in one place"},
	{"rsc.io/qr", []string{"cmd/nws-vpn"}, "invitations are shown to cameras by the command alone"},
	{"github.com/fiatjaf/khatru", []string{"test/bench"}, "other people's relays are for tests and comparisons"},
	{"github.com/pippellia-btc/rely", nil, "other people's relays are for tests"},
	{"math/rand", []string{"!"}, "use math/rand/v2, or crypto/rand where an opponent must not guess"},
}

// never lists what must not even come along with another package.
var never = []struct{ pkg, prefix, reason string }{
	{"nostrlink", "gvisor.dev/", "an exit needs no TUN and no root"},
	{"nostrlink", "github.com/vishvananda/", "an exit needs no TUN and no root"},
	{"exit", "gvisor.dev/", "an exit needs no TUN and no root"},
	{"exit", "github.com/vishvananda/", "an exit needs no TUN and no root"},
	{"netstack", "github.com/nbd-wtf/", "netstack has never heard of Nostr"},
	{"nostrlink/session", "github.com/", "the session's core can be tested and ported alone"},
	{"nostrlink/wire", "github.com/", "the protocol can be taken alone"},
}

// vague are names that say nothing of what a package does.
var vague = []string{"engine", "core", "util", "utils", "common", "types", "helper", "helpers", "misc", "base"}

type goPackage struct {
	ImportPath, Name, Doc string
	Imports, Deps         []string
}

func (p goPackage) short() string { return strings.TrimPrefix(p.ImportPath, module) }

// listPackages asks the go command about this module as one system sees it.
func listPackages(t *testing.T, goos string) []goPackage {
	t.Helper()
	// -e: what does not build is for others to say.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Doc,Imports,Deps", module+"...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// matches reports whether one of the patterns is the package: its name, a
// parent's name with /* behind it, or * for any.
func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		parent, wild := strings.CutSuffix(p, "*")
		return p == pkg || wild && strings.HasPrefix(pkg, parent)
	})
}

func checkLayers(p goPackage) (problems []string) {
	i := slices.IndexFunc(layers, func(l layer) bool { return l.pkg == p.short() })
	if i < 0 {
		i = slices.IndexFunc(layers, func(l layer) bool { return matches([]string{l.pkg}, p.short()) })
	}
	if i < 0 {
		return []string{p.short() + " has no place among the layers: add it there with what it may import, and why"}
	}
	for _, imported := range p.Imports {
		own, ok := strings.CutPrefix(imported, module)
		if ok && !matches(layers[i].allow, own) {
			problems = append(problems, fmt.Sprintf("%s imports %s, and may only import %q: %s", p.short(), own, layers[i].allow, layers[i].reason))
		}
	}
	return problems
}

func checkLibraries(p goPackage) (problems []string) {
	for _, imported := range p.Imports {
		for _, l := range libraries {
			if !strings.HasPrefix(imported+"/", strings.TrimSuffix(l.prefix, "/")+"/") || imported == "math/rand/v2" {
				continue
			}
			if !matches(l.users, p.short()) {
				problems = append(problems, fmt.Sprintf("%s imports %s: %s", p.short(), imported, l.reason))
			}
			break // an exception stands before its rule
		}
	}
	for _, n := range never {
		i := slices.IndexFunc(p.Deps, func(dep string) bool {
			return strings.HasPrefix(dep, n.prefix) && !strings.HasPrefix(dep, module)
		})
		if p.short() == n.pkg && i >= 0 {
			problems = append(problems, fmt.Sprintf("%s brings %s along: %s", n.pkg, p.Deps[i], n.reason))
		}
	}
	return problems
}

func checkName(p goPackage) (problems []string) {
	if slices.Contains(vague, path.Base(p.ImportPath)) {
		problems = append(problems, p.short()+": name the package after what it does")
	}
	if p.Doc == "" {
		problems = append(problems, p.short()+" has no package comment")
	}
	return problems
}

func TestImportsPointDown(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		list := listPackages(t, goos)
		if len(list) < 5 {
			t.Fatalf("%s: only %d packages found", goos, len(list))
		}
		for _, p := range list {
			for _, problem := range slices.Concat(checkLayers(p), checkLibraries(p), checkName(p)) {
				t.Errorf("%s: %s", goos, problem)
			}
		}
	}
}

// Each rule is broken once, to see that it holds.
func TestImportRulesHold(t *testing.T) {
	for name, c := range map[string]struct {
		broken goPackage
		check  func(goPackage) []string
	}{
		"upwards":        {goPackage{ImportPath: module + "tun", Imports: []string{module + "netstack"}}, checkLayers},
		"no place":       {goPackage{ImportPath: module + "elsewhere"}, checkLayers},
		"wire with more": {goPackage{ImportPath: module + "nostrlink/wire", Imports: []string{module + "internal/splice"}}, checkLayers},
		"library":        {goPackage{ImportPath: module + "exit", Imports: []string{"gvisor.dev/gvisor/pkg/tcpip"}}, checkLibraries},
		"the command":    {goPackage{ImportPath: module + "exit", Imports: []string{module + "cmd/nws-vpn/internal/config"}}, checkLibraries},
		"old random":     {goPackage{ImportPath: module + "tun", Imports: []string{"math/rand"}}, checkLibraries},
		"along":          {goPackage{ImportPath: module + "exit", Deps: []string{"gvisor.dev/gvisor/pkg/tcpip"}}, checkLibraries},
		"vague":          {goPackage{ImportPath: module + "netstack/util", Doc: "x"}, checkName},
		"no comment":     {goPackage{ImportPath: module + "tun"}, checkName},
	} {
		if len(c.check(c.broken)) == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
	fine := goPackage{ImportPath: module + "netstack", Doc: "x", Imports: []string{module + "tun", "gvisor.dev/gvisor/pkg/tcpip", "math/rand/v2"}}
	if got := slices.Concat(checkLayers(fine), checkLibraries(fine), checkName(fine)); len(got) > 0 {
		t.Errorf("fault found with a good package: %v", got)
	}
}
