// Package reason is the closed list of why a connection, an attempt or a
// session ended: one row per reason, with the side at fault, whether it is an
// error, the status a client gets for it and the error type of RFC 9209.
// Logs, counters and tests use the value; text is for people only.
package reason

// Side says which party's part of the exchange went wrong.
type Side uint8

const (
	// Internal is this proxy or a hook in it.
	Internal Side = iota
	// Downstream is the client and the connection to it.
	Downstream
	// Upstream is the origin and the connection to it.
	Upstream
)

// String returns "internal", "downstream" or "upstream".
func (s Side) String() string {
	switch s {
	case Downstream:
		return "downstream"
	case Upstream:
		return "upstream"
	default:
		return "internal"
	}
}

// Reason is one row of the table. The zero value is None.
type Reason uint8

// The reasons. The comment of each is the sentence that people read.
const (
	None Reason = iota // ended as it should

	// Requests that are refused.
	BadRequest      // the request head is malformed
	BadFraming      // the framing of the request is ambiguous or malformed
	BadHost         // the Host field is missing, repeated or malformed
	BadVersion      // the protocol version is not supported
	BadPath         // the path climbs above the root or hides a separator
	BadChunk        // the chunked body of the request is malformed
	HeadTooLarge    // the request head is over the limit
	TargetTooLong   // the request target is over the limit
	TrailerTooLarge // the trailer section is over the limit
	BodyTooLarge    // the request body is over the limit of its route
	BadExpect       // the expectation is not known
	MethodRefused   // the method is not served here
	ProtocolRefused // the protocol that CONNECT asks for is not served here
	NoRoute         // no route matches
	Loop            // the request came through this proxy before
	Refused         // a filter refused the request
	ProtocolError   // the client broke the rules of HTTP/2
	Abuse           // the client made more work than it is worth

	// Clients that end early or stall.
	ClientGone      // the client left before the response was complete
	HeadTimeout     // the client did not complete its head in time
	BodyTimeout     // the client stalled in its body
	ClientTooSlow   // the client stayed below the minimum rate
	ClientWriteStop // the client stopped reading the response
	ClientReset     // the client reset the connection

	// TLS with clients.
	TLSHandshake         // the handshake with the client failed
	TLSHandshakeTimeout  // the client did not complete its handshake in time
	TLSClientCertificate // the client's certificate is missing or not believed
	TLSProtocol          // the client wants no protocol that is spoken here
	Misdirected          // the request's host has another TLS policy than its connection

	// Upstreams that cannot be reached.
	NoPeer          // no peer could be chosen
	PeerLimit       // the peer's connections are all busy and its queue is full or too slow
	DNSFailed       // the peer's name did not resolve
	ConnectRefused  // the peer refused the connection
	ConnectTimeout  // the peer did not accept the connection in time
	ConnectFailed   // the connection to the peer could not be made
	ConnectionLimit // the limit of upstream connections is reached
	ConnectTotal    // the connection with its handshake was not made in the time for both

	// TLS with upstreams.
	UpstreamTLS            // the handshake with the peer failed
	UpstreamTLSAlert       // the peer ended the handshake with an alert
	UpstreamTLSCertificate // the peer's certificate is not believed
	UpstreamTLSTimeout     // the peer did not complete its handshake in time

	// Upstreams that fail after the connection was made.
	UpstreamClosed           // the origin closed the connection before a response
	UpstreamReset            // the origin reset the connection
	UpstreamTimeout          // the origin did not begin its response in time
	UpstreamReadTimeout      // the origin stalled inside its response
	UpstreamWriteTimeout     // the origin stopped reading the request
	UpstreamBadHead          // the response head is malformed
	UpstreamHeadTooLarge     // the response head is over the limit
	UpstreamBadFraming       // the framing of the response is ambiguous or malformed
	UpstreamTruncated        // the response ended before its length
	UpstreamInterimLimit     // the origin sent too many interim responses
	UpstreamTrailerTooLarge  // the trailer section of the response is over the limit
	UpstreamUnexpectedSwitch // the origin switched protocols without being asked
	UpstreamNoSwitch         // the origin did not switch protocols and did not refuse to
	UpstreamRefused          // the origin did not look at the request
	UpstreamProtocolError    // the origin broke the rules of HTTP/2
	UpstreamPingTimeout      // the origin did not answer a ping in time

	// Ours.
	HookError    // a hook returned an error
	HookPanic    // a hook panicked
	BadHookField // a hook set an invalid field
	BadHookBody  // a body hook delivered another length than it announced
	TotalTimeout // the session took longer than its total time
	Shutdown     // this proxy is shutting down

	// Ends of connections that are no failure of a session.
	IdleTimeout   // the connection was idle for too long
	KeepAliveOff  // one of the two parties did not want to keep the connection
	RequestLimit  // the connection served as many requests as it may
	AgeLimit      // the connection reached its maximum age
	StrayBytes    // bytes came on an idle upstream connection
	PeerClosed    // the other party closed an idle connection
	PoolFull      // the pool had no room for the connection
	TunnelEnded   // a tunnel ended
	Evicted       // a newer idle connection took the place
	UnreadBody    // the rest of a request body was not worth reading
	FilterRefused // a connection filter refused the client
	ServerClosed  // the server was closed

	count
)

type row struct {
	name   string
	side   Side
	isErr  bool
	status int // what the client gets when nothing was sent yet; 0: nothing, close
	rfc    string
}

// Len is the number of reasons, None included. Counters by reason are arrays
// of this length.
const Len = int(count)

// The third column of RFC 9209, section 2.3 names the error type that the
// Proxy-Status field carries.
var table = [count]row{
	None: {"none", Internal, false, 0, ""},

	BadRequest:      {"bad_request", Downstream, true, 400, "http_request_error"},
	BadFraming:      {"bad_framing", Downstream, true, 400, "http_request_error"},
	BadHost:         {"bad_host", Downstream, true, 400, "http_request_error"},
	BadVersion:      {"bad_version", Downstream, true, 505, "http_request_error"},
	BadPath:         {"bad_path", Downstream, true, 400, "http_request_error"},
	BadChunk:        {"bad_chunk", Downstream, true, 400, "http_request_error"},
	HeadTooLarge:    {"head_too_large", Downstream, true, 431, "http_request_error"},
	TargetTooLong:   {"target_too_long", Downstream, true, 414, "http_request_error"},
	TrailerTooLarge: {"trailer_too_large", Downstream, true, 431, "http_request_error"},
	BodyTooLarge:    {"body_too_large", Downstream, true, 413, "http_request_error"},
	BadExpect:       {"bad_expect", Downstream, true, 417, "http_request_error"},
	MethodRefused:   {"method_refused", Downstream, true, 405, "http_request_denied"},
	ProtocolRefused: {"protocol_refused", Downstream, true, 501, "http_request_denied"},
	NoRoute:         {"no_route", Downstream, true, 404, "destination_not_found"},
	Loop:            {"loop", Downstream, true, 508, "proxy_loop_detected"},
	Refused:         {"refused", Downstream, true, 403, "http_request_denied"},
	ProtocolError:   {"protocol_error", Downstream, true, 0, "http_protocol_error"},
	Abuse:           {"abuse", Downstream, true, 0, "http_request_denied"},

	ClientGone:      {"client_gone", Downstream, true, 0, "http_request_error"},
	HeadTimeout:     {"head_timeout", Downstream, true, 408, "http_request_error"},
	BodyTimeout:     {"body_timeout", Downstream, true, 408, "http_request_error"},
	ClientTooSlow:   {"client_too_slow", Downstream, true, 408, "http_request_error"},
	ClientWriteStop: {"client_write_timeout", Downstream, true, 0, "http_request_error"},
	ClientReset:     {"client_reset", Downstream, true, 0, "http_request_error"},

	TLSHandshake:         {"tls_handshake", Downstream, true, 0, "http_request_error"},
	TLSHandshakeTimeout:  {"tls_handshake_timeout", Downstream, true, 0, "http_request_error"},
	TLSClientCertificate: {"tls_client_certificate", Downstream, true, 0, "http_request_denied"},
	TLSProtocol:          {"tls_protocol", Downstream, true, 0, "http_request_error"},
	Misdirected:          {"misdirected", Downstream, true, 421, "http_request_error"},

	NoPeer:          {"no_peer", Upstream, true, 503, "destination_unavailable"},
	PeerLimit:       {"peer_limit", Upstream, true, 503, "connection_limit_reached"},
	DNSFailed:       {"dns_failed", Upstream, true, 502, "dns_error"},
	ConnectRefused:  {"connect_refused", Upstream, true, 502, "connection_refused"},
	ConnectTimeout:  {"connect_timeout", Upstream, true, 504, "connection_timeout"},
	ConnectFailed:   {"connect_failed", Upstream, true, 502, "destination_ip_unroutable"},
	ConnectionLimit: {"connection_limit", Upstream, true, 503, "connection_limit_reached"},
	ConnectTotal:    {"connect_total_timeout", Upstream, true, 504, "connection_timeout"},

	UpstreamTLS:            {"upstream_tls", Upstream, true, 502, "tls_protocol_error"},
	UpstreamTLSAlert:       {"upstream_tls_alert", Upstream, true, 502, "tls_alert_received"},
	UpstreamTLSCertificate: {"upstream_tls_certificate", Upstream, true, 502, "tls_certificate_error"},
	UpstreamTLSTimeout:     {"upstream_tls_timeout", Upstream, true, 504, "connection_timeout"},

	UpstreamClosed:           {"upstream_closed", Upstream, true, 502, "connection_terminated"},
	UpstreamReset:            {"upstream_reset", Upstream, true, 502, "connection_terminated"},
	UpstreamTimeout:          {"upstream_timeout", Upstream, true, 504, "http_response_timeout"},
	UpstreamReadTimeout:      {"upstream_read_timeout", Upstream, true, 504, "connection_read_timeout"},
	UpstreamWriteTimeout:     {"upstream_write_timeout", Upstream, true, 504, "connection_write_timeout"},
	UpstreamBadHead:          {"upstream_bad_head", Upstream, true, 502, "http_protocol_error"},
	UpstreamHeadTooLarge:     {"upstream_head_too_large", Upstream, true, 502, "http_response_header_section_size"},
	UpstreamBadFraming:       {"upstream_bad_framing", Upstream, true, 502, "http_protocol_error"},
	UpstreamTruncated:        {"upstream_truncated", Upstream, true, 502, "http_response_incomplete"},
	UpstreamInterimLimit:     {"upstream_interim_limit", Upstream, true, 502, "http_protocol_error"},
	UpstreamTrailerTooLarge:  {"upstream_trailer_too_large", Upstream, true, 502, "http_response_trailer_section_size"},
	UpstreamUnexpectedSwitch: {"upstream_unexpected_switch", Upstream, true, 502, "http_upgrade_failed"},
	UpstreamNoSwitch:         {"upstream_no_switch", Upstream, true, 502, "http_upgrade_failed"},
	UpstreamRefused:          {"upstream_refused_stream", Upstream, true, 502, "connection_terminated"},
	UpstreamProtocolError:    {"upstream_protocol_error", Upstream, true, 502, "http_protocol_error"},
	UpstreamPingTimeout:      {"upstream_ping_timeout", Upstream, true, 504, "connection_timeout"},

	HookError:    {"hook_error", Internal, true, 500, "proxy_internal_error"},
	HookPanic:    {"hook_panic", Internal, true, 500, "proxy_internal_error"},
	BadHookField: {"bad_hook_field", Internal, true, 500, "proxy_internal_error"},
	BadHookBody:  {"bad_hook_body", Internal, true, 500, "proxy_internal_error"},
	TotalTimeout: {"total_timeout", Internal, true, 504, "http_response_timeout"},
	Shutdown:     {"shutdown", Internal, true, 503, "proxy_internal_response"},

	IdleTimeout:   {"idle_timeout", Internal, false, 0, ""},
	KeepAliveOff:  {"keep_alive_off", Internal, false, 0, ""},
	RequestLimit:  {"request_limit", Internal, false, 0, ""},
	AgeLimit:      {"age_limit", Internal, false, 0, ""},
	StrayBytes:    {"stray_bytes", Upstream, true, 0, "http_protocol_error"},
	PeerClosed:    {"peer_closed", Internal, false, 0, ""},
	PoolFull:      {"pool_full", Internal, false, 0, ""},
	TunnelEnded:   {"tunnel_ended", Internal, false, 0, ""},
	Evicted:       {"evicted", Internal, false, 0, ""},
	UnreadBody:    {"unread_body", Downstream, false, 0, ""},
	FilterRefused: {"filter_refused", Downstream, false, 0, ""},
	ServerClosed:  {"server_closed", Internal, false, 0, ""},
}

// String returns the reason's name as logs and metrics carry it.
func (r Reason) String() string { return r.row().name }

// Side returns the side at fault.
func (r Reason) Side() Side { return r.row().side }

// IsError reports whether the end was a failure.
func (r Reason) IsError() bool { return r.row().isErr }

// Status returns the status that a client gets when no response has begun, or
// 0 when nothing can be said to it any more.
func (r Reason) Status() int { return r.row().status }

// ProxyError returns the error type of RFC 9209 for the reason, or "".
func (r Reason) ProxyError() string { return r.row().rfc }

func (r Reason) row() *row {
	if r >= count {
		return &table[None]
	}
	return &table[r]
}
