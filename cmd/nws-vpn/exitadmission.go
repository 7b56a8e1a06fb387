package main

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit/admission"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// exitAdmissionFile holds bans and invitations, in an exit's state directory.
const exitAdmissionFile = "admission.json"

func openBook(state string, e *config.Exit) (*admission.Book, error) {
	rules, err := admissionRules(e)
	if err != nil {
		return nil, err
	}
	return admission.OpenBook(filepath.Join(state, exitAdmissionFile), rules)
}

// admissionRules are who may use the exit, as the configuration says.
func admissionRules(e *config.Exit) (rules admission.Rules, err error) {
	switch e.Admission {
	case config.AdmitListed:
		rules.Mode = admission.Listed
	case config.AdmitFollowed:
		rules.Mode = admission.Trust
	}
	if rules.Listed, err = parseAll(rules.Listed, e.Allow, envelope.ParsePublicKey, "allow"); err != nil {
		return rules, err
	}
	rules.FollowsOf, err = parseAll(rules.FollowsOf, e.WoT, envelope.ParsePublicKey, "wot")
	return rules, err
}

// setAdmission has c say who may use the exit.
func (r *exitRun) setAdmission(c *config.Config) error {
	rules, err := admissionRules(&c.Exit)
	if err == nil {
		r.book.SetRules(rules)
	}
	return err
}

func (r *exitRun) admit(who nostrlink.Client, token string) error {
	return r.book.Admit(who, token, time.Now())
}

// watchGuests turns out those who may not stay, and keeps the follow lists, until
// ctx ends.
func (r *exitRun) watchGuests(ctx context.Context, beside *sync.WaitGroup) {
	beside.Go(func() {
		r.book.Watch(ctx, func(why func(nostrlink.Client) error) {
			for _, n := range r.names {
				n.listener.TurnOut(why)
			}
		}, r.log)
	})
	first := r.names[0]
	beside.Go(func() {
		r.book.KeepFollows(ctx, first.hub.NewDirectory(first.relays, r.log).Follows, r.log)
	})
}
