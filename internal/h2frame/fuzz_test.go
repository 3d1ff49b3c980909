package h2frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/net/http2"
)

// parsed is what a frame says, in one form for us and for the oracle.
type parsed struct {
	verdict string // "", "connection CODE", "stream CODE"
	text    string // of what was parsed
}

func verdictOf(err *Error) string {
	switch {
	case err == nil:
		return ""
	case err.Stream == 0:
		return "connection " + err.Code.String()
	default:
		return "stream " + err.Code.String()
	}
}

// ours parses one frame.
func ours(h Header, p []byte) parsed {
	err := h.Check(MinMaxFrame)
	if err != nil {
		return parsed{verdictOf(err), ""}
	}
	text := ""
	switch h.Type {
	case TypeData:
		var data []byte
		data, err = ParseData(h, p)
		text = fmt.Sprintf("%q", data)
	case TypeHeaders:
		var fragment []byte
		var prio PriorityParam
		fragment, prio, _, err = ParseHeaders(h, p)
		text = fmt.Sprintf("%q %v", fragment, prio)
	case TypePriority:
		var prio PriorityParam
		prio, err = ParsePriority(h, p)
		text = fmt.Sprint(prio)
	case TypeReset:
		text = fmt.Sprint(uint32(ParseReset(p)))
	case TypeSettings:
		err = EachSetting(p, func(id SettingID, v uint32) *Error {
			text += fmt.Sprintf("%d=%d ", id, v)
			return Setting{id, v}.Check()
		})
	case TypePing:
		text = fmt.Sprint(ParsePing(p))
	case TypeGoAway:
		last, code, debug := ParseGoAway(p)
		text = fmt.Sprintf("%d %d %q", last, code, debug)
	case TypeWindowUpdate:
		var inc uint32
		inc, err = ParseWindowUpdate(h, p)
		text = fmt.Sprint(inc)
	case TypePriorityUpdate:
		var stream uint32
		var field []byte
		stream, field, err = ParsePriorityUpdate(p)
		text = fmt.Sprintf("%d %q", stream, field)
	}
	if err != nil {
		text = ""
	}
	return parsed{verdictOf(err), text}
}

// theirs parses the same frame with golang.org/x/net/http2.
func theirs(t *testing.T, frame []byte) parsed {
	t.Helper()
	fr := http2.NewFramer(io.Discard, bytes.NewReader(frame))
	fr.SetMaxReadFrameSize(MinMaxFrame)
	fr.AllowIllegalReads = true // the order of frames is not h2frame's affair
	f, err := fr.ReadFrame()
	text := ""
	switch f := f.(type) {
	case *http2.DataFrame:
		text = fmt.Sprintf("%q", f.Data())
	case *http2.HeadersFrame:
		text = fmt.Sprintf("%q %v", f.HeaderBlockFragment(), theirPriority(f.Priority))
	case *http2.PriorityFrame:
		text = fmt.Sprint(theirPriority(f.PriorityParam))
	case *http2.RSTStreamFrame:
		text = fmt.Sprint(uint32(f.ErrCode))
	case *http2.SettingsFrame:
		err = f.ForeachSetting(func(s http2.Setting) error {
			text += fmt.Sprintf("%d=%d ", s.ID, s.Val)
			return s.Valid()
		})
	case *http2.PingFrame:
		text = fmt.Sprint(f.Data)
	case *http2.GoAwayFrame:
		text = fmt.Sprintf("%d %d %q", f.LastStreamID, f.ErrCode, f.DebugData())
	case *http2.WindowUpdateFrame:
		text = fmt.Sprint(f.Increment)
	case *http2.PriorityUpdateFrame:
		text = fmt.Sprintf("%d %q", f.PrioritizedStreamID, f.Priority)
	}
	var conn http2.ConnectionError
	var stream http2.StreamError
	switch {
	case err == nil:
		return parsed{"", text}
	case errors.As(err, &conn):
		return parsed{"connection " + Code(conn).String(), ""}
	case errors.As(err, &stream):
		return parsed{"stream " + Code(stream.Code).String(), ""}
	case errors.Is(err, http2.ErrFrameTooLarge):
		return parsed{"connection FRAME_SIZE_ERROR", ""} // what its server makes of it
	case errors.Is(err, io.ErrUnexpectedEOF):
		return parsed{"too short", ""} // for which its server sends no GOAWAY
	}
	t.Fatalf("the oracle says %v", err)
	return parsed{}
}

func theirPriority(p http2.PriorityParam) PriorityParam {
	return PriorityParam{p.StreamDep, p.Exclusive, p.Weight}
}

// differences are all cases in which our verdict is another than the oracle's,
// with the reason why ours is right, and a frame that shows it.
var differences = []struct {
	why          string
	types        []Type
	ours, theirs string
	example      []byte
}{
	{
		"RFC 9113, section 4.2: a frame too short for what it must hold is a FRAME_SIZE_ERROR, of which the peer is told",
		[]Type{TypeData, TypeHeaders}, "connection FRAME_SIZE_ERROR", "too short",
		AppendHeader(nil, Header{0, TypeData, FlagPadded, 1}),
	},
	{
		"RFC 9113, section 4.3: after padding that reaches into the field block there is none to decode, so that the compression state is lost",
		[]Type{TypeHeaders}, "connection PROTOCOL_ERROR", "stream PROTOCOL_ERROR",
		append(AppendHeader(nil, Header{2, TypeHeaders, FlagPadded, 1}), 2, 'x'),
	},
	{
		"RFC 9113, section 6.3: PRIORITY of another length is an error of its stream",
		[]Type{TypePriority}, "stream FRAME_SIZE_ERROR", "connection FRAME_SIZE_ERROR",
		append(AppendHeader(nil, Header{1, TypePriority, 0, 1}), 0),
	},
	{
		"RFC 7540, section 5.3.1: a stream must not depend on itself; the oracle leaves that to its server",
		[]Type{TypePriority, TypeHeaders}, "stream PROTOCOL_ERROR", "",
		append(AppendHeader(nil, Header{5, TypePriority, 0, 1}), 0, 0, 0, 1, 9),
	},
	{
		"RFC 9218, section 2.1: SETTINGS_NO_RFC7540_PRIORITIES is 0 or 1",
		[]Type{TypeSettings}, "connection PROTOCOL_ERROR", "",
		AppendSettings(nil, Setting{SettingNoPriorities, 2}),
	},
	{
		"two faults in one frame: a wrong stream and a wrong length",
		[]Type{TypePing, TypeReset, TypeWindowUpdate, TypeSettings}, "connection PROTOCOL_ERROR", "connection FRAME_SIZE_ERROR",
		append(AppendHeader(nil, Header{1, TypePing, 0, 1}), 0),
	},
	{
		"two faults in one frame: another setting is wrong before SETTINGS_INITIAL_WINDOW_SIZE, which the oracle looks at first",
		[]Type{TypeSettings}, "connection PROTOCOL_ERROR", "connection FLOW_CONTROL_ERROR",
		AppendSettings(nil, Setting{SettingEnablePush, 2}, Setting{SettingInitialWindowSize, MaxWindow + 1}),
	},
	{
		"PUSH_PROMISE is never allowed, so that its payload is not looked into; the oracle finds its padding longer than its payload",
		[]Type{TypePushPromise}, "", "connection PROTOCOL_ERROR",
		append(AppendHeader(nil, Header{5, TypePushPromise, FlagPadded, 1}), 1, 0, 0, 0, 2),
	},
	{
		"PUSH_PROMISE is never allowed, so that its payload is not looked into; the oracle finds no room for the promised stream behind its padding",
		[]Type{TypePushPromise}, "", "too short",
		append(AppendHeader(nil, Header{4, TypePushPromise, FlagPadded, 1}), 0, 0, 0, 0),
	},
	{
		"RFC 9113, section 4.2: the oracle's error for a short PUSH_PROMISE is its reader's",
		[]Type{TypePushPromise}, "connection FRAME_SIZE_ERROR", "too short",
		append(AppendHeader(nil, Header{3, TypePushPromise, 0, 1}), 0, 0, 0),
	},
}

// isDifference returns the row of differences, or -1.
func isDifference(h Header, o, x parsed) int {
	for i, d := range differences {
		for _, ty := range d.types {
			if ty == h.Type && d.ours == o.verdict && d.theirs == x.verdict {
				return i
			}
		}
	}
	return -1
}

// TestDifferences: each row is still true.
func TestDifferences(t *testing.T) {
	for i, d := range differences {
		h := ParseHeader(d.example)
		o, x := ours(h, d.example[HeaderLen:]), theirs(t, d.example)
		if got := isDifference(h, o, x); got != i {
			t.Errorf("%s:\n%+v is %q for us and %q for the oracle, row %d", d.why, h, o.verdict, x.verdict, got)
		}
	}
}

// FuzzFrames: the frames in a sequence of bytes mean the same to us and to the
// framer of golang.org/x/net/http2, but for the list above; and a header that is
// parsed and appended is the same again, but for the reserved bit.
func FuzzFrames(f *testing.F) {
	for _, d := range differences {
		f.Add(d.example)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) >= HeaderLen {
			h := ParseHeader(b)
			b[5] &= 0x7f
			if again := AppendHeader(nil, h); !bytes.Equal(again, b[:HeaderLen]) {
				t.Fatalf("% x is %+v, which is % x", b[:HeaderLen], h, again)
			}
			if h.Length > len(b)-HeaderLen {
				if h.Length > MinMaxFrame && h.Check(MinMaxFrame) != errTooLarge {
					t.Fatalf("%+v is not too large", h)
				}
				return
			}
			n := HeaderLen + h.Length
			frame := bytes.Clone(b[:n])
			o, x := ours(h, frame[HeaderLen:]), theirs(t, b[:n])
			if !bytes.Equal(frame, b[:n]) {
				t.Fatalf("parsing changed the frame % x", b[:n])
			}
			if o != x && isDifference(h, o, x) < 0 {
				t.Fatalf("%+v % x\nours:   %+v\ntheirs: %+v", h, frame[HeaderLen:], o, x)
			}
			b = b[n:]
		}
	})
}

// TestOracleReads: what we append is read by the oracle as what we meant.
func TestOracleReads(t *testing.T) {
	ping := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	tests := []struct {
		name  string
		b     []byte
		h     Header
		check string
	}{
		{"SETTINGS", AppendSettings(nil, Setting{SettingMaxFrameSize, 1 << 15}, Setting{SettingNoPriorities, 1}), Header{12, TypeSettings, 0, 0}, "5=32768 9=1 "},
		{"SETTINGS, none", AppendSettings(nil), Header{0, TypeSettings, 0, 0}, ""},
		{"SETTINGS acknowledged", AppendSettingsAck(nil), Header{0, TypeSettings, FlagAck, 0}, ""},
		{"HEADERS", AppendHeaders(nil, 5, []byte("block"), true, true), Header{5, TypeHeaders, FlagEndStream | FlagEndHeaders, 5}, `"block" {0 false 0}`},
		{"HEADERS, open", AppendHeaders(nil, MaxStreamID, []byte("b"), false, false), Header{1, TypeHeaders, 0, MaxStreamID}, `"b" {0 false 0}`},
		{"CONTINUATION", AppendContinuation(nil, 5, []byte("more"), true), Header{4, TypeContinuation, FlagEndHeaders, 5}, ""},
		{"CONTINUATION, open", AppendContinuation(nil, 5, nil, false), Header{0, TypeContinuation, 0, 5}, ""},
		{"DATA", append(AppendDataHeader(nil, 7, 4, true), "data"...), Header{4, TypeData, FlagEndStream, 7}, `"data"`},
		{"RST_STREAM", AppendReset(nil, 7, HTTP11Required), Header{4, TypeReset, 0, 7}, "13"},
		{"PING", AppendPing(nil, false, ping), Header{8, TypePing, 0, 0}, "[1 2 3 4 5 6 7 8]"},
		{"PING answered", AppendPing(nil, true, ping), Header{8, TypePing, FlagAck, 0}, "[1 2 3 4 5 6 7 8]"},
		{"GOAWAY", AppendGoAway(nil, MaxStreamID, EnhanceYourCalm, "calm"), Header{12, TypeGoAway, 0, 0}, `2147483647 11 "calm"`},
		{"WINDOW_UPDATE", AppendWindowUpdate(nil, 0, MaxWindow), Header{4, TypeWindowUpdate, 0, 0}, "2147483647"},
		{"PRIORITY_UPDATE", AppendPriorityUpdate(nil, 3, "u=1, i"), Header{10, TypePriorityUpdate, 0, 0}, `3 "u=1, i"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if h := ParseHeader(tt.b); h != tt.h {
				t.Errorf("header %+v, want %+v", h, tt.h)
			}
			if err := tt.h.Check(MinMaxFrame); err != nil {
				t.Error(err)
			}
			for who, p := range map[string]parsed{"we": ours(tt.h, tt.b[HeaderLen:]), "the oracle": theirs(t, tt.b)} {
				if p.verdict != "" || p.text != tt.check {
					t.Errorf("%s: %q %s, want %s", who, p.verdict, p.text, tt.check)
				}
			}
		})
	}
}
