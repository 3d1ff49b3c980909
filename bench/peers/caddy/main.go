// Command caddy is Caddy with its standard modules, as its own build makes it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // what a released Caddy has
)

func main() { caddycmd.Main() }
