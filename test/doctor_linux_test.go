package test

import (
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// doctorReport is what of `nws-vpn doctor --json` these tests look at.
type doctorReport struct {
	Schema int
	Works  bool
	Lines  []doctorLine
	// Failing is nil when nothing failed.
	Failing *doctorLine `json:"failing_hop"`
}

type doctorLine struct{ Place, Hop, Verdict, Found, Do string }

// doctor runs it in the client.
func (tun *tunnel) doctor(args ...string) doctorReport {
	tun.t.Helper()
	args = append([]string{"doctor", "--json", "--state-dir", world.StateDir, "--exit", tun.key, "--target", world.WebName + ":80"}, args...)
	res, err := tun.Run(tun.ctx, tun.Client, args...)
	if err != nil {
		tun.t.Fatal(err)
	}
	var r doctorReport
	if err := json.Unmarshal([]byte(res.Stdout), &r); err != nil {
		tun.t.Fatalf("%v: %s", err, res.Output)
	}
	if r.Schema != 1 || (res.Code == 0) != (r.Failing == nil) {
		tun.t.Errorf("code %d, schema %d, failing hop %v", res.Code, r.Schema, r.Failing)
	}
	return r
}

func TestDoctorFindsNothing(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	if r := tun.doctor("--relay", world.RelayURL); r.Failing != nil || !r.Works {
		t.Errorf("without a tunnel: %+v", r)
	}
	tun.restored(before)
	up := tun.startUp()
	if r := tun.doctor("--relay", "ws://"+world.RelayName+":"+world.RelayPort); r.Failing != nil || !r.Works {
		t.Errorf("beside a tunnel: %+v", r)
	}
	// All that is known of this one is what the running tunnel tells.
	res, err := tun.Run(tun.ctx, tun.Client, "doctor", "--state-dir", world.StateDir, "--target", world.WebName+":80")
	if err != nil || res.Code != 0 || !strings.Contains(res.Stdout, "Everything works") || !strings.Contains(res.Stdout, "connected for") {
		t.Errorf("code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.undone(up, before)
}

// Each fault is named by its hop; what comes after it is not tried.
func TestDoctorNamesTheFailingHop(t *testing.T) {
	silent := func(c net.Conn) error {
		_, err := io.Copy(io.Discard, c)
		return err
	}
	const relayAddress = world.RelayIP + ":" + world.RelayPort
	for _, c := range []struct {
		name  string
		fault func(tun *tunnel)
		relay string // or world.RelayURL
		place string // how it begins
		hop   string
		says  string
		after string // a hop that must not have been tried, or ""
	}{
		{"relay refuses", func(*tunnel) {}, "", "relay ws://", "connection", "refused", "websocket"},
		{"relay's name is not known", func(*tunnel) {}, "ws://nowhere.isp.example:7777", "relay ws://nowhere", "name", "no such host", "connection"},
		{"relay stalls", func(tun *tunnel) { tun.serve(relayAddress, silent) }, "", "relay ws://", "websocket", "did not answer", "subscription"},
		{"relay's certificate is its own", func(tun *tunnel) { tun.serve(relayAddress, selfSigned(tun.t)) }, "wss://" + relayAddress, "relay wss://", "TLS", "certificate", "websocket"},
		{"relay does not speak TLS", func(tun *tunnel) { tun.startRelay() }, "wss://" + relayAddress, "relay wss://", "TLS", "", "websocket"},
		{"no exit", func(tun *tunnel) { tun.startRelay() }, "", "exit npub1", "handshake", "exit", "names"},
		{"exit is cut off", func(tun *tunnel) {
			tun.startRelay()
			tun.startExit()
			if err := tun.Internet.SetLink("eth0", false); err != nil {
				tun.t.Fatal(err)
			}
		}, "", "exit npub1", "names", "", ""},
		{"clock", func(tun *tunnel) {
			tun.startRelay()
			tun.proxyWithClock(world.RelayIP+":7778", 2*time.Hour)
		}, "ws://" + world.RelayIP + ":7778", "this machine", "clock", "behind", ""},
		{"no TUN", func(tun *tunnel) {
			tun.startRelay()
			tun.startExit()
			tun.inClient("mount", "-t", "tmpfs", "none", "/dev/net")
		}, "", "this machine", "TUN device", "/dev/net/tun", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			tun := newTunnel(t)
			c.fault(tun)
			if c.relay == "" {
				c.relay = world.RelayURL
			}
			r := tun.doctor("--relay", c.relay)
			if f := r.Failing; f == nil || !strings.HasPrefix(f.Place, c.place) || f.Hop != c.hop || !strings.Contains(f.Found, c.says) || f.Do == "" {
				t.Errorf("the failing hop is %+v of %+v", f, r.Lines)
			}
			for _, l := range r.Lines {
				if l.Hop == c.after && l.Verdict != "not tried" {
					t.Errorf("%+v", l)
				}
			}
		})
	}
}

func (tun *tunnel) serve(address string, talk func(net.Conn) error) {
	tun.t.Helper()
	if err := tun.ServeTCP(tun.Relay, address, talk); err != nil {
		tun.t.Fatal(err)
	}
}

// inClient runs a program in the client, which must succeed.
func (tun *tunnel) inClient(name string, args ...string) {
	tun.t.Helper()
	res, err := tun.Client.Run(tun.ctx, netlab.CommandOptions{}, needProgram(tun.t, name), args...)
	if err != nil || res.Code != 0 {
		tun.t.Fatalf("%s %q: code %d, %v: %s", name, args, res.Code, err, res.Output)
	}
}

// selfSigned talks TLS with a certificate that nobody vouches for.
func selfSigned(t *testing.T) func(net.Conn) error {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(world.RelayIP)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return func(c net.Conn) error { return tls.Server(c, cfg).Handshake() }
}

// proxyWithClock puts a server before the relay whose clock is ahead.
func (tun *tunnel) proxyWithClock(address string, ahead time.Duration) {
	tun.t.Helper()
	target, err := url.Parse("http://" + world.RelayIP + ":" + world.RelayPort)
	if err != nil {
		tun.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{DialContext: tun.Relay.DialContext, DisableKeepAlives: true}
	proxy.ModifyResponse = func(resp *http.Response) error {
		resp.Header.Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		return nil
	}
	if err := tun.ServeHTTP(tun.Relay, address, proxy); err != nil {
		tun.t.Fatal(err)
	}
}

// What the doctor packs for others holds no key, name or address of the user's.
func TestDoctorsBundle(t *testing.T) {
	tun := served(t)
	secret, err := tun.Exit.ReadFile(tun.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	nsec := regexp.MustCompile("nsec1[0-9a-z]+").FindString(string(secret))
	if nsec == "" {
		t.Fatal("the key file holds no nsec")
	}
	const conf = "/run/nws.toml"
	lines := "log_level = \"debug\"\n# " + nsec + "\n[up]\nexit = \"" + tun.key + "\"\nrelays = [\"ws://" + world.RelayName + ":" + world.RelayPort + "\"]\n" +
		"[names]\nmistress = \"" + tun.key + "\"\n"
	if err := tun.Client.WriteFile(conf, []byte(lines)); err != nil {
		t.Fatal(err)
	}
	tun.inClient("mkdir", "-p", "-m", "0700", world.StateDir)
	if err := tun.Client.WriteFile(world.StateDir+"/up.log", []byte("level=DEBUG msg=dial name="+world.WebName+" address="+world.WebIP+":80\n")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.tar.gz")
	res, err := tun.Run(tun.ctx, tun.Client, "doctor", "--config", conf, "--state-dir", world.StateDir, "--target", world.WebName+":80", "--bundle", path)
	if err != nil || res.Code != 0 {
		t.Fatalf("code %d, %v: %s", res.Code, err, res.Output)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	text := unpackedText(t, path)
	for _, s := range []string{
		nsec, "nsec1", tun.key, strings.TrimPrefix(tun.key, "npub1"), "mistress",
		world.RelayName, world.WebName, world.WebIP, world.RelayIP, world.RouterIP, world.ClientIP, world.ClientIP6,
	} {
		if strings.Contains(text, s) {
			t.Errorf("the bundle holds %q", s)
		}
	}
	for _, s := range []string{"Everything works", "report.json", "log_level", "msg=dial", "subscription"} {
		if !strings.Contains(text, s) {
			t.Errorf("the bundle does not hold %q", s)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// unpackedText is a .tar.gz as one text, with the names of its files.
func unpackedText(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// leakReport is what of `nws-vpn leaktest --json` these tests look at.
type leakReport struct {
	Schema  int
	Verdict string
	Lines   []struct{ Check, Verdict, Found, Do string }
}

func (r *leakReport) String() string {
	var b strings.Builder
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "%-11s %-20s %s\n", l.Verdict, l.Check, l.Found)
	}
	return b.String()
}

// leaktest runs it in the client.
func (tun *tunnel) leaktest() *leakReport {
	tun.t.Helper()
	res, err := tun.Run(tun.ctx, tun.Client, "leaktest", "--json", "--state-dir", world.StateDir)
	if err != nil {
		tun.t.Fatal(err)
	}
	var r leakReport
	if err := json.Unmarshal([]byte(res.Stdout), &r); err != nil {
		tun.t.Fatalf("%v: %s", err, res.Output)
	}
	code := map[string]int{"ok": 0, "LEAK": 1, "WEAK": 1, "cannot tell": 2}
	if want, ok := code[r.Verdict]; !ok || r.Schema != 1 || res.Code != want {
		tun.t.Errorf("schema %d, verdict %q, code %d", r.Schema, r.Verdict, res.Code)
	}
	return &r
}

func (r *leakReport) line(check string) (verdict, found string) {
	for _, l := range r.Lines {
		if l.Check == check {
			return l.Verdict, l.Found
		}
	}
	return "", ""
}

func TestLeaktestFindsNothing(t *testing.T) {
	tun := newTunnel(t)
	res, err := tun.Run(tun.ctx, tun.Client, "leaktest", "--state-dir", world.StateDir)
	if err != nil || res.Code != 2 || !strings.Contains(res.Output, "no tunnel is up") {
		t.Errorf("without a tunnel: code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.startRelay()
	tun.startExit()
	tun.startUp()
	before := tun.snapshot()
	r := tun.leaktest()
	if r.Verdict != "ok" {
		t.Errorf("as it should be:\n%v", r)
	}
	tun.restored(before)
	// Its probes were tried, and its judge saw.
	if _, found := r.line("judge"); !strings.Contains(found, "eth0") {
		t.Errorf("the judge: %s", found)
	}
	for _, check := range []string{"any program", "bound to a device", "own address", "raw packets", "forged mark", "this network", "multicast", "name servers", "resolver"} {
		if _, found := r.line(check); !strings.Contains(found, "probe") {
			t.Errorf("%s: %q", check, found)
		}
	}
}

// A plain user learns what can be read, and is told what cannot.
func TestPlainUser(t *testing.T) {
	tun := connected(t)
	const copied = "/run/nws-vpn-of-all"
	tun.inClient("cp", tun.Binary(), copied)
	tun.inClient("chmod", "0755", copied)
	as := func(args ...string) netlab.Result {
		t.Helper()
		args = append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", copied}, args...)
		res, err := tun.Client.Run(tun.ctx, netlab.CommandOptions{}, needProgram(t, "setpriv"), append(args, "--json", "--state-dir", world.StateDir)...)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	res := as("leaktest")
	var leaks leakReport
	if err := json.Unmarshal([]byte(res.Stdout), &leaks); err != nil {
		t.Fatalf("%v: %s", err, res.Output)
	}
	if res.Code != 2 || leaks.Verdict != "cannot tell" {
		t.Errorf("code %d: %v", res.Code, &leaks)
	}
	for check, want := range map[string]string{
		"tunnel": "cannot tell", "rules IPv4": "ok", "rules IPv6": "ok", "routes IPv4": "ok", "packet filter": "cannot tell",
		"ways IPv4": "ok", "ways IPv6": "ok", "judge": "cannot tell", "raw packets": "cannot tell", "forged mark": "cannot tell",
	} {
		if verdict, found := leaks.line(check); verdict != want {
			t.Errorf("%s: %s %s, want %s", check, verdict, found, want)
		}
	}
	var report doctorReport
	res = as("doctor", "--exit", tun.key, "--relay", world.RelayURL)
	if err := json.Unmarshal([]byte(res.Stdout), &report); err != nil || report.Failing != nil || report.Works {
		t.Errorf("%v: %s", err, res.Output)
	}
	for _, l := range report.Lines {
		if l.Place == "relay "+world.RelayURL && l.Verdict != "not tried" || l.Hop == "tunnel" && l.Verdict != "unknown" {
			t.Errorf("%+v", l)
		}
	}
}

// What the user lets past is no leak, and nothing else gets past with it.
func TestLeaktestWithLAN(t *testing.T) {
	tun := served(t)
	tun.startUp("--allow-lan")
	if r := tun.leaktest(); r.Verdict != "ok" {
		t.Errorf("\n%v", r)
	}
}

// Where root is let out, who runs the leak test with it, the tunnel is as tight for
// others, and what is not tight is found.
func TestLeaktestOfAnExcludedUser(t *testing.T) {
	for _, c := range []struct{ name, killSwitch, verdict, bound string }{
		{"with the filter", "on", "ok", "ok"},
		{"without it", "off", "LEAK", "LEAK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tun := served(t)
			tun.startUp("--exclude-user", "root", "--kill-switch", c.killSwitch)
			r := tun.leaktest()
			if r.Verdict != c.verdict {
				t.Errorf("verdict %s:\n%v", r.Verdict, r)
			}
			for check, want := range map[string]string{
				"user": "ok", "any program": "ok", "ways IPv4": "ok", "ways IPv6": "ok", "resolver": "ok", "judge": "ok",
				"bound to a device": c.bound, "own address": "ok", "this network": "ok",
			} {
				if verdict, found := r.line(check); verdict != want {
					t.Errorf("%s: %s %s, want %s", check, verdict, found, want)
				}
			}
		})
	}
}

// Without the kill switch, programs that choose their own way get past: the
// leak test does not gloss over it.
func TestLeaktestWithoutKillSwitch(t *testing.T) {
	tun := served(t)
	tun.startUp("--kill-switch", "off")
	r := tun.leaktest()
	for check, want := range map[string]string{
		"any program": "ok", "ways IPv4": "ok", "ways IPv6": "ok", "resolver": "ok", "packet filter": "WEAK", "bound to a device": "LEAK",
	} {
		if verdict, found := r.line(check); verdict != want {
			t.Errorf("%s: %s %s, want %s", check, verdict, found, want)
		}
	}
}

// A machine that is closed, for want of a relay or of the tunnel itself, is as
// tight.
func TestLeaktestOfAClosedMachine(t *testing.T) {
	tun := newTunnel(t)
	relay := tun.startRelay()
	tun.startExit()
	up := tun.startUp()
	tun.kill(relay)
	if r := tun.leaktest(); r.Verdict != "ok" {
		t.Errorf("without a relay:\n%v", r)
	}
	tun.kill(up)
	r := tun.leaktest()
	if _, found := r.line("tunnel"); r.Verdict != "ok" || !strings.Contains(found, "not running") {
		t.Errorf("without the tunnel's program:\n%v", r)
	}
	for _, check := range []string{"routes IPv4", "routes IPv6"} {
		if _, found := r.line(check); !strings.HasPrefix(found, "closed") {
			t.Errorf("%s: %s", check, found)
		}
	}
}

// freeze stops a process, and waits until all of its threads stand still.
func freeze(t *testing.T, p *netlab.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for {
		err := unix.Waitid(unix.P_PID, p.PID(), nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// Each sabotage is named. The tunnel's program is stopped meanwhile, since it
// would mend it.
func TestLeaktestNamesTheSabotage(t *testing.T) {
	type finding struct{ check, verdict, says string }
	for _, c := range []struct {
		name     string
		sabotage func(tun *tunnel)
		want     []finding
	}{
		{"foreign rule", func(tun *tunnel) { tun.inClient("ip", "rule", "add", "pref", "100", "lookup", "main") },
			[]finding{{"rules IPv4", "WEAK", "100:"}, {"ways IPv4", "WEAK", "eth0"}, {"rules IPv6", "ok", ""}, {"any program", "ok", ""}}},
		{"no filter", func(tun *tunnel) { tun.inClient("nft", "delete", "table", "inet", "nws-vpn") },
			[]finding{{"packet filter", "WEAK", "inet nws-vpn"}, {"bound to a device", "LEAK", "192.0.2."}, {"forged mark", "LEAK", ""}, {"any program", "ok", ""}}},
		{"resolver overwritten", func(tun *tunnel) {
			if err := tun.Client.WriteFile("/etc/resolv.conf", []byte(world.UplinkResolvConf)); err != nil {
				tun.t.Fatal(err)
			}
		}, []finding{{"resolver's file", "WEAK", world.RouterIP}, {"name servers", "ok", ""}, {"bound to a device", "ok", ""}}},
		{"IPv6 rule gone", func(tun *tunnel) { tun.inClient("ip", "-6", "rule", "del", "pref", "5620") },
			[]finding{{"rules IPv6", "WEAK", "missing"}, {"ways IPv6", "WEAK", "eth0"}, {"rules IPv4", "ok", ""}, {"any program", "ok", ""}}},
		{"IPv6 rule and filter gone", func(tun *tunnel) {
			tun.inClient("ip", "-6", "rule", "del", "pref", "5620")
			tun.inClient("nft", "delete", "table", "inet", "nws-vpn")
		}, []finding{{"rules IPv6", "LEAK", "missing"}, {"any program", "LEAK", "2001:db8:"}}},
		{"guard route gone", func(tun *tunnel) { tun.inClient("ip", "route", "del", "unreachable", "default", "table", "20055") },
			[]finding{{"routes IPv4", "WEAK", "guard"}, {"routes IPv6", "ok", ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			tun := served(t)
			up := tun.startUp()
			freeze(t, up)
			c.sabotage(tun)
			r := tun.leaktest()
			for _, w := range append(c.want, finding{"tunnel", "cannot tell", ""}, finding{"judge", "ok", "eth0"}) {
				if verdict, found := r.line(w.check); verdict != w.verdict || !strings.Contains(found, w.says) {
					t.Errorf("%s: %s %s, want %s %s", w.check, verdict, found, w.verdict, w.says)
				}
			}
			if t.Failed() {
				t.Logf("\n%v", r)
			}
		})
	}
}
