// Command fasthttp is a reverse proxy on fasthttp, in the form that its own
// documentation has: bodies are held in memory as a whole.
package main

import (
	"flag"
	"log"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/cirqueproxy/cirque/bench/peers/internal/linelog"
)

func main() {
	listen := flag.String("listen", "", "address to listen on")
	origin := flag.String("to", "", "address of the origin")
	access := flag.String("log", "", "file of the access log; empty: none")
	flag.Parse()

	client := &fasthttp.HostClient{
		Addr:                          *origin,
		MaxConns:                      1 << 20,          // the default of 512 answers the rest with an error
		MaxIdleConnDuration:           60 * time.Second, // as long as nginx does
		ReadTimeout:                   60 * time.Second,
		WriteTimeout:                  60 * time.Second,
		NoDefaultUserAgentHeader:      true, // a proxy adds none
		DisableHeaderNamesNormalizing: true, // names pass as they are, and cost less
		DisablePathNormalizing:        true, // so do paths
	}
	handler := proxy(client)
	if *access != "" {
		l, err := linelog.Open(*access)
		if err != nil {
			log.Fatal(err)
		}
		handler = logged(handler, l)
	}
	srv := &fasthttp.Server{
		Handler:                       handler,
		IdleTimeout:                   120 * time.Second, // idle clients stay for the whole measurement
		ReadTimeout:                   60 * time.Second,  // limits on, as a public proxy has them
		WriteTimeout:                  60 * time.Second,
		Concurrency:                   1 << 20, // the default of 256 Ki is the same here
		NoDefaultServerHeader:         true,    // the origin's passes
		NoDefaultDate:                 true,    // so does its Date
		DisableHeaderNamesNormalizing: true,
	}
	log.Fatal(srv.ListenAndServe(*listen))
}

func proxy(client *fasthttp.HostClient) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		closes := ctx.Request.ConnectionClose()
		ctx.Request.Header.Del(fasthttp.HeaderConnection)
		if err := client.Do(&ctx.Request, &ctx.Response); err != nil {
			ctx.Error("bad gateway", fasthttp.StatusBadGateway)
		}
		ctx.Response.Header.Del(fasthttp.HeaderConnection)
		if closes {
			ctx.SetConnectionClose()
		}
	}
}

func logged(next fasthttp.RequestHandler, l *linelog.Log) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		method, uri := string(ctx.Method()), string(ctx.RequestURI())
		next(ctx)
		l.Write(ctx.RemoteAddr().String(), method, uri, ctx.Response.StatusCode(), int64(len(ctx.Response.Body())), time.Since(start))
	}
}
