package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strings"
)

// Redactor replaces what a user does not want to publish: keys, names of hosts
// and people, addresses. The same text gets the same replacement, so that what
// belongs together can still be told; nothing tells what it was. A Redactor must
// not be used concurrently.
type Redactor struct {
	words []string          // of this user and machine, longest first
	given map[string]string // by the text that was replaced, in lower case
	count map[string]int    // by kind
}

// NewRedactor returns a Redactor that also replaces these words, such as the
// names of the user and the machine.
func NewRedactor(words []string) *Redactor {
	r := &Redactor{given: make(map[string]string), count: make(map[string]int)}
	for _, w := range words {
		if w = strings.ToLower(w); len(w) >= 3 && !slices.Contains(common, w) && !slices.Contains(r.words, w) {
			r.words = append(r.words, w)
		}
	}
	slices.SortFunc(r.words, func(a, b string) int { return len(b) - len(a) })
	return r
}

// common are names of users and machines that say nothing, and would take
// half of a report with them.
var common = []string{"root", "user", "admin", "localhost", "nobody", "host", "exit", "relay", "client", "linux"}

// Identity lists the names of this user and machine.
func Identity() []string {
	words := []string{os.Getenv("SUDO_USER"), os.Getenv("USER"), os.Getenv("LOGNAME")}
	if u, err := user.Current(); err == nil {
		words = append(words, u.Username)
		words = append(words, strings.Fields(u.Name)...)
	}
	if h, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(h, ".")
		words = append(words, h, short)
	}
	return words
}

// What is looked for, in this order: what is replaced early is not seen by the
// later ones, since a replacement holds none of it.
var (
	// A line of the configuration, or of JSON, whose name tells that it is a
	// secret, whatever it looks like.
	secretValue = regexp.MustCompile(`(?i)("?\b[a-z0-9_-]*(?:secret|password|passphrase|token|nsec|private_key|privkey|seed|contact|instance)[a-z0-9_-]*"?\s*[=:]\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}\]]+)`)
	// Lists of names and users, the exit's petname and the services behind it,
	// whatever these look like.
	namesValue = regexp.MustCompile(`(?i)(\b(?:(?:in|ex)clude_(?:domains|users)"?\s*[=:]\s*\[|services"?\s*[=:]\s*\{))([^\]}]*)`)
	quotedText = regexp.MustCompile(`("?[^\s"=:,{]*"?\s*[=:]\s*)?"((?:[^"\\]|\\.)*)"`)
	exitValue  = regexp.MustCompile(`(?m)^(\s*"?exit"?\s*[=:]\s*)"([^".]*)"`)
	service    = regexp.MustCompile(`(?m)^(\s*"?\d{1,5}"?\s*=\s*)"([^"]*)"`)
	// The path of a relay may be all that keeps strangers out.
	urlPath = regexp.MustCompile(`(?i)\b((?:wss?|https?)://[^/\s"'?]+)([/?][^\s"',)>\]]+)`)
	// A name that was looked up, as errors tell of it.
	lookedUp   = regexp.MustCompile(`\blookup ([^\s:\[]+)( on |: no such host|: server misbehaving|: i/o timeout)`)
	pemBlock   = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\z)`)
	bech32     = regexp.MustCompile(`(?i)\b(n(?:sec|cryptsec|pub|profile|event|ote|addr|relay))1[02-9ac-hj-np-z]{6,}`)
	longHex    = regexp.MustCompile(`(?i)\b(?:0x)?[0-9a-f]{32,}\b|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`)
	longBase64 = regexp.MustCompile(`[A-Za-z0-9+/_-]{40,}={0,2}`)
	// An attribute of a log line that holds a destination, maybe a bare name.
	destination = regexp.MustCompile(`(?i)\b((?:name|host|address|addr|destination|dst|target|site|query|question|domain)=)("(?:[^"\\]|\\.)*"|[^\s"]+)`)
	home        = regexp.MustCompile(`(?i)(/home/|/Users/|\\Users\\)([^/\\\s"':]+)`)
	mail        = regexp.MustCompile(`(?i)[a-z0-9._%+-]+@[a-z0-9.-]+`)
	mac         = regexp.MustCompile(`(?i)\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\b`)
	ipv4        = regexp.MustCompile(`\b\d{1,3}(?:\.\d{1,3}){3}\b`)
	ipv6        = regexp.MustCompile(`(?i)[0-9a-f]*:[0-9a-f:]*(?::|[0-9a-f])(?:\.\d{1,3}){0,3}(?:%[a-z0-9]+)?`)
	urlHost     = regexp.MustCompile(`(?i)\b((?:wss?|https?)://)([^/\s"':\[\]]+)`)
	hostname    = regexp.MustCompile(`(?i)(?:[\pL\pN_](?:[\pL\pN_-]*[\pL\pN_])?\.)+(?:\pL[\pL\pN-]*\pL|xn--[a-z0-9-]+)\.?`)
	petname     = regexp.MustCompile(`(?im)^(\s*"?)([\pL\pN_.-]+)("?\s*=\s*"\[)`)
)

// Redact returns text without what should stay with the user.
func (r *Redactor) Redact(text string) string {
	text = pemBlock.ReplaceAllStringFunc(text, func(s string) string { return r.as("secret", s) })
	text = r.values(text)
	text = secretValue.ReplaceAllStringFunc(text, func(s string) string {
		m := secretValue.FindStringSubmatch(s)
		return m[1] + quoted(m[2], r.as("secret", m[2]))
	})
	text = bech32.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(strings.ToLower(s), "nsec") || strings.HasPrefix(strings.ToLower(s), "ncrypt") {
			return r.as("secret", s)
		}
		return r.as("key", s)
	})
	text = longHex.ReplaceAllStringFunc(text, func(s string) string { return r.as("key", s) })
	text = mail.ReplaceAllStringFunc(text, func(s string) string { return r.as("mail", s) })
	text = mac.ReplaceAllStringFunc(text, func(s string) string { return r.as("mac", s) })
	text = ipv4.ReplaceAllStringFunc(text, r.address)
	text = ipv6.ReplaceAllStringFunc(text, r.address)
	text = urlHost.ReplaceAllStringFunc(text, func(s string) string {
		m := urlHost.FindStringSubmatch(s)
		return m[1] + r.as("host", m[2])
	})
	text = hostname.ReplaceAllStringFunc(text, r.host)
	text = destination.ReplaceAllStringFunc(text, func(s string) string {
		m := destination.FindStringSubmatch(s)
		if strings.Contains(m[2], "[") {
			return s // it was replaced in part, and the rest is a port
		}
		return m[1] + quoted(m[2], r.as("host", strings.Trim(m[2], `"`)))
	})
	text = home.ReplaceAllStringFunc(text, func(s string) string {
		m := home.FindStringSubmatch(s)
		return m[1] + r.as("user", m[2])
	})
	for _, w := range r.words {
		text = r.word(text, w)
	}
	text = petname.ReplaceAllStringFunc(text, func(s string) string {
		m := petname.FindStringSubmatch(s)
		if slices.Contains(configKeys, m[2]) || strings.Trim(m[2], "0123456789") == "" {
			return s
		}
		return m[1] + r.as("name", m[2]) + m[3]
	})
	return longBase64.ReplaceAllStringFunc(text, func(s string) string { return r.as("secret", s) })
}

// values replaces what is known by its place, before parts of it are known by
// their look.
func (r *Redactor) values(text string) string {
	text = urlPath.ReplaceAllStringFunc(text, func(s string) string {
		m := urlPath.FindStringSubmatch(s)
		return m[1] + "/" + r.as("path", m[2])
	})
	text = namesValue.ReplaceAllStringFunc(text, func(s string) string {
		list := namesValue.FindStringSubmatch(s)
		return list[1] + quotedText.ReplaceAllStringFunc(list[2], func(s string) string {
			m := quotedText.FindStringSubmatch(s)
			return m[1] + `"` + r.as("name", m[2]) + `"`
		})
	})
	text = exitValue.ReplaceAllStringFunc(text, func(s string) string {
		m := exitValue.FindStringSubmatch(s)
		if m[2] == "" || m[2] == "auto" || bech32.MatchString(m[2]) {
			return s
		}
		return m[1] + `"` + r.as("name", m[2]) + `"`
	})
	text = service.ReplaceAllStringFunc(text, func(s string) string {
		m := service.FindStringSubmatch(s)
		return m[1] + `"` + r.as("service", m[2]) + `"`
	})
	return lookedUp.ReplaceAllStringFunc(text, func(s string) string {
		m := lookedUp.FindStringSubmatch(s)
		return "lookup " + r.as("host", m[1]) + m[2]
	})
}

// configKeys are keys of the configuration whose values may be replaced, and
// which are no petnames.
var configKeys = []string{"exit", "key_file", "certificate_file", "contact", "instance", "public_address", "nws_resolver", "listen", "device"}

func quoted(old, text string) string {
	if strings.HasPrefix(old, `"`) {
		return `"` + text + `"`
	}
	return text
}

// as returns the replacement of a text.
func (r *Redactor) as(kind, text string) string {
	text = strings.ToLower(text)
	if was, ok := r.given[text]; ok {
		return was
	}
	r.count[kind]++
	r.given[text] = fmt.Sprintf("[%s-%d]", kind, r.count[kind])
	return r.given[text]
}

// own are addresses that every tunnel has, and prefixes that say nothing.
var own = []netip.Prefix{
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fd6e:7773:7670::/48"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("128.0.0.0/32"), netip.MustParsePrefix("8000::/128"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/128"),
}

func (r *Redactor) address(s string) string {
	text, zone, _ := strings.Cut(s, "%")
	addr, err := netip.ParseAddr(text)
	if err != nil && strings.HasSuffix(text, ":") { // the end of a clause
		if addr, err = netip.ParseAddr(strings.TrimSuffix(text, ":")); err == nil {
			return r.address(strings.TrimSuffix(text, ":")) + ":"
		}
	}
	if err != nil {
		return s
	}
	for _, p := range own {
		if p.Contains(addr) {
			return s
		}
	}
	kind := "public"
	switch {
	case addr.IsPrivate() || netip.MustParsePrefix("100.64.0.0/10").Contains(addr):
		kind = "private"
	case addr.IsLinkLocalUnicast():
		kind = "link-local"
	}
	version := "ip4"
	if addr.Is6() {
		version = "ip6"
	}
	text = r.as(kind+"-"+version, addr.String())
	if zone != "" {
		text += "%" + zone
	}
	return text
}

// notHosts are the last parts of what looks like the name of a host: files,
// units, and settings of the kernel.
var notHosts = []string{
	"conf", "toml", "log", "json", "go", "sock", "txt", "service", "socket", "key", "tls", "gz", "example", "resolve",
}

func (r *Redactor) host(s string) string {
	lower := strings.ToLower(s)
	if strings.HasPrefix(lower, "systemd.unified") || strings.HasPrefix(lower, "net.ipv4.") || strings.HasPrefix(lower, "net.ipv6.") ||
		strings.HasPrefix(lower, "ipv4.") || strings.HasPrefix(lower, "ipv6.") {
		return s
	}
	name := strings.TrimSuffix(lower, ".")
	if last := name[strings.LastIndex(name, ".")+1:]; slices.Contains(notHosts, last) && known(name) {
		return s
	}
	return r.as("host", name) + lower[len(name):]
}

// known reports whether a file is one of the program or the system. Others' names
// may tell something.
func known(name string) bool {
	return slices.Contains([]string{
		"nws.toml", "nws.toml.example", "up.log", "control.sock", "resolv.conf", "stub-resolv.conf", "no-stub-resolv.conf", "nsswitch.conf",
		"report.txt", "report.json", "network.json", "status.json", "nws-vpn.service", "systemd-resolved.service", "systemd.resolve",
	}, name)
}

// word replaces a word of the user's wherever it stands by itself.
func (r *Redactor) word(text, word string) string {
	at := regexp.MustCompile(`(?i)(^|[^\pL\pN])` + regexp.QuoteMeta(word) + `($|[^\pL\pN])`)
	for range 2 { // neighbours share the character between them
		text = at.ReplaceAllStringFunc(text, func(s string) string {
			m := at.FindStringSubmatch(s)
			return m[1] + r.as("user", word) + m[2]
		})
	}
	return text
}
