package h2frame

import (
	"encoding/binary"
	"math"
	"strconv"
)

// SettingID names a parameter in SETTINGS.
type SettingID uint16

// The parameters.
const (
	SettingHeaderTableSize      SettingID = 0x1
	SettingEnablePush           SettingID = 0x2
	SettingMaxConcurrentStreams SettingID = 0x3
	SettingInitialWindowSize    SettingID = 0x4
	SettingMaxFrameSize         SettingID = 0x5
	SettingMaxHeaderListSize    SettingID = 0x6
	SettingEnableConnect        SettingID = 0x8 // RFC 8441
	SettingNoPriorities         SettingID = 0x9 // RFC 9218
)

// settingFacts are one parameter's: its name, the values that it may have, and
// what another value is called.
type settingFacts struct {
	name     string
	min, max uint32
	code     Code
	detail   string
}

// settingTable has one row per parameter.
//
// RFC 9113, section 6.5.2: the first six. RFC 8441, section 3; RFC 9218, section
// 2.1: the others.
var settingTable = [...]settingFacts{
	SettingHeaderTableSize:      {"SETTINGS_HEADER_TABLE_SIZE", 0, math.MaxUint32, NoError, ""},
	SettingEnablePush:           {"SETTINGS_ENABLE_PUSH", 0, 1, ProtocolError, "SETTINGS_ENABLE_PUSH is neither 0 nor 1"},
	SettingMaxConcurrentStreams: {"SETTINGS_MAX_CONCURRENT_STREAMS", 0, math.MaxUint32, NoError, ""},
	SettingInitialWindowSize:    {"SETTINGS_INITIAL_WINDOW_SIZE", 0, MaxWindow, FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE is over 2^31-1"},
	SettingMaxFrameSize:         {"SETTINGS_MAX_FRAME_SIZE", MinMaxFrame, MaxMaxFrame, ProtocolError, "SETTINGS_MAX_FRAME_SIZE is not between 2^14 and 2^24-1"},
	SettingMaxHeaderListSize:    {"SETTINGS_MAX_HEADER_LIST_SIZE", 0, math.MaxUint32, NoError, ""},
	SettingEnableConnect:        {"SETTINGS_ENABLE_CONNECT_PROTOCOL", 0, 1, ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1"},
	SettingNoPriorities:         {"SETTINGS_NO_RFC7540_PRIORITIES", 0, 1, ProtocolError, "SETTINGS_NO_RFC7540_PRIORITIES is neither 0 nor 1"},
}

// facts returns the row of a parameter, or nil for one that we do not know.
func (id SettingID) facts() *settingFacts {
	if int(id) < len(settingTable) && settingTable[id].name != "" {
		return &settingTable[id]
	}
	return nil
}

// String returns the parameter's name in its RFC.
func (id SettingID) String() string {
	if f := id.facts(); f != nil {
		return f.name
	}
	return "setting 0x" + strconv.FormatUint(uint64(id), 16)
}

// Setting is one parameter and its value.
type Setting struct {
	ID    SettingID
	Value uint32
}

// Check returns what is wrong with the value, whoever sent it. Unknown
// parameters pass.
func (s Setting) Check() *Error {
	if f := s.ID.facts(); f != nil && (s.Value < f.min || s.Value > f.max) {
		return connectionError(f.code, f.detail)
	}
	return nil
}

// EachSetting calls f for each parameter in the payload of a SETTINGS frame, in
// order, until f returns an error.
//
// RFC 9113, section 6.5.3: they count in the order in which they come.
func EachSetting(p []byte, f func(id SettingID, v uint32) *Error) *Error {
	for ; len(p) >= 6; p = p[6:] {
		if err := f(SettingID(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	return nil
}

// Settings are what one endpoint said of itself: the other must heed them.
// DefaultSettings holds until it says something.
type Settings struct {
	HeaderTableSize      uint32 // bytes of HPACK table that its decoder holds
	MaxConcurrentStreams uint32 // that the other may have open
	InitialWindowSize    uint32 // of each stream that the other sends on
	MaxFrameSize         uint32 // of a payload that it takes
	MaxHeaderListSize    uint32 // of a field section that it takes
	EnablePush           bool
	EnableConnect        bool // it takes CONNECT with :protocol
	NoPriorities         bool // it ignores the priorities of RFC 7540
}

// DefaultSettings returns what holds before the first SETTINGS frame.
//
// RFC 9113, section 6.5.2: without a limit, streams and field sections are
// unlimited.
func DefaultSettings() Settings {
	return Settings{
		HeaderTableSize:      4096,
		MaxConcurrentStreams: math.MaxUint32,
		InitialWindowSize:    InitialWindow,
		MaxFrameSize:         MinMaxFrame,
		MaxHeaderListSize:    math.MaxUint32,
		EnablePush:           true,
	}
}

var (
	errServerPush   = connectionError(ProtocolError, "a server enables push")
	errConnectAgain = connectionError(ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL is taken back")
)

// Apply takes one parameter that the endpoint sent: from is its role. With an
// error s is as before.
func (s *Settings) Apply(from Role, id SettingID, v uint32) *Error {
	if err := (Setting{id, v}).Check(); err != nil {
		return err
	}
	switch id {
	case SettingHeaderTableSize:
		s.HeaderTableSize = v
	case SettingEnablePush:
		// RFC 9113, section 6.5.2: a server may only say 0.
		if from == Server && v == 1 {
			return errServerPush
		}
		s.EnablePush = v == 1
	case SettingMaxConcurrentStreams:
		s.MaxConcurrentStreams = v
	case SettingInitialWindowSize:
		s.InitialWindowSize = v
	case SettingMaxFrameSize:
		s.MaxFrameSize = v
	case SettingMaxHeaderListSize:
		s.MaxHeaderListSize = v
	case SettingEnableConnect:
		// RFC 8441, section 3: once said it stays.
		if s.EnableConnect && v == 0 {
			return errConnectAgain
		}
		s.EnableConnect = v == 1
	case SettingNoPriorities:
		s.NoPriorities = v == 1
	}
	return nil
}
