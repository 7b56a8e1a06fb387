package relayd

import (
	"fmt"
	"math/bits"
	"strconv"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// knownKeys is how many authors are verified faster than others. Those who send
// much are few.
const knownKeys = 256

// verify is a worker. When there is more than one event to check it takes two
// together, which is faster than one after the other.
func (s *Server) verify() {
	for j := range s.work {
		select {
		case k, ok := <-s.work:
			if ok {
				j.verdict, k.verdict = envelope.CheckBothIDs(&j.event, &k.event)
				s.verifySignature(j)
				s.verifySignature(k)
				continue
			}
		default:
		}
		j.verdict = j.event.CheckID()
		s.verifySignature(j)
	}
}

// verifySignature completes the check of an event whose id has been checked.
func (s *Server) verifySignature(j *job) {
	switch {
	case j.verdict != nil:
	case j.vouched:
		s.stats.vouched.Add(1)
	default:
		j.verdict = s.verifier.VerifySignature(&j.event)
		s.stats.verified.Add(1)
	}
	close(j.ready)
}

// acceptable checks what can be told of an event without its signature.
func (s *Server) acceptable(j *job, now time.Time) error {
	e, limits := &j.event, s.limits()
	class := classOf(e.Kind)
	age := now.Sub(time.Unix(e.CreatedAt, 0))
	expires := expiration(e)
	switch {
	case len(j.parsed.Event) > limits.MaxEvent:
		return refusal(fmt.Sprintf("invalid: event is larger than %d bytes", limits.MaxEvent))
	case e.Kind == kindAuth:
		return refusal("invalid: an event of kind 22242 goes into an AUTH message and nowhere else")
	case class != ephemeral && !s.keep.Has(e.Kind):
		return refusal(fmt.Sprintf("blocked: kind %d is not among those that this relay keeps; it forwards ephemeral events", e.Kind))
	case age < -limits.MaxAhead:
		return refusal("invalid: created_at is too far in the future; is the clock right?")
	case class == ephemeral && age > limits.MaxAge:
		return refusal("invalid: created_at is too far in the past for an ephemeral event; is the clock right?")
	case class != ephemeral && limits.MaxStoredAge > 0 && age > limits.MaxStoredAge:
		return refusal("invalid: created_at is longer ago than this relay keeps events")
	case expires != 0 && expires <= now.Unix():
		return refusal("invalid: the event has expired")
	case class != ephemeral:
		return s.checkWork(e)
	}
	return nil
}

// checkWork checks the proof of work of an event that is to be kept. (NIP-13)
func (s *Server) checkWork(e *envelope.Event) error {
	want := s.settings.Load().minPoW
	if want <= 0 {
		return nil
	}
	have := leadingZeros(e.ID)
	if have < want {
		return refusal(fmt.Sprintf("pow: difficulty %d is less than %d", have, want))
	}
	// Who aimed at less was lucky, and would get in with many events that way.
	if target, ok := committed(e); ok && target < want {
		return refusal(fmt.Sprintf("pow: the work was aimed at %d, less than %d", target, want))
	}
	return nil
}

func leadingZeros(id [32]byte) (n int) {
	for _, b := range id {
		n += bits.LeadingZeros8(b)
		if b != 0 {
			break
		}
	}
	return n
}

// committed is the difficulty that the nonce tag says was aimed at.
func committed(e *envelope.Event) (target int, ok bool) {
	for _, tag := range e.TagStrings() {
		if len(tag) >= 3 && tag[0] == "nonce" {
			n, err := strconv.Atoi(tag[2])
			return n, err == nil
		}
	}
	return 0, false
}
