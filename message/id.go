package message

import (
	"strings"

	"github.com/cirqueproxy/cirque/internal/ascii"
)

// ID is a small number that stands for a well-known field name, so that code on
// the path of every request compares integers. The zero value is IDOther.
type ID uint8

// The well-known fields. IDOther is any other.
const (
	IDOther ID = iota
	IDAccept
	IDAcceptEncoding
	IDAcceptLanguage
	IDAcceptRanges
	IDAge
	IDAllow
	IDAltSvc
	IDAuthorization
	IDCacheControl
	IDClientCert
	IDClientCertChain
	IDConnection
	IDContentDisposition
	IDContentEncoding
	IDContentLanguage
	IDContentLength
	IDContentLocation
	IDContentRange
	IDContentSecurityPolicy
	IDContentType
	IDCookie
	IDDate
	IDETag
	IDExpect
	IDExpires
	IDForwarded
	IDFrom
	IDHost
	IDIfMatch
	IDIfModifiedSince
	IDIfNoneMatch
	IDIfRange
	IDIfUnmodifiedSince
	IDKeepAlive
	IDLastModified
	IDLink
	IDLocation
	IDMaxForwards
	IDOrigin
	IDPragma
	IDPriority
	IDProxyAuthenticate
	IDProxyAuthorization
	IDProxyConnection
	IDProxyStatus
	IDRange
	IDReferer
	IDRetryAfter
	IDSecFetchDest
	IDSecFetchMode
	IDSecFetchSite
	IDSecFetchUser
	IDSecWebSocketAccept
	IDSecWebSocketExtensions
	IDSecWebSocketKey
	IDSecWebSocketProtocol
	IDSecWebSocketVersion
	IDServer
	IDServerTiming
	IDSetCookie
	IDStrictTransportSecurity
	IDTE
	IDTraceparent
	IDTracestate
	IDTrailer
	IDTransferEncoding
	IDUpgrade
	IDUpgradeInsecureRequests
	IDUserAgent
	IDVary
	IDVia
	IDWWWAuthenticate
	IDWarning
	IDXContentTypeOptions
	IDXForwardedFor
	IDXForwardedHost
	IDXForwardedProto
	IDXFrameOptions
	IDXRealIP
	IDXRequestID
	IDXRequestedWith

	idCount
)

// names are the spellings that are sent for fields of ours.
var names = [idCount]string{
	IDAccept: "Accept", IDAcceptEncoding: "Accept-Encoding", IDAcceptLanguage: "Accept-Language",
	IDAcceptRanges: "Accept-Ranges", IDAge: "Age", IDAllow: "Allow", IDAltSvc: "Alt-Svc",
	IDAuthorization: "Authorization", IDCacheControl: "Cache-Control",
	IDClientCert: "Client-Cert", IDClientCertChain: "Client-Cert-Chain", IDConnection: "Connection",
	IDContentDisposition: "Content-Disposition", IDContentEncoding: "Content-Encoding",
	IDContentLanguage: "Content-Language", IDContentLength: "Content-Length",
	IDContentLocation: "Content-Location", IDContentRange: "Content-Range",
	IDContentSecurityPolicy: "Content-Security-Policy", IDContentType: "Content-Type",
	IDCookie: "Cookie", IDDate: "Date", IDETag: "ETag", IDExpect: "Expect", IDExpires: "Expires",
	IDForwarded: "Forwarded", IDFrom: "From", IDHost: "Host", IDIfMatch: "If-Match",
	IDIfModifiedSince: "If-Modified-Since", IDIfNoneMatch: "If-None-Match", IDIfRange: "If-Range",
	IDIfUnmodifiedSince: "If-Unmodified-Since", IDKeepAlive: "Keep-Alive",
	IDLastModified: "Last-Modified", IDLink: "Link", IDLocation: "Location",
	IDMaxForwards: "Max-Forwards", IDOrigin: "Origin", IDPragma: "Pragma", IDPriority: "Priority",
	IDProxyAuthenticate: "Proxy-Authenticate", IDProxyAuthorization: "Proxy-Authorization",
	IDProxyConnection: "Proxy-Connection", IDProxyStatus: "Proxy-Status", IDRange: "Range",
	IDReferer: "Referer", IDRetryAfter: "Retry-After", IDSecFetchDest: "Sec-Fetch-Dest",
	IDSecFetchMode: "Sec-Fetch-Mode", IDSecFetchSite: "Sec-Fetch-Site",
	IDSecFetchUser: "Sec-Fetch-User", IDSecWebSocketAccept: "Sec-WebSocket-Accept",
	IDSecWebSocketExtensions: "Sec-WebSocket-Extensions", IDSecWebSocketKey: "Sec-WebSocket-Key",
	IDSecWebSocketProtocol: "Sec-WebSocket-Protocol", IDSecWebSocketVersion: "Sec-WebSocket-Version",
	IDServer: "Server", IDServerTiming: "Server-Timing", IDSetCookie: "Set-Cookie",
	IDStrictTransportSecurity: "Strict-Transport-Security", IDTE: "TE",
	IDTraceparent: "Traceparent", IDTracestate: "Tracestate", IDTrailer: "Trailer",
	IDTransferEncoding: "Transfer-Encoding", IDUpgrade: "Upgrade",
	IDUpgradeInsecureRequests: "Upgrade-Insecure-Requests", IDUserAgent: "User-Agent",
	IDVary: "Vary", IDVia: "Via", IDWWWAuthenticate: "WWW-Authenticate", IDWarning: "Warning",
	IDXContentTypeOptions: "X-Content-Type-Options", IDXForwardedFor: "X-Forwarded-For",
	IDXForwardedHost: "X-Forwarded-Host", IDXForwardedProto: "X-Forwarded-Proto",
	IDXFrameOptions: "X-Frame-Options", IDXRealIP: "X-Real-IP", IDXRequestID: "X-Request-Id",
	IDXRequestedWith: "X-Requested-With",
}

var nameBytes = func() (t [idCount][]byte) {
	for id := range names {
		t[id] = []byte(names[id])
	}
	return t
}()

// String returns the field's name as this package spells it, "" for IDOther.
func (id ID) String() string {
	if id >= idCount {
		return ""
	}
	return names[id]
}

// Lower returns the field's name in lower case, as HTTP/2 carries it, or "" for
// IDOther.
func (id ID) Lower() string {
	if id >= idCount {
		return ""
	}
	return lowerNames[id]
}

var lowerNames = func() (t [idCount]string) {
	for id, name := range names {
		t[id] = strings.ToLower(name)
	}
	return t
}()

// idSlots is a hash table without chains: up to two names share a slot's
// neighbourhood, which lookup walks until an empty slot.
const idSlots = 512

var idTable = func() (t [idSlots]ID) {
	for id := IDOther + 1; id < idCount; id++ {
		at := idHash(nameBytes[id])
		for t[at] != IDOther {
			at = (at + 1) % idSlots
		}
		t[at] = id
	}
	return t
}()

// idHash looks at the length and three letters: the names differ enough.
func idHash[T string | []byte](name T) uint {
	n := len(name)
	return (uint(n)*37 + uint(ascii.Lower(name[0]))*5 + uint(ascii.Lower(name[n-1]))*113 + uint(ascii.Lower(name[n/2]))*59) % idSlots
}

// Lookup returns the ID of a field name in any case, or IDOther.
func Lookup(name []byte) ID {
	if len(name) == 0 || len(name) > longestName {
		return IDOther
	}
	for at := idHash(name); idTable[at] != IDOther; at = (at + 1) % idSlots {
		if id := idTable[at]; string(name) == names[id] || ascii.EqualFold(name, names[id]) {
			return id
		}
	}
	return IDOther
}

// LookupLower is Lookup for a name in lower case, as HTTP/2 has it: one in another
// case is not found.
func LookupLower(name string) ID {
	if len(name) == 0 || len(name) > longestName {
		return IDOther
	}
	for at := idHash(name); idTable[at] != IDOther; at = (at + 1) % idSlots {
		if id := idTable[at]; name == lowerNames[id] {
			return id
		}
	}
	return IDOther
}

// longestName is the length of the longest known name.
const longestName = len("Upgrade-Insecure-Requests")

// lookup is Lookup for a string.
func lookup(name string) ID {
	var a [32]byte
	if len(name) > len(a) {
		return IDOther
	}
	return Lookup(a[:copy(a[:], name)])
}

// InTrailer reports whether a field of this ID may come in a trailer section.
//
// RFC 9110, section 6.5.1: not those that frame the message, route it, modify
// the request, authenticate or say how the content is to be read.
func (id ID) InTrailer() bool {
	switch id {
	case IDContentLength, IDTransferEncoding, IDTrailer, IDHost, IDConnection, IDKeepAlive,
		IDProxyConnection, IDTE, IDUpgrade, IDExpect, IDMaxForwards, IDCacheControl, IDRange,
		IDIfMatch, IDIfNoneMatch, IDIfModifiedSince, IDIfUnmodifiedSince, IDIfRange,
		IDAuthorization, IDProxyAuthorization, IDProxyAuthenticate, IDWWWAuthenticate,
		IDCookie, IDSetCookie, IDContentEncoding, IDContentType, IDContentRange,
		IDForwarded, IDXForwardedFor, IDXForwardedHost, IDXForwardedProto, IDXRealIP,
		IDClientCert, IDClientCertChain, // RFC 9440, section 2
		IDLocation, IDRetryAfter, IDVary, IDAge, IDExpires, IDDate, IDVia:
		return false
	}
	return true
}
