// Package config turns the configuration file into servers: YAML into a tree
// that is checked and holds every value in effect ([Parse]), and the tree into
// [cirque.Server]s that share one [cirque.Transport] ([Config.Build]).
//
// One table of keys (keys.go) says what may stand in the file. The reader, the
// dump, the JSON Schema and docs/config.md are all made from it. The package
// opens no socket and no file but the configuration itself.
package config
