package cirque

import "sync/atomic"

// Key is a typed slot on a Session. Make one with [NewKey], as a package
// variable; it serves all sessions. Values are gone when the session is done.
type Key[T any] struct {
	name  string
	index int
}

// ConnKey is a typed slot on a downstream connection: a value set by one
// session is there for the later ones of the same connection.
type ConnKey[T any] struct {
	name  string
	index int
}

var keys, connKeys atomic.Int64

// NewKey returns a new slot. The name serves debugging only.
func NewKey[T any](name string) *Key[T] {
	return &Key[T]{name, int(keys.Add(1)) - 1}
}

// NewConnKey returns a new slot on connections.
func NewConnKey[T any](name string) *ConnKey[T] {
	return &ConnKey[T]{name, int(connKeys.Add(1)) - 1}
}

// String returns the key's name.
func (k *Key[T]) String() string { return k.name }

// String returns the key's name.
func (k *ConnKey[T]) String() string { return k.name }

// Get returns the value, or T's zero value when none was set.
func (k *Key[T]) Get(s *Session) T { return getSlot[T](s.slots, k.index) }

// Set stores a value. It allocates only the first time on a connection.
func (k *Key[T]) Set(s *Session, v T) { setSlot(&s.slots, k.index, v) }

// Get returns the value, or T's zero value when none was set.
func (k *ConnKey[T]) Get(s *Session) T {
	s.conn.slotsMu.Lock()
	defer s.conn.slotsMu.Unlock()
	return getSlot[T](s.conn.slots, k.index)
}

// Set stores a value for as long as the connection lives. The requests of one
// connection of HTTP/2 run side by side: what the value points to must stand that.
func (k *ConnKey[T]) Set(s *Session, v T) {
	s.conn.slotsMu.Lock()
	defer s.conn.slotsMu.Unlock()
	setSlot(&s.conn.slots, k.index, v)
}

// slot is a box that outlives its value, so that the next session of the
// connection does not allocate another.
type slot interface{ clear() }

type box[T any] struct{ v T }

func (b *box[T]) clear() {
	var zero T
	b.v = zero
}

func getSlot[T any](slots []slot, i int) T {
	if i < len(slots) {
		if b, ok := slots[i].(*box[T]); ok {
			return b.v
		}
	}
	var zero T
	return zero
}

func setSlot[T any](slots *[]slot, i int, v T) {
	for len(*slots) <= i {
		*slots = append(*slots, nil)
	}
	b, ok := (*slots)[i].(*box[T])
	if !ok {
		b = &box[T]{}
		(*slots)[i] = b
	}
	b.v = v
}
