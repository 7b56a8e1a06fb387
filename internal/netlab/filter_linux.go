package netlab

import (
	"fmt"

	"github.com/google/nftables"
)

// filters describes the packet filter of a host, a line per table, chain and
// rule, in the kernel's order. It is called inside the host.
func filters() (lines []string, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		lines = append(lines, fmt.Sprintf("filter table %d %s flags %d", t.Family, t.Name, t.Flags))
		for _, chain := range chains {
			if chain.Table.Name != t.Name || chain.Table.Family != t.Family {
				continue
			}
			lines = append(lines, fmt.Sprintf("filter table %s chain %s %s", t.Name, chain.Name, chain.Type))
			rules, err := c.GetRules(t, chain)
			if err != nil {
				return nil, err
			}
			for i, r := range rules {
				lines = append(lines, fmt.Sprintf("filter table %s chain %s rule %d with %d expressions", t.Name, chain.Name, i, len(r.Exprs)))
			}
		}
	}
	return lines, nil
}

// FlushFilters deletes every nftables table, as `nft flush ruleset` does, and
// returns how many there were.
func (h *Host) FlushFilters() (n int, err error) {
	err = h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		n = len(tables)
		if err == nil && n > 0 {
			c.FlushRuleset()
			err = c.Flush()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("netlab: flush the filters of %s: %w", h.name, err)
	}
	return n, nil
}

// AddFilter adds an empty table, as another program's.
func (h *Host) AddFilter(name string) error {
	err := h.Do(func() error {
		c, err := nftables.New()
		if err == nil {
			c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
			err = c.Flush()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("netlab: add a filter to %s: %w", h.name, err)
	}
	return nil
}
