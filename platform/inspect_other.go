//go:build !linux

package platform

// Inspect reads nothing: this operating system is not supported yet.
func Inspect(stateDir string) *Inspection {
	return &Inspection{Problems: []string{errNotSupported().Error()}}
}

// Abilities reports that nothing can be done here yet.
func Abilities() []Ability {
	return []Ability{{Name: AbilityAdmin, Missing: errNotSupported().Error()}}
}

// Ask fails: this operating system is not supported yet.
func Ask(Question) (Way, error) { return Way{}, errNotSupported() }
