package downstream

import (
	"crypto/tls"
	"errors"
	"os"
	"strings"

	"github.com/cirqueproxy/cirque/reason"
)

// HandshakeReason returns why a TLS handshake with a client failed.
func HandshakeReason(err error) reason.Reason {
	var known *reason.Error
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &known):
		return known.Reason
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reason.TLSHandshakeTimeout
	case errors.As(err, &cert), strings.Contains(err.Error(), "didn't provide a certificate"):
		return reason.TLSClientCertificate
	case strings.Contains(err.Error(), "unsupported application protocols"):
		return reason.TLSProtocol
	}
	return reason.TLSHandshake
}

// LooksLikeHTTP reports whether what came in place of a TLS record is the
// beginning of a request.
func LooksLikeHTTP(b [5]byte) bool {
	switch string(b[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH", "CONNE", "PRI *":
		return true
	}
	return false
}
