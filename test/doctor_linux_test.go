package test

import (
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
	"testing"
	"time"

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
