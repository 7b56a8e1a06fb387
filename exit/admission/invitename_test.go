package admission

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A name is for one invitation, so that who revokes it takes no other one back.
func TestNamesOfInvitations(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "admission"), Rules{Mode: Listed})
	first, err := b.Invite("one", "alice", 1, noon.Add(time.Hour), noon)
	must(t, err)
	for _, name := range []string{"alice", first.ID} {
		_, err = b.Invite("two", name, 1, time.Time{}, noon)
		if err == nil || !strings.Contains(err.Error(), "invitation "+first.ID+" has the name") {
			t.Errorf("the name %s: %v", name, err)
		}
	}
	for _, token := range []string{"two", "three"} { // those without a name are any number
		_, err = b.Invite(token, "", 1, time.Time{}, noon)
		must(t, err)
	}
	// One that is over takes nothing from anybody.
	later := noon.Add(2 * time.Hour)
	_, err = b.Invite("four", "alice", 1, time.Time{}, later)
	must(t, err)
	_, err = b.Revoke("alice", later)
	must(t, err)
	_, err = b.Invite("five", "alice", 1, time.Time{}, later)
	must(t, err)
}
