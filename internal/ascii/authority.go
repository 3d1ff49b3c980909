package ascii

import "bytes"

// IsAuthority reports whether v is host, host:port, [v6] or [v6]:port.
//
// RFC 9110, section 4.2.1: an empty host is invalid; section 4.2.4: so is
// userinfo, which hides where a request goes.
func IsAuthority(v []byte) bool {
	host, port := v, []byte(nil)
	if len(v) > 0 && v[0] == '[' {
		end := bytes.IndexByte(v, ']')
		if end < 3 {
			return false
		}
		for _, c := range v[1:end] {
			if !IsHex(c) && c != ':' && c != '.' {
				return false
			}
		}
		if rest := v[end+1:]; len(rest) > 0 {
			if rest[0] != ':' {
				return false
			}
			port = rest[1:]
		}
		return validPort(port)
	}
	if colon := bytes.IndexByte(v, ':'); colon >= 0 {
		host, port = v[:colon], v[colon+1:]
	}
	if len(host) == 0 {
		return false
	}
	for _, c := range host {
		if !IsHostByte(c) {
			return false
		}
	}
	return validPort(port)
}

func validPort(p []byte) bool {
	n := 0
	for _, c := range p {
		if c < '0' || c > '9' || len(p) > 5 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n < 1<<16
}
