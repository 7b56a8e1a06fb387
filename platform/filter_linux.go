package platform

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// filterTable is our table's name, in the family inet: IPv4 and IPv6.
const filterTable = "nws-vpn"

// filterChange is the packet filter: a table of nftables, replaced as a whole.
// What it knows of connections is with the kernel's list of these (see
// filterSpec), not in the table, so that none notices.
type filterChange struct{ Spec filterSpec }

func (f *filterChange) String() string { return "nft add table inet " + filterTable }

// script lists the filter as commands.
func (f *filterChange) script() []string {
	lines := []string{f.String()}
	for _, c := range f.Spec.chains() {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("nft add chain inet %s %s %s", filterTable, c.name, c.header())))
	}
	for _, c := range f.Spec.chains() {
		for _, r := range c.rules {
			lines = append(lines, fmt.Sprintf("nft add rule inet %s %s %s", filterTable, c.name, r))
		}
	}
	return lines
}

func (c *filterChain) header() string {
	if c.hook == nil {
		return ""
	}
	hooks := map[nftables.ChainHook]string{
		unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
		unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
	}
	policy := "accept"
	if c.drop {
		policy = "drop"
	}
	return fmt.Sprintf("{ type %s hook %s priority %d; policy %s; }", c.kind, hooks[*c.hook], *c.priority, policy)
}

func (c *filterChain) policy() nftables.ChainPolicy {
	if c.drop {
		return nftables.ChainPolicyDrop
	}
	return nftables.ChainPolicyAccept
}

// label is what a rule carries in the kernel, where nft shows it as a comment:
// its place, and a fingerprint of the whole filter. A table whose rules carry
// the right labels in the right order is the one we have made.
func label(chain string, i int, print string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, fmt.Sprintf("%s %d %s", chain, i, print))
}

func (f *filterChange) fingerprint() string {
	lines := f.script()
	if c := f.Spec.Cgroup; c != nil {
		// A command names it by its path, the kernel by its number: another one
		// in its place is another filter.
		lines = append(lines, fmt.Sprintf("cgroup %d", c.ID))
	}
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:6])
}

// maxFilterBytes is room for the largest filter in the socket's buffers: it is
// sent, and confirmed, at once.
const maxFilterBytes = 8 << 20

func nftConn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(maxFilterBytes), c.SetReadBuffer(maxFilterBytes))
	}))
}

func ourTable() *nftables.Table {
	return &nftables.Table{Name: filterTable, Family: nftables.TableFamilyINet}
}

// findTable reports whether a table of our name is there.
func findTable(conn *nftables.Conn) (bool, error) {
	tables, err := dumpFilters(func() ([]*nftables.Table, error) { return conn.ListTablesOfFamily(nftables.TableFamilyINet) })
	if err != nil {
		return false, err
	}
	for _, t := range tables {
		if t.Name == filterTable {
			return true, nil
		}
	}
	return false, nil
}

func (f *filterChange) inForce(*env) (bool, error) {
	conn, err := nftConn()
	if err != nil {
		return false, err
	}
	if ok, err := findTable(conn); !ok || err != nil {
		return false, err
	}
	found, err := dumpFilters(func() ([]*nftables.Chain, error) { return conn.ListChainsOfTableFamily(nftables.TableFamilyINet) })
	if err != nil {
		return false, err
	}
	have := make(map[string]*nftables.Chain)
	for _, c := range found {
		if c.Table.Name == filterTable {
			have[c.Name] = c
		}
	}
	chains, print := f.Spec.chains(), f.fingerprint()
	if len(have) != len(chains) {
		return false, nil
	}
	for i := range chains {
		if ok, err := chains[i].isThere(conn, have[chains[i].name], print); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// isThere reports whether the kernel's chain is this one.
func (c *filterChain) isThere(conn *nftables.Conn, have *nftables.Chain, print string) (bool, error) {
	if have == nil || (have.Hooknum == nil) != (c.hook == nil) {
		return false, nil
	}
	if c.hook != nil && (*have.Hooknum != *c.hook || *have.Priority != *c.priority || have.Policy == nil || *have.Policy != c.policy()) {
		return false, nil
	}
	rules, err := dumpFilters(func() ([]*nftables.Rule, error) { return conn.GetRules(ourTable(), have) })
	if err != nil || len(rules) != len(c.rules) {
		return false, err
	}
	for i, r := range rules {
		if !bytes.Equal(r.UserData, label(c.name, i, print)) {
			return false, nil
		}
	}
	return true, nil
}

// apply replaces the table in one step: there is no moment without a filter.
func (f *filterChange) apply(*env) error {
	conn, err := nftConn()
	if err != nil {
		return explainFilter(err)
	}
	table := ourTable()
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	chains, print := f.Spec.chains(), f.fingerprint()
	made := make([]*nftables.Chain, len(chains))
	for i := range chains {
		c := &chains[i]
		made[i] = &nftables.Chain{Name: c.name, Table: table, Type: c.kind, Hooknum: c.hook, Priority: c.priority}
		if c.hook != nil {
			policy := c.policy()
			made[i].Policy = &policy
		}
		conn.AddChain(made[i])
	}
	for i, c := range chains {
		for j, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: made[i], Exprs: r.exprs(), UserData: label(c.name, j, print)})
		}
	}
	return explainFilter(conn.Flush())
}

func (f *filterChange) undo(*env) error {
	conn, err := nftConn()
	if err != nil {
		return err
	}
	ok, err := findTable(conn)
	if lacksFilter(err) || (err == nil && !ok) {
		return nil
	}
	if err != nil {
		return err
	}
	conn.DelTable(ourTable())
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// lacksFilter reports whether an error says that the kernel has no nf_tables.
func lacksFilter(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)
}

func explainFilter(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the packet filter needs CAP_NET_ADMIN: run as root", err)
	case lacksFilter(err), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: this kernel lacks nf_tables or a part of it (nft_ct, nft_fib_inet, nft_reject_inet): load the modules with `modprobe nf_tables`, or go without a packet filter with kill_switch = \"off\"", err)
	}
	return err
}
