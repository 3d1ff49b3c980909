// Package message is the HTTP message without a version: Request, Response and
// their Header. It keeps names, values and their order as they came, copies a
// head once, and knows no connection, no framing and no policy.
package message
