package platform

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// killedWhenUp leaves what a process that is killed when its tunnel is up does.
func killedWhenUp(t *testing.T, dir string) {
	t.Helper()
	for at, p := range runVictim(t, dir, 0) {
		if p == "before verifying" {
			runVictim(t, dir, at+1)
			return
		}
	}
	t.Fatal("the process does not verify")
}

// editJournal changes the journal as fn says.
func editJournal(t *testing.T, dir string, fn func(*journal)) {
	t.Helper()
	j, err := readJournal(dir)
	must(t, err)
	fn(j)
	must(t, writeJournal(dir, j))
}

// TestReboot is a journal from before the machine was restarted: what it says of
// the kernel is no longer so, but the resolver's file still is ours.
func TestReboot(t *testing.T) {
	for _, how := range []struct {
		name string
		do   func(t *testing.T, dir string)
	}{
		{"CleanUp", cleanUpTwice},
		{"New", takeOver},
	} {
		t.Run(how.name, func(t *testing.T) {
			enterNamespaces(t)
			before := snapshot(t)
			dir := stateDir(t)
			killedWhenUp(t, dir)
			// What a restart does, and a program of the new start that happens to
			// use one of the numbers.
			must(t, flushRules())
			editJournal(t, dir, func(j *journal) { j.Boot = "11111111-2222-3333-4444-555555555555" })
			must(t, writeSysctl(srcValidMark, 0))
			must(t, writeSysctl(arpIgnore, 0))
			must(t, (&filterChange{}).undo(nil))
			for _, name := range []string{markAccepted, markReflected4, markReflected6} {
				must(t, writeSysctl(name, 0))
			}
			how.do(t, dir)
			if d := diff(before, snapshot(t)); d != "" {
				t.Errorf("a difference is left:\n%s", d)
			}
		})
	}
}

// flushRules takes our rules and routes away.
func flushRules() error {
	var err error
	for _, family := range []int{4, 6} {
		cfg := filterConfig().withDefaults()
		for _, r := range planRules(cfg, &facts{ipv6: ipv6On}) {
			err = errors.Join(err, r.undo(nil))
		}
		err = errors.Join(err, (&routeChange{Family: family, Table: DefaultTable}).undo(nil))
	}
	return err
}

// TestRebootLeavesForeignNumbers has a rule that a journal of an earlier start
// would take for ours.
func TestRebootLeavesForeignNumbers(t *testing.T) {
	enterNamespaces(t)
	dir := stateDir(t)
	killedWhenUp(t, dir)
	editJournal(t, dir, func(j *journal) { j.Boot = "11111111-2222-3333-4444-555555555555" })
	before, err := listRules(4)
	must(t, err)
	must(t, CleanUp(dir, testLog(t)))
	after, err := listRules(4)
	must(t, err)
	if len(before) != 7 || len(after) != 7 {
		t.Errorf("there were %d rules, and there are %d", len(before), len(after))
	}
}

func TestJournalOfAnotherNamespace(t *testing.T) {
	enterNamespaces(t)
	dir := stateDir(t)
	killedWhenUp(t, dir)
	other := newPeer(t)
	var st unix.Stat_t
	must(t, unix.Fstat(other.fd, &st))

	// It exists, in the file descriptors of this process and as a mount.
	if err := os.WriteFile("/etc/mnt", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, mountNamespace(other.fd, "/etc/mnt"))
	editJournal(t, dir, func(j *journal) { j.Namespace = namespace{Inode: st.Ino, Cookie: 12345678} })
	for _, err := range []error{CleanUp(dir, testLog(t)), newError(dir, t)} {
		if err == nil || !strings.Contains(err.Error(), "another network namespace") {
			t.Errorf("a journal of another namespace that exists: %v", err)
		}
	}

	// It is gone: then so is what the kernel kept there.
	must(t, unix.Unmount("/etc/mnt", 0))
	editJournal(t, dir, func(j *journal) { j.Namespace = namespace{Inode: 1, Cookie: 12345678} })
	must(t, CleanUp(dir, testLog(t)))
	if b, err := os.ReadFile("/etc/resolv.conf"); err != nil || !strings.Contains(string(b), "192.0.2.53") {
		t.Errorf("the resolver's file is %q, %v", b, err)
	}
}

func newError(dir string, t *testing.T) error {
	c, err := New(dir, Options{Log: testLog(t)})
	if err == nil {
		c.Close()
	}
	return err
}

func mountNamespace(fd int, at string) error {
	return unix.Mount(filepath.Join("/proc/self/fd", strconv.Itoa(fd)), at, "", unix.MS_BIND, "")
}

// TestDeviceOfTheSameName has another program's device where a killed process
// had its TUN: it stays as it is.
func TestDeviceOfTheSameName(t *testing.T) {
	enterNamespaces(t)
	before := snapshot(t)
	dir := stateDir(t)
	killedWhenUp(t, dir)
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nws0", MTU: 1234}, PeerName: "nws1"}))
	linkUp(t, nil, "nws0", "10.9.8.7/24")
	must(t, CleanUp(dir, testLog(t)))
	link, err := netlink.LinkByName("nws0")
	must(t, err)
	if !isUp(link.Attrs()) || link.Attrs().MTU != 1234 {
		t.Errorf("the other program's device was changed: %+v", link.Attrs())
	}
	must(t, netlink.LinkDel(link))
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("a difference is left:\n%s", d)
	}
}

// leak check 21: no room for the journal
func TestFullDisk(t *testing.T) {
	enterNamespaces(t)
	dir := stateDir(t)
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	before := snapshot(t)
	tun := openTUN(t, "nws0")
	fill := func() {
		t.Helper()
		f, err := os.Create(dir + "/full")
		must(t, err)
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	fill()
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	if err := c.Set(filterConfig()); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("set says %v", err)
	}
	must(t, c.Set(Config{}))
	// A disk that fills up while the tunnel is up does not keep it from going
	// down, nor CleanUp from repairing.
	must(t, os.Remove(dir+"/full"))
	must(t, c.Set(filterConfig()))
	fill()
	must(t, c.Close())
	if d := diff(before, snapshot(t)); !strings.Contains(d, "nws") && d != "" {
		t.Errorf("close left a difference:\n%s", d)
	}
	tun.Close()
	must(t, os.Remove(dir+"/full"))
	killedWhenUp(t, dir)
	fill()
	must(t, CleanUp(dir, testLog(t)))
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("CleanUp left a difference:\n%s", d)
	}
}

// TestPowerCut takes the files as they are at every point, as a disk would keep
// them, and repairs from these after a restart, which the kernel's part does not
// survive.
//
// leak check 27: the journal cut at any byte
func TestPowerCut(t *testing.T) {
	enterNamespaces(t)
	openTUN(t, "nws0")
	dir := stateDir(t)
	type disk struct {
		point        string
		journal      []byte
		resolv, next savedFile
	}
	var disks []disk
	c, err := open(dir, testLog(t), testEnv(func(point string) error {
		d := disk{point: point}
		d.journal, _ = os.ReadFile(dir + "/journal")
		var err1, err2 error
		d.resolv, err1 = readFile("/etc/resolv.conf")
		d.next, err2 = readFile(newName("/etc/resolv.conf"))
		disks = append(disks, d)
		return errors.Join(err1, err2)
	}))
	must(t, err)
	before := snapshot(t)
	cfg := filterConfig()
	cfg.Hold = true
	must(t, c.Set(cfg))
	must(t, c.Set(Config{}))
	must(t, c.Close())
	if len(disks) < 60 {
		t.Fatalf("only %d points", len(disks))
	}
	for _, d := range disks {
		after := stateDir(t)
		must(t, os.WriteFile(after+"/journal.new", []byte("{"), 0o600)) // half of the next
		if d.journal != nil {
			must(t, os.WriteFile(after+"/journal", d.journal, 0o600))
			editJournal(t, after, func(j *journal) { j.Boot = "11111111-2222-3333-4444-555555555555" })
		}
		must(t, putFile(testEnv(nil), "/etc/resolv.conf", d.resolv))
		if d.next.Kind != kindMissing {
			must(t, putFile(testEnv(nil), newName("/etc/resolv.conf"), d.next))
		}
		must(t, CleanUp(after, testLog(t)))
		if diff := diff(before, snapshot(t)); diff != "" {
			t.Fatalf("power lost at %q: a difference is left:\n%s", d.point, diff)
		}
	}
}

func TestDamagedJournal(t *testing.T) {
	enterNamespaces(t)
	for _, text := range []string{
		"", "{", "null", "[]", `{"Version":2}`, `{"Version":1,"Unknown":1}`,
		`{"Version":1,"Changes":[{}]}`,
		`{"Version":1,"Changes":[{"sysctl":{"Name":"../../kernel/core_pattern","Value":1,"Old":0}}]}`,
		`{"Version":1,"Changes":[{"sysctl":{"Name":"ipv4/ip_forward","Value":1,"Old":0}}]}`,
		`{"Version":1,"Changes":[{"link":{"Device":"../x","Index":1}}]}`,
		`{"Version":1,"Changes":[{"rule":{"Family":4,"Priority":32766,"Table":254}}]}`,
		`{"Version":1,"Changes":[{"route":{"Family":4,"Table":254}}]}`,
		`{"Version":1,"Changes":[{"rule":{"Family":4,"Priority":1},"route":{"Family":4,"Table":1}}]}`,
	} {
		dir := stateDir(t)
		must(t, os.WriteFile(dir+"/journal", []byte(text), 0o600))
		before := snapshot(t)
		for _, err := range []error{CleanUp(dir, testLog(t)), newError(dir, t)} {
			if err == nil || !strings.Contains(err.Error(), "ip rule") {
				t.Errorf("journal %q: %v", text, err)
			}
		}
		if d := diff(before, snapshot(t)); d != "" {
			t.Errorf("journal %q made a difference:\n%s", text, d)
		}
	}
}

func TestCleanUpWithoutAJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	must(t, CleanUp(dir, testLog(t)))
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CleanUp made the directory: %v", err)
	}
}

// FuzzJournal reads what may be in a journal: an error, or changes that are
// written and read again as they were.
func FuzzJournal(f *testing.F) {
	cfg := filterConfig().withDefaults()
	cfg.AllowLAN, cfg.Exclude, cfg.ExcludeUIDs = true, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, []uint32{7}
	facts := &facts{ipv6: ipv6On, strict: true, resolv: savedFile{Kind: kindLink, Target: "../run/x"}, bridges: []string{"br0"}, lan: []onLink{{"eth0", netip.MustParsePrefix("10.0.0.0/8")}}}
	list, _, err := plan(cfg, facts, nil)
	if err != nil {
		f.Fatal(err)
	}
	b, err := json.Marshal(&journal{Version: journalVersion, Boot: "b", Namespace: namespace{1, 2}, Changes: list})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"Version":1,"Changes":[{"address":{"Device":"a","Address":"::1"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := parseJournal(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(j)
		must(t, err)
		j2, err := parseJournal(again)
		must(t, err)
		if len(j.Changes) != len(j2.Changes) {
			t.Fatalf("%d changes became %d", len(j.Changes), len(j2.Changes))
		}
		b2, err := json.Marshal(j2)
		must(t, err)
		if !reflect.DeepEqual(again, b2) {
			t.Fatalf("%s became %s", again, b2)
		}
		for _, c := range j.Changes {
			if c.String() == "" {
				t.Error("a change without a name")
			}
		}
	})
}
