// Command reverseproxy is Go's httputil.ReverseProxy as one would run it in
// front of one busy origin.
package main

import (
	"crypto/tls"
	"flag"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/cirqueproxy/cirque/bench/peers/internal/linelog"
)

func main() {
	listen := flag.String("listen", "", "address to listen on")
	origin := flag.String("to", "", "address of the origin")
	access := flag.String("log", "", "file of the access log; empty: none")
	cert := flag.String("cert", "", "file of the certificate; empty: no TLS")
	key := flag.String("key", "", "file of its key")
	h2 := flag.Bool("h2", false, "serve HTTP/2, over TLS or without")
	h2Origin := flag.Bool("h2-origin", false, "the origin speaks HTTP/2 without TLS")
	flag.Parse()

	proxy := newProxy(*origin, *h2Origin)
	if *access != "" {
		l, err := linelog.Open(*access)
		if err != nil {
			log.Fatal(err)
		}
		proxy = logged(proxy, l)
	}
	srv := &http.Server{
		Addr:              *listen,
		Handler:           proxy,
		ReadHeaderTimeout: 30 * time.Second,  // limits on, as a public proxy has them
		IdleTimeout:       120 * time.Second, // idle clients stay for the whole measurement
	}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(*h2)
	srv.Protocols.SetUnencryptedHTTP2(*h2)
	if *cert != "" {
		srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13} // as all others in these rounds
		log.Fatal(srv.ListenAndServeTLS(*cert, *key))
	}
	log.Fatal(srv.ListenAndServe())
}

func newProxy(origin string, h2 bool) http.Handler {
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2)
	to := &url.URL{Scheme: "http", Host: origin}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // what the other proxies pass on
		},
		BufferPool: &buffers{},
		Transport: &http.Transport{
			Protocols:           &protocols,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConns:        0,                // no limit for all hosts
			MaxIdleConnsPerHost: 1024,             // the default keeps 2
			IdleConnTimeout:     60 * time.Second, // as long as nginx does
			DisableCompression:  true,             // the default asks for gzip and unpacks it
		},
	}
}

// buffers spares a new 32 KiB for each response.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// counter sees the status and the length.
type counter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes += int64(n)
	return n, err
}

// Unwrap lets the proxy flush.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func logged(next http.Handler, l *linelog.Log) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		c := &counter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(c, r)
		l.Write(r.RemoteAddr, r.Method, r.URL.RequestURI(), c.status, c.bytes, time.Since(start))
	})
}
