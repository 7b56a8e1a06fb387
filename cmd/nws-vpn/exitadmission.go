package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit/admission"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// exitAdmissionFile holds bans and invitations, in an exit's state directory.
const exitAdmissionFile = "admission.json"

// openAdmission opens the book of who may use the exit.
func (r *exitRun) openAdmission() (err error) {
	if r.book, err = openBook(r.state, &r.cfg.Exit); err != nil {
		return err
	}
	apply, err := r.prepareAdmission(r.cfg)
	if err != nil {
		return err
	}
	return apply()
}

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

// prepareAdmission is for who may use the exit.
func (r *exitRun) prepareAdmission(c *config.Config) (apply func() error, err error) {
	rules, err := admissionRules(&c.Exit)
	if err != nil {
		return nil, err
	}
	return func() error {
		r.book.SetRules(rules)
		warnOfNobody(r.book, rules, time.Now(), r.log)
		return nil
	}, nil
}

// warnOfNobody warns of an exit that admits nobody at all.
func warnOfNobody(book *admission.Book, rules admission.Rules, now time.Time, log *slog.Logger) {
	if rules.Mode != admission.Listed || len(rules.Listed) > 0 {
		return
	}
	invites, err := book.Invites(now)
	isOver := func(i admission.Invitation) bool { return !i.Expires.IsZero() && !now.Before(i.Expires) }
	if err == nil && len(slices.DeleteFunc(invites, isOver)) == 0 {
		log.Warn("this exit serves nobody, for nobody is in allow and nobody is invited: list npubs there, invite with `nws-vpn exit invite`, or change admission", "admission", config.AdmitListed)
	}
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
