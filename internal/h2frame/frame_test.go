package h2frame

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

// want compares an error with "" for none, or "connection: CODE", or "stream N:
// CODE".
func want(t *testing.T, err *Error, text string) {
	t.Helper()
	got := ""
	if err != nil {
		got = strings.TrimSuffix(err.Error(), ": "+err.Detail)
	}
	if got != text {
		t.Errorf("got %q, want %q", got, text)
	}
}

func TestHeader(t *testing.T) {
	b := []byte{0x01, 0x02, 0x03, 0x08, 0x25, 0xff, 0xff, 0xff, 0xfe, 'x'}
	h := ParseHeader(b)
	// RFC 9113, section 4.1: the reserved bit is ignored.
	if h != (Header{0x010203, TypeWindowUpdate, 0x25, 0x7ffffffe}) {
		t.Errorf("parsed %+v", h)
	}
	again := AppendHeader(nil, h)
	b[5] &= 0x7f
	if !bytes.Equal(again, b[:HeaderLen]) {
		t.Errorf("appended % x", again)
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name string
		h    Header
		want string
	}{
		// RFC 9113, section 4.2: no frame is larger than what we said.
		{"larger than the limit", Header{MinMaxFrame + 1, TypeData, 0, 1}, "connection: FRAME_SIZE_ERROR"},
		{"as large as the limit", Header{MinMaxFrame, TypeData, 0, 1}, ""},
		{"unknown and too large", Header{MinMaxFrame + 1, 0xee, 0, 1}, "connection: FRAME_SIZE_ERROR"},
		// RFC 9113, section 4.1: unknown types are ignored.
		{"unknown", Header{3, 0xee, 0xff, 0}, ""},
		{"unknown, below the last row", Header{3, 0xa, 0xff, 7}, ""},

		// RFC 9113, section 6 (section 6.1, section 6.2, section 6.3, section 6.4,
		// section 6.6 and section 6.10): on a stream only.
		{"DATA on 0", Header{3, TypeData, 0, 0}, "connection: PROTOCOL_ERROR"},
		{"HEADERS on 0", Header{3, TypeHeaders, 0, 0}, "connection: PROTOCOL_ERROR"},
		{"PRIORITY on 0", Header{5, TypePriority, 0, 0}, "connection: PROTOCOL_ERROR"},
		{"RST_STREAM on 0", Header{4, TypeReset, 0, 0}, "connection: PROTOCOL_ERROR"},
		{"PUSH_PROMISE on 0", Header{4, TypePushPromise, 0, 0}, "connection: PROTOCOL_ERROR"},
		{"CONTINUATION on 0", Header{4, TypeContinuation, 0, 0}, "connection: PROTOCOL_ERROR"},
		// RFC 9113, section 6.5, section 6.7 and section 6.8; RFC 9218, section 7.1:
		// never on one.
		{"SETTINGS on 1", Header{6, TypeSettings, 0, 1}, "connection: PROTOCOL_ERROR"},
		{"PING on 1", Header{8, TypePing, 0, 1}, "connection: PROTOCOL_ERROR"},
		{"GOAWAY on 1", Header{8, TypeGoAway, 0, 1}, "connection: PROTOCOL_ERROR"},
		{"PRIORITY_UPDATE on 1", Header{8, TypePriorityUpdate, 0, 1}, "connection: PROTOCOL_ERROR"},
		// RFC 9113, section 6.9: either.
		{"WINDOW_UPDATE on 0", Header{4, TypeWindowUpdate, 0, 0}, ""},
		{"WINDOW_UPDATE on 1", Header{4, TypeWindowUpdate, 0, 1}, ""},

		// RFC 9113, section 6.3: the one length error that ends its stream alone.
		{"PRIORITY of 4", Header{4, TypePriority, 0, 9}, "stream 9: FRAME_SIZE_ERROR"},
		{"PRIORITY of 6", Header{6, TypePriority, 0, 9}, "stream 9: FRAME_SIZE_ERROR"},
		{"PRIORITY of 5", Header{5, TypePriority, 0, 9}, ""},
		// RFC 9113, section 6.4.
		{"RST_STREAM of 3", Header{3, TypeReset, 0, 9}, "connection: FRAME_SIZE_ERROR"},
		{"RST_STREAM of 5", Header{5, TypeReset, 0, 9}, "connection: FRAME_SIZE_ERROR"},
		{"RST_STREAM of 4", Header{4, TypeReset, 0, 9}, ""},
		// RFC 9113, section 6.5.
		{"SETTINGS of 5", Header{5, TypeSettings, 0, 0}, "connection: FRAME_SIZE_ERROR"},
		{"SETTINGS of 12", Header{12, TypeSettings, 0, 0}, ""},
		{"SETTINGS of 0", Header{0, TypeSettings, 0, 0}, ""},
		{"SETTINGS acknowledged", Header{0, TypeSettings, FlagAck, 0}, ""},
		{"SETTINGS acknowledged with one", Header{6, TypeSettings, FlagAck, 0}, "connection: FRAME_SIZE_ERROR"},
		// RFC 9113, section 6.6.
		{"PUSH_PROMISE of 3", Header{3, TypePushPromise, 0, 1}, "connection: FRAME_SIZE_ERROR"},
		// RFC 9113, section 6.7.
		{"PING of 7", Header{7, TypePing, 0, 0}, "connection: FRAME_SIZE_ERROR"},
		{"PING of 9", Header{9, TypePing, FlagAck, 0}, "connection: FRAME_SIZE_ERROR"},
		{"PING of 8", Header{8, TypePing, 0, 0}, ""},
		// RFC 9113, section 6.8.
		{"GOAWAY of 7", Header{7, TypeGoAway, 0, 0}, "connection: FRAME_SIZE_ERROR"},
		{"GOAWAY of 99", Header{99, TypeGoAway, 0, 0}, ""},
		// RFC 9113, section 6.9.
		{"WINDOW_UPDATE of 3", Header{3, TypeWindowUpdate, 0, 1}, "connection: FRAME_SIZE_ERROR"},
		{"WINDOW_UPDATE of 5", Header{5, TypeWindowUpdate, 0, 0}, "connection: FRAME_SIZE_ERROR"},
		// RFC 9218, section 7.1.
		{"PRIORITY_UPDATE of 3", Header{3, TypePriorityUpdate, 0, 0}, "connection: FRAME_SIZE_ERROR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { want(t, tt.h.Check(MinMaxFrame), tt.want) })
	}
}

func TestParseData(t *testing.T) {
	tests := []struct {
		name    string
		flags   Flags
		payload string
		data    string
		want    string
	}{
		// RFC 9113, section 6.1.
		{"plain", 0, "abc", "abc", ""},
		{"empty", FlagEndStream, "", "", ""},
		{"padded", FlagPadded, "\x02abc\x00\x00", "abc", ""},
		{"padding of any bytes", FlagPadded, "\x02abcde", "abc", ""},
		{"no padding, announced", FlagPadded, "\x00abc", "abc", ""},
		{"padding only", FlagPadded, "\x02\x00\x00", "", ""},
		{"padding as long as the payload", FlagPadded, "\x03\x00\x00", "", "connection: PROTOCOL_ERROR"},
		{"padding longer than the payload", FlagPadded, "\xff\x00\x00", "", "connection: PROTOCOL_ERROR"},
		{"nothing, padded", FlagPadded, "", "", "connection: FRAME_SIZE_ERROR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := Header{len(tt.payload), TypeData, tt.flags, 1}
			data, err := ParseData(h, []byte(tt.payload))
			want(t, err, tt.want)
			if string(data) != tt.data {
				t.Errorf("data %q, want %q", data, tt.data)
			}
		})
	}
}

func TestParseHeaders(t *testing.T) {
	const on5 = "\x80\x00\x00\x05\x0f"
	tests := []struct {
		name     string
		flags    Flags
		payload  string
		fragment string
		prio     PriorityParam
		want     string
	}{
		// RFC 9113, section 6.2.
		{"plain", FlagEndHeaders, "abc", "abc", PriorityParam{}, ""},
		{"padded", FlagPadded, "\x01abc\x00", "abc", PriorityParam{}, ""},
		{"padding as long as the rest", FlagPadded, "\x03abc", "", PriorityParam{}, ""},
		{"padding longer than the rest", FlagPadded, "\x04abc", "", PriorityParam{}, "connection: PROTOCOL_ERROR"},
		{"nothing, padded", FlagPadded, "", "", PriorityParam{}, "connection: FRAME_SIZE_ERROR"},
		{"priority", FlagPriority, on5 + "abc", "abc", PriorityParam{5, true, 15}, ""},
		{"priority and padding", FlagPriority | FlagPadded, "\x02" + on5 + "abc\x00\x00", "abc", PriorityParam{5, true, 15}, ""},
		{"padding reaches into the priority", FlagPriority | FlagPadded, "\x01" + on5, "", PriorityParam{5, true, 15}, "connection: PROTOCOL_ERROR"},
		{"on itself, and padding longer than the rest", FlagPriority | FlagPadded, "\x01\x00\x00\x00\x07\x00", "", PriorityParam{7, false, 0}, "connection: PROTOCOL_ERROR"},
		{"half a priority", FlagPriority, on5[:4], "", PriorityParam{}, "connection: FRAME_SIZE_ERROR"},
		// RFC 7540, section 5.3.1: the fragment is good nevertheless.
		{"on itself", FlagPriority, "\x00\x00\x00\x07\x00abc", "abc", PriorityParam{7, false, 0}, "stream 7: PROTOCOL_ERROR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := Header{len(tt.payload), TypeHeaders, tt.flags, 7}
			fragment, prio, hasPrio, err := ParseHeaders(h, []byte(tt.payload))
			want(t, err, tt.want)
			if string(fragment) != tt.fragment {
				t.Errorf("fragment %q, want %q", fragment, tt.fragment)
			}
			if prio != tt.prio || hasPrio != (tt.prio != PriorityParam{}) {
				t.Errorf("priority %+v %t, want %+v", prio, hasPrio, tt.prio)
			}
		})
	}
}

func TestParseControl(t *testing.T) {
	prio, err := ParsePriority(Header{5, TypePriority, 0, 3}, []byte("\x00\x00\x00\x01\xff"))
	want(t, err, "")
	if prio != (PriorityParam{1, false, 255}) {
		t.Errorf("priority %+v", prio)
	}
	prio, err = ParsePriority(Header{5, TypePriority, 0, 3}, []byte("\x7f\xff\xff\xff\x00"))
	want(t, err, "")
	if prio != (PriorityParam{MaxStreamID, false, 0}) {
		t.Errorf("priority %+v", prio)
	}
	_, err = ParsePriority(Header{5, TypePriority, 0, 3}, []byte("\x80\x00\x00\x03\xff"))
	want(t, err, "stream 3: PROTOCOL_ERROR") // RFC 7540, section 5.3.1

	last, code, debug := ParseGoAway([]byte("\xff\xff\xff\xff\x00\x00\x00\x0bcalm"))
	if last != MaxStreamID || code != EnhanceYourCalm || string(debug) != "calm" {
		t.Errorf("GOAWAY %d %s %q", last, code, debug)
	}

	for _, tt := range []struct {
		stream  uint32
		payload string
		inc     uint32
		want    string
	}{
		// RFC 9113, section 6.9: 0 is an error, the reserved bit is none.
		{0, "\x00\x00\x00\x00", 0, "connection: PROTOCOL_ERROR"},
		{0, "\x80\x00\x00\x00", 0, "connection: PROTOCOL_ERROR"},
		{5, "\x00\x00\x00\x00", 0, "stream 5: PROTOCOL_ERROR"},
		{5, "\x80\x00\x00\x01", 1, ""},
		{0, "\xff\xff\xff\xff", MaxWindow, ""},
	} {
		inc, err := ParseWindowUpdate(Header{4, TypeWindowUpdate, 0, tt.stream}, []byte(tt.payload))
		want(t, err, tt.want)
		if inc != tt.inc {
			t.Errorf("increment %d, want %d", inc, tt.inc)
		}
	}

	// RFC 9218, section 7.1.
	stream, field, err := ParsePriorityUpdate([]byte("\x80\x00\x00\x05u=1, i"))
	want(t, err, "")
	if stream != 5 || string(field) != "u=1, i" {
		t.Errorf("PRIORITY_UPDATE %d %q", stream, field)
	}
	_, _, err = ParsePriorityUpdate([]byte("\x80\x00\x00\x00u=1"))
	want(t, err, "connection: PROTOCOL_ERROR")
}

func TestSettings(t *testing.T) {
	tests := []struct {
		name string
		from Role
		id   SettingID
		v    uint32
		want string
	}{
		// RFC 9113, section 6.5.2.
		{"push 0", Client, SettingEnablePush, 0, ""},
		{"push 1", Client, SettingEnablePush, 1, ""},
		{"push 2", Client, SettingEnablePush, 2, "connection: PROTOCOL_ERROR"},
		{"push 0 of a server", Server, SettingEnablePush, 0, ""},
		{"push 1 of a server", Server, SettingEnablePush, 1, "connection: PROTOCOL_ERROR"},
		{"window", Client, SettingInitialWindowSize, MaxWindow, ""},
		{"window too large", Client, SettingInitialWindowSize, MaxWindow + 1, "connection: FLOW_CONTROL_ERROR"},
		{"frame", Client, SettingMaxFrameSize, MinMaxFrame, ""},
		{"frame too small", Client, SettingMaxFrameSize, MinMaxFrame - 1, "connection: PROTOCOL_ERROR"},
		{"frame largest", Client, SettingMaxFrameSize, MaxMaxFrame, ""},
		{"frame too large", Client, SettingMaxFrameSize, MaxMaxFrame + 1, "connection: PROTOCOL_ERROR"},
		{"table", Client, SettingHeaderTableSize, math.MaxUint32, ""},
		{"streams", Client, SettingMaxConcurrentStreams, 0, ""},
		{"list", Client, SettingMaxHeaderListSize, math.MaxUint32, ""},
		{"unknown", Client, 0xbad, math.MaxUint32, ""},
		{"0xa, behind the last row", Client, 0xa, math.MaxUint32, ""},
		{"0x7, which is nobody's", Client, 0x7, math.MaxUint32, ""},
		// RFC 8441, section 3.
		{"connect 1", Server, SettingEnableConnect, 1, ""},
		{"connect 2", Server, SettingEnableConnect, 2, "connection: PROTOCOL_ERROR"},
		// RFC 9218, section 2.1.
		{"no priorities 1", Server, SettingNoPriorities, 1, ""},
		{"no priorities 2", Server, SettingNoPriorities, 2, "connection: PROTOCOL_ERROR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := DefaultSettings()
			err := s.Apply(tt.from, tt.id, tt.v)
			want(t, err, tt.want)
			if err != nil && s != DefaultSettings() {
				t.Errorf("an error changed %+v", s)
			}
		})
	}
}

func TestSettingsApply(t *testing.T) {
	s := DefaultSettings()
	if want := (Settings{4096, math.MaxUint32, 65535, 16384, math.MaxUint32, true, false, false}); s != want {
		t.Errorf("before all SETTINGS: %+v", s) // RFC 9113, section 6.5.2
	}
	for id, v := range map[SettingID]uint32{
		SettingHeaderTableSize: 1, SettingMaxConcurrentStreams: 2, SettingInitialWindowSize: 3, SettingMaxFrameSize: 1 << 15,
		SettingMaxHeaderListSize: 4, SettingEnablePush: 0, SettingEnableConnect: 1, SettingNoPriorities: 1, 0xee: 5,
	} {
		want(t, s.Apply(Server, id, v), "")
	}
	if want := (Settings{1, 2, 3, 1 << 15, 4, false, true, true}); s != want {
		t.Errorf("all set: %+v", s)
	}
	want(t, s.Apply(Server, SettingEnableConnect, 1), "") // RFC 8441, section 3: the same again
	want(t, s.Apply(Client, SettingEnablePush, 1), "")
	want(t, s.Apply(Client, SettingNoPriorities, 0), "")
	if !s.EnablePush || s.NoPriorities {
		t.Errorf("set back: %+v", s)
	}
}

func TestSettingsInOrder(t *testing.T) {
	// RFC 9113, section 6.5.3: the last of a name counts.
	b := AppendSettings(nil, Setting{SettingInitialWindowSize, 5}, Setting{SettingMaxConcurrentStreams, 7},
		Setting{SettingInitialWindowSize, 6}, Setting{SettingEnableConnect, 1}, Setting{SettingEnableConnect, 0},
		Setting{SettingHeaderTableSize, 1})
	s := DefaultSettings()
	err := EachSetting(b[HeaderLen:], func(id SettingID, v uint32) *Error { return s.Apply(Server, id, v) })
	want(t, err, "connection: PROTOCOL_ERROR") // RFC 8441, section 3: 1 is not taken back
	expect := DefaultSettings()
	expect.InitialWindowSize, expect.MaxConcurrentStreams, expect.EnableConnect = 6, 7, true
	if s != expect {
		t.Errorf("settings %+v, want %+v", s, expect)
	}
}

func TestFieldBlock(t *testing.T) {
	// RFC 9113, section 4.3: HEADERS, then CONTINUATION; the last ends the block.
	for _, n := range []int{0, 1, 9, 10, 11, 20, 25} {
		block := bytes.Repeat([]byte("x"), n)
		b := AppendFieldBlock(nil, 3, block, true, 10)
		var got []byte
		frames := 0
		for ended := false; len(b) > 0; frames++ {
			h := ParseHeader(b)
			if ended || h.Stream != 3 || h.Length > 10 || (h.Type == TypeHeaders) != (frames == 0) ||
				(frames > 0) != (h.Type == TypeContinuation) || h.Flags.Has(FlagEndStream) != (frames == 0) {
				t.Fatalf("block of %d, frame %d: %+v", n, frames, h)
			}
			ended = h.Flags.Has(FlagEndHeaders)
			got = append(got, b[HeaderLen:HeaderLen+h.Length]...)
			b = b[HeaderLen+h.Length:]
			if ended != (len(b) == 0) {
				t.Fatalf("block of %d: ends in frame %d", n, frames)
			}
		}
		if !bytes.Equal(got, block) || frames != max(1, (n+9)/10) {
			t.Errorf("block of %d: %d frames, %q", n, frames, got)
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		TypeReset.String():                             "RST_STREAM",
		TypePriorityUpdate.String():                    "PRIORITY_UPDATE",
		Type(0xa).String():                             "type 0xa",
		Type(0xfe).String():                            "type 0xfe",
		HTTP11Required.String():                        "HTTP_1_1_REQUIRED", // RFC 9113, section 7
		Code(0xe).String():                             "code 0xe",
		SettingEnableConnect.String():                  "SETTINGS_ENABLE_CONNECT_PROTOCOL",
		SettingID(0).String():                          "setting 0x0",
		SettingID(7).String():                          "setting 0x7",
		Server.String() + Client.String():              "serverclient",
		connectionError(Cancel, "x").Error():           "connection: CANCEL: x",
		(&Error{RefusedStream, 7, "full"}).Error():     "stream 7: REFUSED_STREAM: full", // RFC 9113, section 5.4
		string(AppendSettingsAck([]byte(Preface))[:3]): "PRI",                            // RFC 9113, section 3.4
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for ty := range Type(0x20) {
		if ty.FlowControlled() != (ty == TypeData) || ty.Known() != (ty <= TypeContinuation || ty == TypePriorityUpdate) {
			t.Errorf("%s: known %t, flow controlled %t", ty, ty.Known(), ty.FlowControlled())
		}
	}
}
