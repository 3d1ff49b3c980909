package h2stream

import (
	"slices"
	"testing"
)

func TestParsePriority(t *testing.T) {
	// RFC 9218, section 4, section 4.1 and section 4.2; RFC 9651, section 4.2 and
	// section 4.2.2.
	tests := []struct {
		field string
		want  Priority
	}{
		{"", Priority{3, false}},
		{"u=0", Priority{0, false}},
		{"u=7, i", Priority{7, true}},
		{"u=5,i=?1", Priority{5, true}},
		{" i=?0 , \tu=5 ", Priority{5, false}},
		{"i;x=1;y, u=2;z=\"a,b\"", Priority{2, true}},
		{"u=1, u=2", Priority{2, false}},
		// Of another type, or out of range.
		{"u=8", Priority{3, false}},
		{"u=-1", Priority{3, false}},
		{"u=1.0, i", Priority{3, true}},
		{"u=a, i", Priority{3, true}},
		{"u, i=1", Priority{3, false}},
		{"u=1, u=9", Priority{3, false}},
		{"i, i=1", Priority{3, false}},
		{"u=(1 2);a, i", Priority{3, true}},
		{"u=(), i", Priority{3, true}},
		// Unknown members of all types.
		{`a=1.5, b=tok/en:x, c="s\"\\", d=:aGk=:, e=?0, f=@1659578233, g=%"f%c3%bc", h=("a" b;q=1), *x, u=4`, Priority{4, false}},
		{"U=4", Priority{3, false}},
		// No dictionaries.
		{"u=1,", Priority{3, false}},
		{"u=1,,i", Priority{3, false}},
		{"u=1 i", Priority{3, false}},
		{"u=", Priority{3, false}},
		{"u = 1", Priority{3, false}},
		{"=1", Priority{3, false}},
		{"u=1, i=?2", Priority{3, false}},
		{`u=1, a="`, Priority{3, false}},
		{`u=1, a="\x"`, Priority{3, false}},
		{"u=1, a=(1", Priority{3, false}},
		{"u=1, a=(1,2)", Priority{3, false}},
		{"u=1, a=1234567890123456", Priority{3, false}},
		{"u=1, a=1.2345", Priority{3, false}},
		{"u=1, a=.5", Priority{3, false}},
		{"u=1, a=:_:", Priority{3, false}},
		{`u=1, a=%"%C3"`, Priority{3, false}},
		{`u=1, a=%x`, Priority{3, false}},
		{`u=1, a=%, i`, Priority{3, false}},
		{"u=1, a=@1.5", Priority{3, false}},
		{"u=1;A=1", Priority{3, false}},
		{"u=1, a=123456789012345, b=123456789012.123, c=-1.5, d=%\"%af%09\", e=\" ~\"", Priority{1, false}},
		{"u=1, a=1234567890123.1", Priority{3, false}},
		{"u=1, a=1.", Priority{3, false}},
		{"u=1, a=-.5", Priority{3, false}},
		{"u=1, a=%\"%g0\"", Priority{3, false}},
		{"u=1, a=%\"%0`\"", Priority{3, false}},
		{"u=1, a=%\"\x7f\"", Priority{3, false}},
		{"u=1, a=\"\x1f\"", Priority{3, false}},
		{"u=1, \xff", Priority{3, false}},
	}
	for _, tt := range tests {
		if got := ParsePriority(DefaultPriority(), []byte(tt.field)); got != tt.want {
			t.Errorf("%q: %+v, want %+v", tt.field, got, tt.want)
		}
	}
	// RFC 9218, section 8: a response corrects what it names.
	for field, want := range map[string]Priority{"": {5, true}, "u=1": {1, true}, "i=?0": {5, false}, "u=9": {5, true}} {
		if got := ParsePriority(Priority{5, true}, []byte(field)); got != want {
			t.Errorf("%q upon u=5, i: %+v, want %+v", field, got, want)
		}
	}
}

func TestRank(t *testing.T) {
	// RFC 9218, section 10.
	in := []Rank{
		{Priority{0, true}, 9, 70},
		{Priority{3, false}, 1, 9},
		{Priority{3, false}, 7, 0},
		{Priority{3, true}, 11, 3},
		{Priority{3, true}, 5, 4},
		{Priority{3, true}, 13, 4},
		{Priority{7, false}, 3, 0},
	}
	mixed := []Rank{in[6], in[2], in[4], in[0], in[5], in[3], in[1]}
	slices.SortFunc(mixed, func(a, b Rank) int {
		switch {
		case a.Before(b):
			return -1
		case b.Before(a):
			return 1
		}
		return 0
	})
	if !slices.Equal(mixed, in) {
		t.Errorf("order %+v", mixed)
	}
	if u, d := UnsaidPriority(), DefaultPriority(); u != (Priority{3, true}) || d != (Priority{3, false}) {
		t.Errorf("unsaid %+v, default %+v", u, d)
	}
}
