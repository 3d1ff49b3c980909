package reason

import "testing"

func TestTableIsComplete(t *testing.T) {
	seen := map[string]Reason{}
	for r := Reason(0); r < count; r++ {
		name := r.String()
		if name == "" {
			t.Errorf("reason %d has no row", r)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("reasons %d and %d are both called %q", other, r, name)
		}
		seen[name] = r
		if r.IsError() && r.ProxyError() == "" {
			t.Errorf("%s: an error needs an error type of RFC 9209, section 2.3", name)
		}
		if s := r.Status(); s != 0 && (s < 400 || s > 599) {
			t.Errorf("%s: status %d", name, s)
		}
	}
	if Reason(250).String() != "none" {
		t.Error("a value outside the table reads as none")
	}
}
