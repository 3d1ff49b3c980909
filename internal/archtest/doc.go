// Package archtest keeps the house rules as tests: which package may import
// which, how large things may grow, what the root exports, which section of an
// RFC is proved by which test, and what the documents promise. It reads source
// files only, so it needs neither the network nor a build.
package archtest
