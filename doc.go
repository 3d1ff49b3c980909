// Package cirque is a programmable HTTP proxy: a framework to build gateways,
// CDN edges and API proxies with, and the engine of the cirque server.
//
// A [Server] accepts connections. Each request becomes a [Session], gets a
// [Proxy] (from Server.Route, or Server.Proxy), passes the hooks of the Proxy's
// [Filter] list, is sent to the [Peer] that the Proxy chooses over a connection
// of the shared [Transport], and its response comes back through the hooks in
// reverse order.
//
// The life of a request, hook by hook:
//
//	head read and validated
//	  Request               each filter, in list order: respond, reject, rewrite
//	  Forward               an upstream is certainly needed
//	  once per attempt:
//	    Proxy.Peer          choose the peer
//	    Connected           a connection was made or reused
//	    UpstreamRequest     edit what the origin gets
//	    RequestBody         each piece of the body (once per request)
//	    Failed              only if the attempt failed: the ladder or the hook decides
//	  Interim               each 1xx, in reverse order from here on
//	  UpstreamResponse      the final head as it came
//	  Response              the head about to go to the client, once, whoever made it
//	  UpstreamResponseBody, ResponseBody, ResponseTrailer
//	  Done                  always, exactly once, last, in list order
//
// A hook ends a request by responding ([Session.Respond]) or by returning an
// error. No two hooks of one session run at the same time. A panic in a hook
// ends that session alone.
package cirque
