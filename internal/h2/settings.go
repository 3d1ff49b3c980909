package h2

import (
	"encoding/binary"
	"time"

	"github.com/cirqueproxy/cirque/internal/h2frame"
	"github.com/cirqueproxy/cirque/internal/h2stream"
)

// sayHello sends what an end says first.
func (c *Conn) sayHello() {
	list := []h2frame.Setting{
		{ID: h2frame.SettingInitialWindowSize, Value: uint32(c.cfg.StreamWindow)},
		{ID: h2frame.SettingMaxHeaderListSize, Value: uint32(c.cfg.HeadBytes)},
	}
	if c.role == h2frame.Server {
		list = append(list, h2frame.Setting{ID: h2frame.SettingMaxConcurrentStreams, Value: uint32(c.cfg.MaxStreams)},
			// RFC 9218, section 2.1: the priorities of RFC 7540 mean nothing here.
			h2frame.Setting{ID: h2frame.SettingNoPriorities, Value: 1})
		if c.cfg.Connect {
			list = append(list, h2frame.Setting{ID: h2frame.SettingEnableConnect, Value: 1})
		}
	} else {
		list = append(list, h2frame.Setting{ID: h2frame.SettingEnablePush, Value: 0})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Not in a buffer that has to be given back: Serve may never be called.
	b := make([]byte, 0, 256)
	if c.role == h2frame.Client {
		b = append(b, h2frame.Preface...)
	}
	b = h2frame.AppendSettings(b, list...)
	if n := c.recv.Grow(c.cfg.ConnWindow); n > 0 {
		b = h2frame.AppendWindowUpdate(b, 0, uint32(n))
	}
	c.out.append(b)
}

func (c *Conn) settings(h h2frame.Header, p []byte) error {
	c.mu.Lock()
	if h.Flags.Has(h2frame.FlagAck) {
		defer c.mu.Unlock()
		c.ackedLocked()
		return nil
	}
	ferr := h2frame.EachSetting(p, c.settingLocked)
	if !c.seen && !c.acked {
		c.ackSince = max(c.sweep.Now(), 1)
	}
	c.head.settings, c.seen = true, true
	ok := true
	if ferr == nil {
		ok = c.controlLocked(h2frame.AppendSettingsAck(c.out.tail()))
		c.wakeWritersLocked()
	}
	c.freed = true
	c.unlock()
	switch {
	case ferr != nil:
		return ferr
	case !ok:
		return errUnread
	}
	return nil
}

// ackedLocked notes that the other end heeds our settings from now on.
//
// RFC 9113, section 6.5.3, and section 6.9.3: until then a client may send as much as
// the first window of the protocol allows, even if we announced a smaller one.
func (c *Conn) ackedLocked() {
	if c.acked {
		return
	}
	c.acked, c.ackSince = true, 0
	if c.firstWindow() == c.cfg.StreamWindow {
		return
	}
	for _, st := range c.streams {
		st.recv.Adjust(c.cfg.StreamWindow - h2frame.InitialWindow)
	}
}

// firstWindow is the window of streams that a client opens before it knows ours.
func (c *Conn) firstWindow() int {
	if c.role == h2frame.Client {
		return c.cfg.StreamWindow // a server answers when it has read our SETTINGS
	}
	return max(c.cfg.StreamWindow, h2frame.InitialWindow)
}

// settingLocked takes one setting of the other end.
func (c *Conn) settingLocked(id h2frame.SettingID, v uint32) *h2frame.Error {
	from := h2frame.Server
	if c.role == h2frame.Server {
		from = h2frame.Client
	}
	if id == h2frame.SettingHeaderTableSize && v < c.hpack {
		// RFC 7541, section 4.2: the smallest of several sizes counts, also when it has
		// grown again before we send.
		c.shrunk = true
	}
	before := int64(c.peer.InitialWindowSize)
	if ferr := c.peer.Apply(from, id, v); ferr != nil || id != h2frame.SettingInitialWindowSize {
		return ferr
	}
	// RFC 9113, section 6.9.2: it changes what open streams may send.
	for _, st := range c.streams {
		if v := st.send.Adjust(int64(v) - before); v != h2stream.Accept {
			return v.Err(0)
		}
	}
	return nil
}

// maxFrameLocked returns how large frames may be that we send: not as large as the
// other end would take them, so that streams take turns.
func (c *Conn) maxFrameLocked() int { return int(min(c.peer.MaxFrameSize, recvFrame)) }

// pingState is about pings of ours.
type pingState struct {
	sent time.Duration // of the one under way; 0: none is
	kind uint64
}

// Kinds of pings, which are their content.
const (
	pingAlive = 0x63697271_616c6976
	pingDrain = 0x63697271_64726169
	pingTune  = 0x63697271_74756e65
)

// sendPingLocked sends a ping; one at a time, but that one that measures gives way.
func (c *Conn) sendPingLocked(kind uint64) {
	if c.ping.sent != 0 && (kind == pingTune || c.ping.kind != pingTune) && kind != pingDrain {
		return
	}
	c.ping.sent, c.ping.kind = max(c.sweep.NowExact(), 1), kind
	var data [8]byte
	binary.BigEndian.PutUint64(data[:], kind)
	c.out.append(h2frame.AppendPing(c.out.tail(), false, data))
	c.kickLocked()
}

func (c *Conn) gotPing(h h2frame.Header, p []byte) error {
	data := h2frame.ParsePing(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !h.Flags.Has(h2frame.FlagAck) {
		if !c.controlLocked(h2frame.AppendPing(c.out.tail(), true, data)) {
			return errUnread
		}
		return nil
	}
	if c.ping.sent == 0 || binary.BigEndian.Uint64(data[:]) != c.ping.kind {
		return nil
	}
	now := c.sweep.NowExact()
	switch c.ping.kind {
	case pingDrain:
		c.endDrainLocked()
	case pingTune:
		c.tunedLocked(now)
	}
	c.ping.sent = 0
	return nil
}

// drainWait bounds how long the second GOAWAY waits for the answer to our ping.
const drainWait = time.Second

// turn is called by the sweep.
func (c *Conn) turn(now time.Duration) {
	c.mu.Lock()
	if c.err != nil {
		for _, st := range c.streams {
			st.lateLocked(now)
		}
		c.mu.Unlock()
		return
	}
	if n := c.wc.BytesRead(); n != c.tune.read {
		c.tune.read, c.heard = n, now
	}
	for _, st := range c.streams {
		st.lateLocked(now)
	}
	e := c.overdueLocked(now)
	idle := c.idleSince > 0 && c.cfg.IdleTimeout > 0 && now-c.idleSince >= c.cfg.IdleTimeout
	if c.draining == drainBegun && now-c.drainAt >= drainWait {
		c.endDrainLocked()
	}
	if e == nil && idle && c.role == h2frame.Server && c.draining == drainNone {
		c.draining, c.drainWhy = drainBegun, ErrIdle
		c.endDrainLocked()
	}
	c.restLocked(now)
	c.shrinkLocked()
	c.offerParkLocked(now)
	c.mu.Unlock()
	if e != nil {
		c.fail(e)
		c.wc.InterruptRead(e)
	}
}

var (
	errUnread      = &Error{Code: h2frame.EnhanceYourCalm, Conn: true, Err: debugText("answers were asked for and not read")}
	errSlowSection = &Error{Code: h2frame.EnhanceYourCalm, Conn: true, Err: debugText("a frame or a field section did not come in time")}
	// RFC 9113, section 6.5.3.
	errSettings = &Error{Code: h2frame.SettingsTimeout, Conn: true, Err: debugText("our settings were not acknowledged in time")}
	errNoPong   = &Error{Code: h2frame.NoError, Conn: true, Err: ErrPing}
)

// ErrPing and ErrIdle say that a ping was not answered in time, and that nothing
// was asked of the connection for too long.
const (
	ErrPing = debugText("a ping was not answered in time")
	ErrIdle = debugText("the connection was idle for too long")
)

// slowFrames is how many times HeadTimeout a frame may take that does come, but
// slowly: what a full one takes at the least rate that is permitted to bodies.
const slowFrames = 8

// overdueLocked returns what the connection waited for in vain.
func (c *Conn) overdueLocked(now time.Duration) *Error {
	if t := c.cfg.HeadTimeout; t > 0 {
		frame := now - c.frameSince
		switch {
		case c.blockSince > 0 && now-c.blockSince > t:
			return errSlowSection
		case c.frameSince > 0 && (frame > t && now-c.heard > t || frame > slowFrames*t):
			return errSlowSection
		case c.ackSince > 0 && now-c.ackSince > t:
			return errSettings
		}
	}
	if t := c.cfg.PingTimeout; t > 0 && c.ping.sent > 0 && c.ping.kind == pingAlive && now-c.ping.sent > t && now-c.heard > t {
		return errNoPong
	}
	if t := c.cfg.PingEvery; t > 0 && now-c.heard > t && len(c.streams) > 0 {
		c.sendPingLocked(pingAlive)
	}
	return nil
}
