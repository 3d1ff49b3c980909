//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// ready waits until requests through the proxy, by a client that shares nothing
// with the load generator, get the origin's answers.
func (p *process) ready(s *setup) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	client := &http.Client{Transport: clientTransport(s)}
	for {
		err := sample(ctx, client, s)
		if err == nil {
			return nil
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "remote error" {
			return fmt.Errorf("does not proxy: %w", err) // a TLS alert: no agreement
		}
		select {
		case <-p.done:
			return fmt.Errorf("ended at once: %v", p.err)
		case <-ctx.Done():
			return fmt.Errorf("does not proxy: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// clientTransport is net/http's client for what s speaks. It makes a connection
// for each request.
func clientTransport(s *setup) *http.Transport {
	t := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols)}
	switch {
	case s.TLS:
		t.TLSClientConfig = s.tls.config()
		t.Protocols.SetHTTP2(s.H2)
		t.Protocols.SetHTTP1(!s.H2)
		if s.H2 {
			t.DisableKeepAlives = false // HTTP/2 clients have no such thing
			t.IdleConnTimeout = time.Millisecond
		}
	case s.H2:
		t.DisableKeepAlives = false
		t.IdleConnTimeout = time.Millisecond
		t.Protocols.SetUnencryptedHTTP2(true)
	default:
		t.Protocols.SetHTTP1(true)
	}
	return t
}

// sample makes one request and looks at all of its answer.
func sample(ctx context.Context, client *http.Client, s *setup) error {
	if s.GRPC {
		return sampleCall(ctx, client, s)
	}
	scheme := "http://"
	if s.TLS {
		scheme = "https://"
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, scheme+s.Listen+"/1k", nil)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK || len(body) != kib || !checkBody(0, 0, body):
		return fmt.Errorf("status %d, %d bytes", resp.StatusCode, len(body))
	case (resp.ProtoMajor == 2) != s.H2:
		return fmt.Errorf("protocol %s", resp.Proto)
	case s.TLS:
		return s.tls.agreed(resp.TLS)
	}
	return nil
}

// sampleCall makes one call of gRPC, with two messages.
func sampleCall(ctx context.Context, client *http.Client, s *setup) error {
	const id, size = 1, 1000
	var call []byte
	for range 2 {
		call = appendBody(appendMessageHead(call, size), id, 0, size)
	}
	scheme := "http://"
	if s.TLS {
		scheme = "https://"
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, scheme+s.Listen+grpcPath, bytes.NewReader(call))
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.ContentLength = -1
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	status := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
	if resp.StatusCode != http.StatusOK || status != "0" || !bytes.Equal(body, call) {
		return fmt.Errorf("status %d, grpc-status %q, %d bytes of %d", resp.StatusCode, status, len(body), len(call))
	}
	return nil
}
