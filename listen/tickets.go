package listen

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Ticket keys live for a slot of time, in which they make tickets, and are
// believed for keptSlots more: a stolen key opens what was recorded in that
// time, and what was issued last is still of use for a while.
const (
	defaultTicketSlot = 12 * time.Hour
	keptSlots         = 2
	minTicketSecret   = 32 // bytes: less could be guessed
)

// Tickets are the keys of session tickets, which let clients resume a session
// without a full handshake. They change on their own every slot of time.
//
// Without a secret each slot's keys are random and gone when it is over. With
// a secret, which processes may share, all of them derive the same keys from it
// and the time, without talking to each other. Its methods may be called from
// any goroutine.
type Tickets struct {
	slot time.Duration
	file string

	now atomic.Pointer[ticketKeys]

	mu      sync.Mutex
	secret  []byte           // Guarded by mu: nil for random keys.
	old     []byte           // Guarded by mu: the secret before, still believed.
	randoms map[int64][]byte // Guarded by mu: by slot.
}

// ticketKeys are the seeds that hold in one slot: the first makes tickets, all
// are believed. Immutable.
type ticketKeys struct {
	slot  int64
	seeds [][]byte
}

// NewTickets returns random keys that change each slot. If slot is zero, it is
// 12 hours.
func NewTickets(slot time.Duration) *Tickets {
	if slot <= 0 {
		slot = defaultTicketSlot
	}
	return &Tickets{slot: slot, randoms: map[int64][]byte{}}
}

// LoadTickets returns the keys that a secret in a file gives: all bytes of the
// file, less white space at its ends. It must be at least 32 random bytes.
func LoadTickets(file string, slot time.Duration) (*Tickets, error) {
	t := NewTickets(slot)
	t.file = file
	_, err := t.Reload()
	return t, err
}

// SharedTickets returns the keys that a secret of at least 32 random bytes gives.
func SharedTickets(secret []byte, slot time.Duration) (*Tickets, error) {
	t := NewTickets(slot)
	if len(secret) < minTicketSecret {
		return nil, errShortSecret
	}
	t.secret = bytes.Clone(secret)
	return t, nil
}

var errShortSecret = fmt.Errorf("the secret of session tickets must have at least %d bytes, at random", minTicketSecret)

// Reload reads the file again and reports whether the secret changed. Tickets
// of the one before are believed on. If the file cannot be used all stays.
func (t *Tickets) Reload() (changed bool, err error) {
	if t.file == "" {
		return false, nil
	}
	b, err := readPEM(t.file)
	if err == nil {
		if b = bytes.TrimSpace(b); len(b) < minTicketSecret {
			err = errShortSecret
		}
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", t.file, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if bytes.Equal(b, t.secret) {
		return false, nil
	}
	t.old, t.secret = t.secret, b
	t.now.Store(nil)
	return true, nil
}

// at returns the keys that hold at a time. They are the same value as long as
// they do.
func (t *Tickets) at(now time.Time) *ticketKeys {
	slot := now.UnixNano() / int64(t.slot)
	if k := t.now.Load(); k != nil && k.slot == slot {
		return k
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.now.Load(); k != nil && k.slot == slot {
		return k
	}
	k := &ticketKeys{slot: slot, seeds: t.seedsLocked(slot)}
	t.now.Store(k)
	return k
}

func (t *Tickets) seedsLocked(slot int64) [][]byte {
	if t.secret == nil {
		return t.randomsLocked(slot)
	}
	var seeds [][]byte
	// A process whose clock is ahead may be in the next slot already.
	for _, s := range []int64{slot, slot + 1, slot - 1, slot - 2} {
		for _, secret := range [][]byte{t.secret, t.old} {
			if secret != nil {
				seeds = append(seeds, slotSeed(secret, s))
			}
		}
	}
	return seeds
}

// randomsLocked makes a slot's seed and forgets those that are over.
func (t *Tickets) randomsLocked(slot int64) [][]byte {
	for s := range t.randoms {
		if s < slot-keptSlots || s > slot {
			delete(t.randoms, s)
		}
	}
	if t.randoms[slot] == nil {
		seed := make([]byte, sha256.Size)
		_, _ = rand.Read(seed) // never fails
		t.randoms[slot] = seed
	}
	var seeds [][]byte
	for s := slot; s >= slot-keptSlots; s-- {
		if seed := t.randoms[s]; seed != nil {
			seeds = append(seeds, seed)
		}
	}
	return seeds
}

// slotSeed derives the seed of a slot from a secret.
func slotSeed(secret []byte, slot int64) []byte {
	info := binary.BigEndian.AppendUint64([]byte("cirque tls ticket slot "), uint64(slot))
	seed, err := hkdf.Key(sha256.New, secret, nil, string(info), sha256.Size)
	if err != nil {
		return nil // only for lengths that nobody asks for; derive refuses it
	}
	return seed
}

// derive returns the keys of one policy. Those of different policies have
// nothing in common, so that a ticket of one is noise to the others.
func (k *ticketKeys) derive(policy string) ([][32]byte, error) {
	keys := make([][32]byte, len(k.seeds))
	for i, seed := range k.seeds {
		if len(seed) != sha256.Size {
			return nil, errors.New("no keys for session tickets")
		}
		key, err := hkdf.Key(sha256.New, seed, nil, "cirque tls ticket policy "+policy, len(keys[i]))
		if err != nil {
			return nil, err
		}
		copy(keys[i][:], key)
	}
	return keys, nil
}
