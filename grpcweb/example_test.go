package grpcweb_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/cirqueproxy/cirque"
	"github.com/cirqueproxy/cirque/grpcweb"
)

// A browser's call to a service that speaks gRPC.
func ExampleNew() {
	service := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = io.Copy(w, r.Body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}))
	service.Config.Protocols = new(http.Protocols)
	service.Config.Protocols.SetUnencryptedHTTP2(true)
	service.Start()
	defer service.Close()

	peer := &cirque.Peer{Addr: service.Listener.Addr().String(), Protocol: cirque.ProtocolH2C}
	proxy := &cirque.Proxy{
		Filters: []cirque.Filter{grpcweb.New()},
		Peer:    func(*cirque.Session) (*cirque.Peer, error) { return peer, nil },
	}
	front := httptest.NewServer(proxy) // or a cirque.Server
	defer front.Close()

	resp, err := http.Post(front.URL+"/echo.Echo/Say", "application/grpc-web+proto", strings.NewReader("\x00\x00\x00\x00\x02hi"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.Header.Get("Content-Type"))
	fmt.Printf("%q\n", body)
	// Output:
	// application/grpc-web+proto
	// "\x00\x00\x00\x00\x02hi\x80\x00\x00\x00\x10grpc-status: 0\r\n"
}
