// Package h2stream is what an HTTP/2 connection must know of its streams, as
// machines that take values and return values: the state of a stream, which ids
// were used, windows, budgets against abuse, priorities. It is pure: no
// connection, no clock (a now is passed in), no goroutine, and nothing is guarded
// here. Every machine serves both roles.
//
// What a frame earns is a Verdict. The engine acts on it, and on nothing else.
package h2stream

import "github.com/cirqueproxy/cirque/internal/h2frame"

// Kind is what is to be done about a frame.
type Kind uint8

// The kinds.
const (
	KindAccept     Kind = iota // take it
	KindIgnore                 // count it (HPACK, connection window), and no more
	KindStream                 // reset the stream
	KindConnection             // end the connection
)

// Verdict is one row of the table of what can be said about a frame. The zero
// value is Accept.
type Verdict uint8

// The verdicts.
const (
	Accept Verdict = iota
	// Ignore is for frames that could have been on their way when the stream
	// ended, and for what we wanted to send on a stream that has ended.
	Ignore

	// Frames in a state that does not allow them.
	IdleStream    // on a stream that was never opened
	HalfClosed    // after END_STREAM, while we still send
	EndedStream   // after END_STREAM in both directions
	ResetStream   // after the sender's own RST_STREAM
	OldStream     // HEADERS for a stream that was passed over or forgotten
	InvalidStream // on a stream that the sender cannot open

	// Heads, bodies and trailers in the wrong order.
	DataBeforeHead
	TrailersUnended
	InterimEnds
	InterimRequest
	HeadersInTunnel
	LengthDiffers

	// Windows.
	StreamWindowExceeded     // the peer sent more than it was allowed to
	ConnectionWindowExceeded // the same, of the connection's window
	WindowOverflow           // the peer allows more than 2^31-1
	SettingsOverflow         // the same, by SETTINGS_INITIAL_WINDOW_SIZE

	// Budgets; see Abuse.
	TooManyResets
	TooManyProvoked
	TooManySettings
	TooManyPings
	TooManyEmpty
	TooManyContinuations
	TooManyPriorities
	TooManyUpdates
	TooManyUnknown

	// Ours.
	Misuse // what we wanted to send has no place in this state
)

// verdicts has one row per verdict.
var verdicts = [...]struct {
	kind   Kind
	code   h2frame.Code
	detail string
}{
	Accept: {KindAccept, h2frame.NoError, "accepted"},
	Ignore: {KindIgnore, h2frame.NoError, "the stream has ended"},

	IdleStream:    {KindConnection, h2frame.ProtocolError, "a frame on a stream that was not opened"},
	HalfClosed:    {KindStream, h2frame.StreamClosed, "a frame after the one that ended the stream"},
	EndedStream:   {KindConnection, h2frame.StreamClosed, "a frame on a stream that ended in both directions"},
	ResetStream:   {KindStream, h2frame.StreamClosed, "a frame after RST_STREAM"},
	OldStream:     {KindConnection, h2frame.ProtocolError, "HEADERS on a stream below the last one that was opened"},
	InvalidStream: {KindConnection, h2frame.ProtocolError, "a frame on a stream that its sender cannot open"},

	DataBeforeHead:  {KindStream, h2frame.ProtocolError, "DATA before the head"},
	TrailersUnended: {KindStream, h2frame.ProtocolError, "trailers that do not end the stream"},
	InterimEnds:     {KindStream, h2frame.ProtocolError, "an interim response that ends the stream"},
	InterimRequest:  {KindStream, h2frame.ProtocolError, "an interim head of a request"},
	HeadersInTunnel: {KindStream, h2frame.ProtocolError, "HEADERS in a tunnel"},
	LengthDiffers:   {KindStream, h2frame.ProtocolError, "the content has not the length that Content-Length says"},

	StreamWindowExceeded:     {KindStream, h2frame.FlowControlError, "more DATA than the window of the stream allows"},
	ConnectionWindowExceeded: {KindConnection, h2frame.FlowControlError, "more DATA than the window of the connection allows"},
	WindowOverflow:           {KindStream, h2frame.FlowControlError, "a window over 2^31-1"},
	SettingsOverflow:         {KindConnection, h2frame.FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE makes a window larger than 2^31-1"},

	TooManyResets:        {KindConnection, h2frame.EnhanceYourCalm, "too many streams were reset"},
	TooManyProvoked:      {KindConnection, h2frame.EnhanceYourCalm, "too many streams had to be reset"},
	TooManySettings:      {KindConnection, h2frame.EnhanceYourCalm, "too many SETTINGS frames"},
	TooManyPings:         {KindConnection, h2frame.EnhanceYourCalm, "too many PING frames"},
	TooManyEmpty:         {KindConnection, h2frame.EnhanceYourCalm, "too many empty frames"},
	TooManyContinuations: {KindConnection, h2frame.EnhanceYourCalm, "too many small CONTINUATION frames"},
	TooManyPriorities:    {KindConnection, h2frame.EnhanceYourCalm, "too many PRIORITY and PRIORITY_UPDATE frames"},
	TooManyUpdates:       {KindConnection, h2frame.EnhanceYourCalm, "too many small WINDOW_UPDATE frames"},
	TooManyUnknown:       {KindConnection, h2frame.EnhanceYourCalm, "too many frames of unknown types"},

	Misuse: {KindStream, h2frame.InternalError, "a frame of ours that the state does not allow"},
}

// Kind returns what is to be done.
func (v Verdict) Kind() Kind { return verdicts[v].kind }

// Code returns the code that RST_STREAM or GOAWAY carries.
func (v Verdict) Code() h2frame.Code { return verdicts[v].code }

// String returns a sentence for people.
func (v Verdict) String() string { return verdicts[v].detail }

// Err returns the verdict as an error: of the stream, or of the connection where
// the verdict says so or stream is 0. It returns nil for Accept and Ignore.
func (v Verdict) Err(stream uint32) *h2frame.Error {
	switch v.Kind() {
	case KindAccept, KindIgnore:
		return nil
	case KindConnection:
		stream = 0
	}
	return &h2frame.Error{Code: v.Code(), Stream: stream, Detail: v.String()}
}
