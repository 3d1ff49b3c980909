// Package balance chooses a peer among several. A [Group] holds peers that
// serve the same thing; its method Peer is made to be a Proxy's Peer function.
package balance

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cirqueproxy/cirque"
)

// ErrNoPeer is what a group without a usable peer answers. The client gets 503.
var ErrNoPeer = errors.New("the group has no peer to choose")

// Member is a peer of a group.
type Member struct {
	Peer *cirque.Peer
	// Weight is the member's share of the requests, relative to the others'. A
	// member of weight 0 gets none.
	Weight int
}

// maxTurns bounds the turn table: more than this many different shares cannot
// be told apart by anybody.
const maxTurns = 1 << 16

// Group is a set of peers and a policy to choose among them. It is safe for
// concurrent use.
type Group struct {
	// Immutable after New.
	members []Member
	turns   []uint16 // indexes into members, in the order in which they are chosen

	next atomic.Uint64
}

// RoundRobin returns a group that gives each address its turn. Addresses are as
// in cirque.Peer.Addr; one that is not valid makes each request fail that it
// gets.
func RoundRobin(addrs ...string) *Group {
	members := make([]Member, len(addrs))
	for i, a := range addrs {
		members[i] = Member{cirque.NewPeer(a), 1}
	}
	g, err := Weighted(members...)
	if err != nil {
		return &Group{}
	}
	return g
}

// Weighted returns a group that gives each member its turn as often as its
// weight says. Turns are smooth: with weights 5, 1, 1 the first member does
// not get five requests in a row. It fails for negative weights and for weights
// whose sum, divided by what they have in common, is over 65,536.
func Weighted(members ...Member) (*Group, error) {
	g := &Group{members: append([]Member(nil), members...)}
	div, sum := 0, 0
	for i, m := range members {
		if m.Peer == nil {
			return nil, fmt.Errorf("member %d has no peer", i)
		}
		if m.Weight < 0 {
			return nil, fmt.Errorf("peer %s has the negative weight %d", m.Peer, m.Weight)
		}
		div = gcd(div, m.Weight)
		sum += m.Weight
	}
	if sum == 0 {
		return g, nil
	}
	if len(members) > maxTurns || sum/div > maxTurns {
		return nil, fmt.Errorf("weights sum up to %d, more than %d", sum/div, maxTurns)
	}
	g.turns = smooth(members, div, sum/div)
	return g, nil
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// smooth lays the turns out: at each turn every member gains its weight, and
// the richest is chosen and pays the sum. After sum turns all are back at zero,
// so the table repeats, and choosing is one atomic addition.
func smooth(members []Member, div, sum int) []uint16 {
	credit := make([]int, len(members))
	turns := make([]uint16, sum)
	for t := range turns {
		best := -1
		for i, m := range members {
			credit[i] += m.Weight / div
			if m.Weight > 0 && (best < 0 || credit[i] > credit[best]) {
				best = i
			}
		}
		credit[best] -= sum
		turns[t] = uint16(best)
	}
	return turns
}

// Peer returns the next peer, one that the session has not tried while there
// is one.
func (g *Group) Peer(s *cirque.Session) (*cirque.Peer, error) {
	n := uint64(len(g.turns))
	if n == 0 {
		return nil, ErrNoPeer
	}
	at := g.next.Add(1) - 1
	first := g.members[g.turns[at%n]].Peer
	if s == nil || s.Attempts() == 0 {
		return first, nil
	}
	for i := range n {
		if p := g.members[g.turns[(at+i)%n]].Peer; !s.Tried(p) {
			return p, nil
		}
	}
	return first, nil
}

// Members returns the group's members.
func (g *Group) Members() []Member { return append([]Member(nil), g.members...) }
