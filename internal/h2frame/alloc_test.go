package h2frame

import "testing"

func TestAllocs(t *testing.T) {
	out := make([]byte, 0, 4<<10)
	block := make([]byte, 900)
	settings := AppendSettings(nil, Setting{SettingInitialWindowSize, 1 << 20}, Setting{SettingMaxFrameSize, 1 << 15})
	headers := []byte("\x02\x80\x00\x00\x05\x0fabc\x00\x00")
	data := []byte("\x02abc\x00\x00")
	var failed *Error
	tests := []struct {
		name string
		run  func()
	}{
		{"append", func() {
			out = AppendSettings(out[:0], Setting{SettingInitialWindowSize, 1 << 20}, Setting{SettingEnablePush, 0})
			out = AppendSettingsAck(out)
			out = AppendFieldBlock(out, 1, block, false, 400)
			out = AppendDataHeader(out, 1, 7, true)
			out = AppendReset(out, 1, Cancel)
			out = AppendPing(out, true, [8]byte{})
			out = AppendGoAway(out, 1, NoError, "bye")
			out = AppendWindowUpdate(out, 1, 5)
			out = AppendPriorityUpdate(out, 1, "u=1")
		}},
		{"parse", func() {
			h := ParseHeader(settings)
			failed = h.Check(MinMaxFrame)
			s := DefaultSettings()
			if err := EachSetting(settings[HeaderLen:], func(id SettingID, v uint32) *Error { return s.Apply(Client, id, v) }); err != nil {
				failed = err
			}
			if _, _, _, err := ParseHeaders(Header{len(headers), TypeHeaders, FlagPadded | FlagPriority, 1}, headers); err != nil {
				failed = err
			}
			if _, err := ParseData(Header{len(data), TypeData, FlagPadded, 1}, data); err != nil {
				failed = err
			}
		}},
		{"refuse", func() {
			// Errors of the connection are there already.
			if (Header{7, TypePing, 0, 0}).Check(MinMaxFrame) == nil {
				failed = errLength
			}
			if _, err := ParseWindowUpdate(Header{4, TypeWindowUpdate, 0, 0}, make([]byte, 4)); err == nil {
				failed = errIncrement
			}
		}},
	}
	for _, tt := range tests {
		if n := testing.AllocsPerRun(100, tt.run); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
		if failed != nil {
			t.Errorf("%s: %v", tt.name, failed)
		}
	}
}

// BenchmarkFrame: what it costs to look at the header of a DATA frame and to make
// one.
func BenchmarkFrame(b *testing.B) {
	frame := append(AppendDataHeader(nil, 1, 4, true), "data"...)
	out := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		h := ParseHeader(frame)
		if err := h.Check(MinMaxFrame); err != nil {
			b.Fatal(err)
		}
		data, err := ParseData(h, frame[HeaderLen:])
		if err != nil {
			b.Fatal(err)
		}
		out = append(AppendDataHeader(out[:0], h.Stream, len(data), true), data...)
	}
}
