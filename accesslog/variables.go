package accesslog

import (
	"slices"
	"time"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/reason"
)

// variable is what a format can name. Exactly one of its functions is set.
type variable struct {
	name string
	text func(*line) string
	view func(*line) []byte // lent
	num  func(*line) int64
	dur  func(*line) time.Duration // zero: not known
	flag func(*line) bool
	raw  func(dst []byte, n *line) []byte // text without anything to escape
}

// Variables returns the names that a format may use, in alphabetical order,
// besides http_NAME and sent_http_NAME.
func Variables() []string {
	names := make([]string, len(variables))
	for i := range variables {
		names[i] = variables[i].name
	}
	slices.Sort(names)
	return names
}

// DefaultFields returns the names of what a line of the format "json" has when
// Options.Fields says nothing else.
func DefaultFields() []string {
	return []string{
		"time", "request_id", "client", "method", "host", "target", "protocol", "status", "reason", "duration",
		"received", "sent", "route", "peer", "attempts", "reused", "first_byte", "user_agent", "referer",
	}
}

var variables = []variable{
	{name: "time", raw: func(b []byte, n *line) []byte { return n.appendTime(b) }},
	{name: "time_common", raw: func(b []byte, n *line) []byte { return n.common.append(b, n.now, "02/Jan/2006:15:04:05 -0700") }},
	{name: "time_unix", num: func(n *line) int64 { return n.now.Unix() }},
	{name: "duration", dur: func(n *line) time.Duration { return max(n.elapsed, 1) }},

	// The client and its connection.
	{name: "client", text: func(n *line) string { return n.s.ClientIP() }},
	{name: "client_port", num: func(n *line) int64 { return int64(n.s.ClientAddr().Port()) }},
	{name: "listener", text: func(n *line) string { return n.s.Listener() }},
	{name: "connection_requests", num: func(n *line) int64 { return int64(n.s.ConnRequests()) }},

	// TLS with the client; empty without.
	{name: "tls_version", text: func(n *line) string { return digest(n.s.TLS()).Version }},
	{name: "tls_cipher", text: func(n *line) string { return digest(n.s.TLS()).Cipher }},
	{name: "tls_group", text: func(n *line) string { return digest(n.s.TLS()).Group }},
	{name: "tls_server_name", text: func(n *line) string { return digest(n.s.TLS()).ServerName }},
	{name: "tls_protocol", text: func(n *line) string { return digest(n.s.TLS()).Protocol }},
	{name: "tls_resumed", flag: func(n *line) bool { return digest(n.s.TLS()).Resumed }},
	{name: "client_cert_subject", text: func(n *line) string { return certificate(n.s.TLS()).Subject }},
	{name: "client_cert_organization", text: func(n *line) string { return certificate(n.s.TLS()).Organization }},
	{name: "client_cert_serial", text: func(n *line) string { return certificate(n.s.TLS()).Serial }},
	{name: "client_cert_sha256", text: func(n *line) string { return certificate(n.s.TLS()).SHA256 }},

	// The request.
	{name: "request_id", view: func(n *line) []byte { return n.s.IDView() }},
	{name: "method", text: func(n *line) string { return n.s.Request().Method() }},
	{name: "scheme", text: func(n *line) string { return n.s.Request().Scheme() }},
	{name: "host", view: func(n *line) []byte { return n.s.Request().HostView() }},
	{name: "target", view: func(n *line) []byte { return n.s.Request().TargetView() }},
	{name: "path", view: func(n *line) []byte { return n.s.Request().PathView() }},
	{name: "query", view: func(n *line) []byte { return n.s.Request().QueryView() }},
	{name: "protocol", text: func(n *line) string { return n.s.Protocol() }},
	{name: "received", num: func(n *line) int64 { return n.s.BytesReceived() }},
	{name: "user_agent", view: func(n *line) []byte { return n.s.Request().Header.View("User-Agent") }},
	{name: "referer", view: func(n *line) []byte { return n.s.Request().Header.View("Referer") }},

	// The response and how the session ended.
	{name: "status", num: func(n *line) int64 { return int64(n.s.Response().Status) }},
	{name: "sent", num: func(n *line) int64 { return n.s.BytesSent() }},
	{name: "reason", text: func(n *line) string { return n.reason().String() }},
	{name: "side", text: func(n *line) string {
		if n.err == nil {
			return ""
		}
		return n.err.Side().String()
	}},
	{name: "filter", text: func(n *line) string {
		if n.err == nil {
			return ""
		}
		return n.err.Hook
	}},

	// The way to the origin.
	{name: "route", text: func(n *line) string { return n.s.Route() }},
	{name: "peer", text: func(n *line) string {
		if p := n.s.Peer(); p != nil {
			return p.String()
		}
		return ""
	}},
	{name: "attempts", num: func(n *line) int64 { return int64(n.s.Attempts()) }},
	{name: "reused", flag: func(n *line) bool { return n.attempt.Reused }},
	{name: "connect", dur: func(n *line) time.Duration { return n.attempt.Connect }},
	{name: "upstream_tls_version", text: func(n *line) string { return digest(n.attempt.TLS).Version }},
	{name: "upstream_tls_cipher", text: func(n *line) string { return digest(n.attempt.TLS).Cipher }},
	{name: "upstream_tls_protocol", text: func(n *line) string { return digest(n.attempt.TLS).Protocol }},
	{name: "upstream_tls_resumed", flag: func(n *line) bool { return digest(n.attempt.TLS).Resumed }},
	{name: "first_byte", dur: func(n *line) time.Duration { return n.attempt.FirstByte }},
}

var (
	noDigest      cirque.TLSDigest
	noCertificate cirque.CertificateDigest
)

func digest(d *cirque.TLSDigest) *cirque.TLSDigest {
	if d == nil {
		return &noDigest
	}
	return d
}

func certificate(d *cirque.TLSDigest) *cirque.CertificateDigest {
	if d == nil || d.Certificate == nil {
		return &noCertificate
	}
	return d.Certificate
}

// second is the text of a second, kept because the next line is likely to be of
// the same one, and because to format a time is a third of the cost of a line.
type second struct {
	unix int64
	text []byte
}

func (c *second) append(dst []byte, t time.Time, layout string) []byte {
	if unix := t.Unix(); unix != c.unix || len(c.text) == 0 {
		c.unix, c.text = unix, t.UTC().AppendFormat(c.text[:0], layout)
	}
	return append(dst, c.text...)
}

// appendTime appends the time as RFC 3339 has it, to the millisecond.
func (n *line) appendTime(dst []byte) []byte {
	ms := n.now.Nanosecond() / 1e6
	dst = n.iso.append(dst, n.now, "2006-01-02T15:04:05")
	return append(dst, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

func (n *line) reason() reason.Reason {
	if n.err == nil {
		return reason.None
	}
	return n.err.Reason
}

// fieldVariable is a field of the request or of the response.
func fieldVariable(name, field string, sent bool) *variable {
	if sent {
		return &variable{name: name, view: func(n *line) []byte { return n.s.Response().Header.View(field) }}
	}
	return &variable{name: name, view: func(n *line) []byte { return n.s.Request().Header.View(field) }}
}
