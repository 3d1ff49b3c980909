package message

import (
	"iter"
	"math/bits"

	"github.com/cirqueproxy/cirque/internal/ascii"
)

// Header is a section of fields: their names as spelled, their values, in
// order. Names compare without regard to case. The zero value is empty and
// ready. A Header belongs to one goroutine at a time and must not be copied.
//
// Methods that return strings return copies that may be kept; those that
// return bytes lend them until the next change of the Header.
type Header struct {
	// buf holds the bytes of all fields. It only grows until Reset, so that what
	// was lent stays readable while fields change.
	buf    []byte
	fields []field
	known  [2]uint64 // which IDs may be present
	// text is a copy of the first len(text) bytes of buf, from which strings are
	// cut: one allocation for all of them.
	text    string
	changes uint32 // counts changes, for what is derived from fields
	edited  int    // fields that no parser has checked, an upper bound
}

// field is one line. A name of no length stands for its ID's spelling.
type field struct {
	name, nameEnd, value, valueEnd uint32
	id                             ID
	edited                         bool
}

// maxKept is how much memory a Header keeps for its next use.
const maxKept = 16 << 10

// Reset removes all fields and keeps the memory, unless it is much.
func (h *Header) Reset() {
	if cap(h.buf) > maxKept {
		h.buf = nil
	}
	if cap(h.fields) > 128 {
		h.fields = nil
	}
	h.buf, h.fields, h.text, h.known, h.edited = h.buf[:0], h.fields[:0], "", [2]uint64{}, 0
	h.changes++
}

// Len returns the number of fields.
func (h *Header) Len() int { return len(h.fields) }

// Field returns name and value of field i, lent.
func (h *Header) Field(i int) (name, value []byte) {
	f := &h.fields[i]
	if f.name == f.nameEnd {
		return nameBytes[f.id], h.buf[f.value:f.valueEnd]
	}
	return h.buf[f.name:f.nameEnd], h.buf[f.value:f.valueEnd]
}

// FieldID returns the ID of field i.
func (h *Header) FieldID(i int) ID { return h.fields[i].id }

// All returns names and values in order, as strings to keep.
func (h *Header) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := 0; i < len(h.fields); i++ {
			f := &h.fields[i]
			name := names[f.id]
			if f.name != f.nameEnd {
				name = h.str(f.name, f.nameEnd)
			}
			if !yield(name, h.str(f.value, f.valueEnd)) {
				return
			}
		}
	}
}

// str returns a part of buf as a string.
func (h *Header) str(from, to uint32) string {
	if from == to {
		return ""
	}
	if h.text == "" {
		h.text = string(h.buf)
	}
	if int(to) <= len(h.text) {
		return h.text[from:to]
	}
	return string(h.buf[from:to])
}

// find returns the index of the first field from i on with the name, or -1.
func (h *Header) find(i int, name string, id ID) int {
	if id != IDOther {
		return h.findID(i, id)
	}
	for ; i < len(h.fields); i++ {
		f := &h.fields[i]
		if f.id == IDOther && int(f.nameEnd-f.name) == len(name) && ascii.EqualFold(h.buf[f.name:f.nameEnd], name) {
			return i
		}
	}
	return -1
}

func (h *Header) findID(i int, id ID) int {
	if h.known[id>>6]&(1<<(id&63)) == 0 {
		return -1
	}
	for ; i < len(h.fields); i++ {
		if h.fields[i].id == id {
			return i
		}
	}
	return -1
}

// Get returns the value of the first field with the name, or "".
func (h *Header) Get(name string) string {
	if i := h.find(0, name, lookup(name)); i >= 0 {
		return h.str(h.fields[i].value, h.fields[i].valueEnd)
	}
	return ""
}

// View is Get, lent. It returns nil when there is no such field.
func (h *Header) View(name string) []byte {
	if i := h.find(0, name, lookup(name)); i >= 0 {
		return h.value(i)
	}
	return nil
}

func (h *Header) value(i int) []byte {
	f := &h.fields[i]
	if h.buf == nil {
		return []byte{} // an empty value, not an absent one
	}
	return h.buf[f.value:f.valueEnd:f.valueEnd]
}

// Values returns the values of all fields with the name.
func (h *Header) Values(name string) []string {
	var all []string
	id := lookup(name)
	for i := h.find(0, name, id); i >= 0; i = h.find(i+1, name, id) {
		all = append(all, h.str(h.fields[i].value, h.fields[i].valueEnd))
	}
	return all
}

// Has reports whether there is a field with the name.
func (h *Header) Has(name string) bool { return h.find(0, name, lookup(name)) >= 0 }

// Set makes value the only one of the name. The first field with the name
// keeps its place and spelling; without one the field is added.
func (h *Header) Set(name, value string) { set(h, name, lookup(name), value) }

// SetBytes is Set for a value of bytes, which are copied.
func (h *Header) SetBytes(name string, value []byte) { set(h, name, lookup(name), value) }

// Add adds a field.
func (h *Header) Add(name, value string) { add(h, name, lookup(name), value) }

// AddBytes is Add for a value of bytes, which are copied.
func (h *Header) AddBytes(name string, value []byte) { add(h, name, lookup(name), value) }

// Del removes all fields with the name.
func (h *Header) Del(name string) {
	id := lookup(name)
	if i := h.find(0, name, id); i >= 0 {
		h.delFrom(i, name, id)
	}
}

// DelField removes field i.
func (h *Header) DelField(i int) {
	h.changes++
	h.fields = append(h.fields[:i], h.fields[i+1:]...)
}

// HasID, ViewID, SetID, AddID and DelID are Has, View, SetBytes, AddBytes and
// Del for a known field. They do not allocate in the steady state.

// HasID reports whether there is a field with the ID.
func (h *Header) HasID(id ID) bool { return h.findID(0, id) >= 0 }

// ViewID returns the value of the first field with the ID, lent, or nil.
func (h *Header) ViewID(id ID) []byte {
	if i := h.findID(0, id); i >= 0 {
		return h.value(i)
	}
	return nil
}

// CountID returns the number of fields with the ID.
func (h *Header) CountID(id ID) int {
	n := 0
	for i := h.findID(0, id); i >= 0; i = h.findID(i+1, id) {
		n++
	}
	return n
}

// SetID makes value the only one of the ID.
func (h *Header) SetID(id ID, value []byte) { set(h, "", id, value) }

// AddID adds a field, with this package's spelling of the name.
func (h *Header) AddID(id ID, value []byte) { add(h, "", id, value) }

// DelID removes all fields with the ID.
func (h *Header) DelID(id ID) {
	if i := h.findID(0, id); i >= 0 {
		h.delFrom(i, "", id)
	}
}

// HasToken reports whether the comma separated lists of the ID's fields have
// the token.
func (h *Header) HasToken(id ID, token string) bool {
	for i := h.findID(0, id); i >= 0; i = h.findID(i+1, id) {
		if ascii.HasToken(h.value(i), token) {
			return true
		}
	}
	return false
}

func set[T string | []byte](h *Header, name string, id ID, value T) {
	i := h.find(0, name, id)
	if i < 0 {
		add(h, name, id, value)
		return
	}
	h.changes++
	f := &h.fields[i]
	f.value = uint32(len(h.buf))
	h.buf = append(h.buf, value...)
	f.valueEnd = uint32(len(h.buf))
	f.edited = true
	h.edited++
	if j := h.find(i+1, name, id); j >= 0 {
		h.delFrom(j, name, id)
		h.known[id>>6] |= 1 << (id & 63) // field i is still there
	}
}

func add[T string | []byte](h *Header, name string, id ID, value T) {
	h.changes++
	f := field{id: id, edited: true}
	if id == IDOther || (name != "" && name != names[id]) {
		f.name = uint32(len(h.buf))
		h.buf = append(h.buf, name...)
		f.nameEnd = uint32(len(h.buf))
		if f.name == f.nameEnd {
			// A field without a name: kept, so that Invalid finds it, under a name
			// that no field can have.
			h.buf = append(h.buf, 0)
			f.nameEnd++
		}
	}
	f.value = uint32(len(h.buf))
	h.buf = append(h.buf, value...)
	f.valueEnd = uint32(len(h.buf))
	h.push(f)
	h.edited++
}

func (h *Header) push(f field) {
	h.known[f.id>>6] |= 1 << (f.id & 63)
	h.fields = append(h.fields, f)
}

// delFrom removes field i, which has the name, and all later ones.
func (h *Header) delFrom(i int, name string, id ID) {
	h.changes++
	kept := i
	for next := i; i < len(h.fields); i++ {
		if i == next {
			if next = h.find(i+1, name, id); next < 0 {
				next = len(h.fields)
			}
			continue
		}
		h.fields[kept] = h.fields[i]
		kept++
	}
	h.fields = h.fields[:kept]
	if id != IDOther {
		h.known[id>>6] &^= 1 << (id & 63)
	}
}

// Invalid returns the name of a field that must not be sent and reports whether
// there is one: a name that is no token, or a value with CR, LF, NUL or another
// control character. Fields that a parser brought are known to be right.
//
// RFC 9110, section 5.5.
func (h *Header) Invalid() (name string, bad bool) {
	if h.edited == 0 {
		return "", false
	}
	for i := range h.fields {
		f := &h.fields[i]
		if !f.edited {
			continue
		}
		if n := h.buf[f.name:f.nameEnd]; (len(n) > 0 && !ascii.IsToken(n)) || !ascii.IsValue(h.value(i)) {
			n, _ := h.Field(i)
			return string(n), true
		}
	}
	return "", false
}

// Load empties the Header and takes a copy of head, whose fields a parser then
// names with AddSpan. It returns the copy.
func (h *Header) Load(head []byte) []byte {
	h.Reset()
	h.buf = append(h.buf, head...)
	return h.buf
}

// AddSpan adds a field that lies in what Load returned, already checked: its
// name and value are at [name, nameEnd) and [value, valueEnd).
func (h *Header) AddSpan(name, nameEnd, value, valueEnd int) ID {
	id := Lookup(h.buf[name:nameEnd])
	h.push(field{uint32(name), uint32(nameEnd), uint32(value), uint32(valueEnd), id, false})
	return id
}

// AddParsed adds a copy of a field that a parser has checked.
func (h *Header) AddParsed(name, value []byte) {
	at := len(h.buf)
	h.buf = append(append(h.buf, name...), value...)
	h.changes++
	h.AddSpan(at, at+len(name), at+len(name), len(h.buf))
}

// AddLine is AddParsed for a field that did not come as a line, and whose ID is
// known already; name is that of a field whose ID is IDOther. It lies in memory as
// HTTP/1 writes it, under this package's spelling of a known name, so that Run finds
// it.
func (h *Header) AddLine(id ID, name, value string) { addLine(h, id, name, value) }

// AddLineBytes is AddLine for a value of bytes, which are copied.
func (h *Header) AddLineBytes(id ID, name string, value []byte) { addLine(h, id, name, value) }

func addLine[T string | []byte](h *Header, id ID, name string, value T) {
	if id != IDOther {
		name = names[id]
	}
	at := uint32(len(h.buf))
	h.buf = append(append(h.buf, name...), ": "...)
	from := uint32(len(h.buf))
	h.buf = append(append(h.buf, value...), "\r\n"...)
	h.changes++
	h.push(field{at, at + uint32(len(name)), from, from + uint32(len(value)), id, false})
}

// CopyFrom makes h equal to o, which stays as it is.
func (h *Header) CopyFrom(o *Header) {
	h.buf = append(h.buf[:0], o.buf...)
	h.fields = append(h.fields[:0], o.fields...)
	h.known, h.edited = o.known, o.edited
	h.text = o.text
	h.changes++
}

// knownCount is for tests: how many IDs the Header believes to have.
func (h *Header) knownCount() int {
	return bits.OnesCount64(h.known[0]) + bits.OnesCount64(h.known[1])
}

// Run returns the fields from i on that lie behind each other in memory just as
// they are sent, as bytes with their line ends, and the index of the field after
// them. Those that a program edited end a run, as do fields that stop reports.
// It saves a codec from putting together again what a parser took apart.
func (h *Header) Run(i int, stop func(ID) bool) (run []byte, next int) {
	from := -1
	end := uint32(0)
	for next = i; next < len(h.fields); next++ {
		f := &h.fields[next]
		if f.edited || f.value != f.nameEnd+2 || h.buf[f.nameEnd+1] != ' ' || (from >= 0 && f.name != end+2) || stop(f.id) {
			break
		}
		if int(f.valueEnd)+2 > len(h.buf) || h.buf[f.valueEnd] != '\r' || h.buf[f.valueEnd+1] != '\n' {
			break
		}
		if from < 0 {
			from = int(f.name)
		}
		end = f.valueEnd
	}
	if from < 0 {
		return nil, i
	}
	return h.buf[from : end+2], next
}
