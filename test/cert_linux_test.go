package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// Files in the client.
const (
	siteFile   = "/run/site.pem"
	trustFile  = "/run/authority.pem"
	configFile = "/run/nws.toml"
)

// startSecured starts the exit with TLS in front of its service, and waits
// until its certificate is published.
func (tun *tunnel) startSecured() {
	tun.t.Helper()
	exit := tun.startExit("--service", "443=tls:"+world.ServiceAddress)
	if _, err := exit.WaitLine(tun.ctx, func(line string) bool { return strings.HasPrefix(line, "certificate published") }); err != nil {
		tun.t.Fatal(err)
	}
}

// trusting has the client's next up present sites, and writes the certificate
// of its authority to trustFile.
func (tun *tunnel) trusting() {
	tun.t.Helper()
	tun.nws("trust", "create", "--state-dir", world.StateDir)
	pem := tun.nws("trust", "show", "--state-dir", world.StateDir)
	for path, text := range map[string]string{trustFile: pem, configFile: "[up]\ntrust_sites = true\n"} {
		if err := tun.Client.WriteFile(path, []byte(text)); err != nil {
			tun.t.Fatal(err)
		}
	}
}

// nws runs nws-vpn in the client and returns its standard output.
func (tun *tunnel) nws(args ...string) string {
	tun.t.Helper()
	res, err := tun.Run(tun.ctx, tun.Client, args...)
	if err != nil || res.Code != 0 {
		tun.t.Fatalf("nws-vpn %q ended with code %d, %v: %s", args, res.Code, err, res.Output)
	}
	return res.Stdout
}

// curl fetches a page of a site, with what to trust, and returns curl's code.
func (tun *tunnel) curl(url, trust string) (page string, code int) {
	tun.t.Helper()
	args := []string{"-sS", "--max-time", "30", url}
	if trust != "" {
		args = append(args, "--cacert", trust)
	}
	res := tun.runAny("curl", "", args...)
	return strings.TrimSpace(res.Stdout), res.Code
}

const untrusted = 60 // curl: the server's certificate is of nobody known

func TestCertificateForCurl(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	tun.startSecured()
	tun.startUp()
	for form, host := range exitNames(t, tun.key) {
		t.Run(form, func(t *testing.T) {
			tun := tun.with(t)
			tun.nws("cert", host, "--relay", world.RelayURL, "-o", siteFile)
			if page, code := tun.curl("https://"+host+"/", siteFile); page != "hello from "+world.ServiceText {
				t.Errorf("got %q, code %d", page, code)
			}
			if page, code := tun.curl("https://"+host+"/", ""); code != untrusted {
				t.Errorf("without the certificate: %q, code %d", page, code)
			}
		})
	}
	host := tun.key + ".nostr"
	t.Run("openssl", func(t *testing.T) {
		tun := tun.with(t)
		if out := tun.run("openssl", "x509", "-in", siteFile, "-noout", "-checkhost", host); !strings.Contains(out, "does match") {
			t.Errorf("x509: %s", out)
		}
		if out := tun.run("openssl", "verify", "-CAfile", siteFile, "-verify_hostname", host, siteFile); !strings.Contains(out, "OK") {
			t.Errorf("verify: %s", out)
		}
		res := tun.runAny("openssl", "", "s_client", "-connect", host+":443", "-servername", host,
			"-CAfile", siteFile, "-verify_return_error", "-verify_hostname", host)
		if res.Code != 0 || !strings.Contains(res.Output, "Verify return code: 0 (ok)") {
			t.Errorf("s_client: code %d, %s", res.Code, res.Output)
		}
	})
	t.Run("nobody's", func(t *testing.T) {
		key := envelopetest.NewKey(t)
		res, err := tun.Run(tun.ctx, tun.Client, "cert", key.Public().NPub()+".nostr", "--relay", world.RelayURL)
		if err != nil || res.Code == 0 || !strings.Contains(res.Output, "no certificate of this key has been published") || res.Stdout != "" {
			t.Errorf("code %d, %v: %s", res.Code, err, res.Output)
		}
	})
	t.Run("private key", func(t *testing.T) {
		res, err := tun.Exit.Run(tun.ctx, netlab.CommandOptions{}, needProgram(t, "stat"), "-c", "%a", tun.keyFile+".tls")
		if err != nil || res.Stdout != "600\n" {
			t.Errorf("the file's mode is %q, %v", res.Stdout, err)
		}
		if pem, err := tun.Client.ReadFile(siteFile); err != nil || bytes.Contains(pem, []byte("PRIVATE")) {
			t.Errorf("published: %q, %v", pem, err)
		}
	})
}

func TestSitesThatBrowsersTrust(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	tun.startSecured()
	tun.trusting()
	tun.startUp("--config", configFile)
	for form, host := range exitNames(t, tun.key) {
		t.Run(form, func(t *testing.T) {
			tun := tun.with(t)
			if page, code := tun.curl("https://"+host+"/", trustFile); page != "hello from "+world.ServiceText {
				t.Errorf("got %q, code %d", page, code)
			}
			if page, code := tun.curl("https://"+host+"/", ""); code != untrusted {
				t.Errorf("without the authority: %q, code %d", page, code)
			}
			if page, _ := tun.curl("http://"+host+"/", ""); page != "hello from "+world.ServiceText {
				t.Errorf("without TLS: %q", page)
			}
		})
	}
	host := tun.key + ".nostr"
	t.Run("transfer", func(t *testing.T) {
		const size = 3_000_001
		out := tun.with(t).run("sh", "-c", fmt.Sprintf("curl -sS --cacert %s 'https://%s/file?size=%d' | sha256sum", trustFile, host, size))
		if !strings.HasPrefix(out, world.FileDigest(size)) {
			t.Errorf("the SHA-256 of what came is %s", out)
		}
	})
	t.Run("openssl", func(t *testing.T) {
		res := tun.with(t).runAny("openssl", "", "s_client", "-connect", host+":443", "-servername", host,
			"-CAfile", trustFile, "-verify_return_error", "-verify_hostname", host)
		if res.Code != 0 || !strings.Contains(res.Output, "Verify return code: 0 (ok)") || !strings.Contains(res.Output, "nws-vpn .nostr sites on this machine") {
			t.Errorf("code %d, %s", res.Code, res.Output)
		}
	})
	t.Run("system store", func(t *testing.T) { tun.with(t).inStore("https://" + host + "/") })
}

// inStore installs the authority into the client's store, and removes it.
func (tun *tunnel) inStore(url string) {
	needProgram(tun.t, "update-ca-certificates")
	machines := func() string {
		text, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
		return fmt.Sprintf("%x %v", sha256.Sum256(text), err)
	}
	before := machines()
	// The client has the machine's directories: what is changed needs others.
	err := tun.Client.Do(func() error {
		for _, dir := range []string{"/usr/local/share/ca-certificates", "/etc/ssl/certs"} {
			if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
				return fmt.Errorf("mount on %s: %w", dir, err)
			}
		}
		return nil
	})
	if err != nil {
		tun.t.Fatal(err)
	}
	tun.nws("trust", "install", "--state-dir", world.StateDir)
	if page, code := tun.curl(url, ""); page != "hello from "+world.ServiceText {
		tun.t.Errorf("installed: %q, code %d", page, code)
	}
	tun.nws("trust", "remove", "--state-dir", world.StateDir)
	if page, code := tun.curl(url, ""); code != untrusted {
		tun.t.Errorf("removed: %q, code %d", page, code)
	}
	if machines() != before {
		tun.t.Error("this machine's own store has changed")
	}
}

// Files of the storyteller: what it answers, and what it was given.
const (
	storyFile     = "/run/story"
	publishedFile = "/run/published"
)

// newStoryteller returns a relay that answers questions for certificates with
// the event in storyFile, and keeps the one that an exit publishes.
func newStoryteller() http.Handler {
	relay := khatru.NewRelay()
	relay.Log = log.New(io.Discard, "", 0)
	relay.StoreEvent = append(relay.StoreEvent, func(_ context.Context, ev *nostr.Event) error {
		if ev.Kind != envelope.KindCertificate {
			return nil
		}
		return os.WriteFile(publishedFile, []byte(ev.String()), 0o644)
	})
	relay.QueryEvents = append(relay.QueryEvents, func(_ context.Context, f nostr.Filter) (chan *nostr.Event, error) {
		answer := make(chan *nostr.Event, 1)
		defer close(answer)
		if len(f.Kinds) != 1 || f.Kinds[0] != envelope.KindCertificate {
			return answer, nil
		}
		ev := new(nostr.Event)
		story, err := os.ReadFile(storyFile)
		if err == nil {
			err = ev.UnmarshalJSON(story)
		}
		answer <- ev
		return answer, err
	})
	return relay
}

// secretKey reads a key file of the exit.
func (tun *tunnel) secretKey() envelope.SecretKey {
	tun.t.Helper()
	text, err := tun.Exit.ReadFile(tun.keyFile)
	if err != nil {
		tun.t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	key, err := envelope.ParseSecretKey(lines[len(lines)-1])
	if err != nil {
		tun.t.Fatal(err)
	}
	return key
}

// A relay may tell what it likes about a site's certificate: what the site's key
// has not said of the certificate in use is refused.
func TestFalseCertificates(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelayOf("storyteller", world.RelayPort)
	tun.startSecured()
	tun.trusting()
	key, now := tun.secretKey(), time.Now()
	stranger := envelopetest.NewKey(t)
	genuine, err := tun.Relay.ReadFile(publishedFile)
	if err != nil {
		t.Fatal(err)
	}
	about := func(key envelope.SecretKey, made, expires time.Time) []byte {
		event, _, err := cert.AppendSPKI(nil, key, made, sha256.Sum256([]byte("another")), expires)
		if err != nil {
			t.Fatal(err)
		}
		return event
	}
	url := "https://" + tun.key + ".nostr/"
	for _, test := range []struct {
		what   string
		story  []byte
		says   string // by nws-vpn cert
		passes bool
	}{
		{"another key's", about(stranger, now, now.Add(time.Hour)), "by another key", false},
		{"expired", about(key, now.Add(-2*time.Hour), now.Add(-time.Hour)), "has expired", false},
		{"forged", bytes.Replace(genuine, []byte("TLS certificate of"), []byte("TLS certificate by"), 1), "hash", false},
		{"of another certificate", about(key, now, now.Add(time.Hour)), "only the hash", false},
		{"genuine", genuine, "", true},
	} {
		t.Run(test.what, func(t *testing.T) {
			tun := tun.with(t)
			if err := tun.Relay.WriteFile(storyFile, test.story); err != nil {
				t.Fatal(err)
			}
			res, err := tun.Run(tun.ctx, tun.Client, "cert", tun.key, "--relay", world.RelayURL)
			if err != nil || (res.Code == 0) != test.passes || !strings.Contains(res.Output, test.says) {
				t.Errorf("cert ended with code %d, %v: %s", res.Code, err, res.Output)
			}
			up := tun.startUp("--config", configFile)
			page, code := tun.curl(url, trustFile)
			if (code == 0) != test.passes || strings.HasPrefix(page, "hello") != test.passes {
				t.Errorf("curl ended with code %d: %q", code, page)
			}
			if refused := strings.Contains(up.Output(), "refused for its certificate"); refused == test.passes {
				t.Errorf("the log says that it is refused: %v", refused)
			}
			tun.takeDown(up)
		})
	}
}
