package listen

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cirqueproxy/cirque/internal/testcert"
)

func name(cert *tls.Certificate) string {
	if cert == nil {
		return ""
	}
	return cert.Leaf.Subject.CommonName
}

func mustCerts(t testing.TB, certs ...*testcert.Cert) *Certificates {
	t.Helper()
	var list []*tls.Certificate
	for _, c := range certs {
		list = append(list, c.TLS())
	}
	cs, err := NewCertificates(list...)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// TestLookup: exact, then a wildcard for one label (RFC 9525, section 6.3), then
// the first.
func TestLookup(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	cs := mustCerts(t,
		ca.Issue(testcert.Options{Name: "first", Names: []string{"first.test"}}),
		ca.Issue(testcert.Options{Name: "wild", Names: []string{"*.Example.test", "example.test"}}),
		ca.Issue(testcert.Options{Name: "exact", Names: []string{"a.example.test"}}),
		ca.Issue(testcert.Options{Name: "old.test"}),
	)
	tl := &TLS{Certificates: cs}
	for sni, want := range map[string]string{
		"first.test": "first", "FIRST.Test": "first", "example.test": "wild", "b.example.test": "wild", "a.example.test": "exact",
		"x.a.example.test": "first", "": "first", "unknown": "first", "old.test": "old.test", "test": "first", ".example.test": "wild",
	} {
		got, err := tl.certificate(&tls.ClientHelloInfo{ServerName: sni})
		if err != nil || name(got) != want {
			t.Errorf("%q got %q, %v, want %q", sni, name(got), err, want)
		}
	}
	tl.RefuseUnknownNames = true
	for sni, want := range map[string]string{"first.test": "first", "b.example.test": "wild", "unknown": "", "": ""} {
		if got, err := tl.certificate(&tls.ClientHelloInfo{ServerName: sni}); err != nil || name(got) != want {
			t.Errorf("strict: %q got %q, %v, want %q", sni, name(got), err, want)
		}
	}
	tl.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName == "first.test" {
			return nil, nil
		}
		return cs.All()[2], nil
	}
	for sni, want := range map[string]string{"first.test": "first", "unknown": "exact"} {
		if got, _ := tl.certificate(&tls.ClientHelloInfo{ServerName: sni}); name(got) != want {
			t.Errorf("callback: %q got %q, want %q", sni, name(got), want)
		}
	}
}

// TestChoiceByKey: a client gets the first certificate whose key it
// understands, also of those for no name.
func TestChoiceByKey(t *testing.T) {
	ca := testcert.NewCA(t, "CA")
	cs := mustCerts(t,
		ca.Issue(testcert.Options{Name: "ecdsa", Names: []string{"a.test"}}),
		ca.Issue(testcert.Options{Name: "rsa", Names: []string{"a.test"}, RSA: true}),
	)
	tl := &TLS{Certificates: cs}
	for _, sni := range []string{"a.test", ""} {
		for want, schemes := range map[string][]tls.SignatureScheme{
			"ecdsa": {tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256},
			"rsa":   {tls.PSSWithSHA256},
		} {
			hello := &tls.ClientHelloInfo{ServerName: sni, SignatureSchemes: schemes, SupportedVersions: []uint16{tls.VersionTLS13},
				SupportedCurves: []tls.CurveID{tls.X25519}, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256}}
			if got, _ := tl.certificate(hello); name(got) != want {
				t.Errorf("%q: got %q, want %q", sni, name(got), want)
			}
		}
	}
}

// TestReload: row V11: a bad file keeps what there was, the others are taken.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	ca := testcert.NewCA(t, "CA")
	write := func(file, cn string) KeyPair {
		cert, key := ca.Issue(testcert.Options{Name: cn, Names: []string{file + ".test"}}).Write(dir, file)
		return KeyPair{cert, key}
	}
	a, b := write("a", "a1"), write("b", "b1")
	cs, err := LoadCertificates(a, b)
	if err != nil {
		t.Fatal(err)
	}
	want := func(when string, names ...string) {
		t.Helper()
		for i, c := range cs.All() {
			if name(c) != names[i] {
				t.Errorf("%s: certificate %d is %s, want %s", when, i, name(c), names[i])
			}
		}
	}
	reload := func(when string, wantChanged bool, wantBad ...string) {
		t.Helper()
		changed, err := cs.Reload()
		var wrong PairErrors
		_ = errors.As(err, &wrong)
		if changed != wantChanged || len(wrong) != len(wantBad) {
			t.Fatalf("%s: changed %v, %v", when, changed, err)
		}
		for i, e := range wrong {
			if e.File != wantBad[i] {
				t.Errorf("%s: %s is bad, want %s", when, e.File, wantBad[i])
			}
		}
	}
	reload("nothing", false)
	first := cs.All()[0]
	write("b", "b2")
	reload("a new one", true)
	want("a new one", "a1", "b2")
	if cs.All()[0] != first {
		t.Error("what did not change was read again")
	}
	os.WriteFile(a.Cert, []byte("nonsense"), 0o600)
	write("b", "b3")
	reload("a bad one", true, a.Cert)
	want("a bad one", "a1", "b3")
	write("a", "a2")
	os.WriteFile(a.Key, ca.KeyPEM(), 0o600)
	reload("another's key", false, a.Key)
	want("another's key", "a1", "b3")
	os.Remove(a.Cert)
	reload("none", false, a.Cert)
	write("a", "a3")
	reload("good again", true)
	want("good again", "a3", "b3")
	if n := len(cs.Files()); n != 4 {
		t.Errorf("%d files", n)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	ca := testcert.NewCA(t, "CA")
	cert, key := ca.Server("a.test").Write(dir, "a")
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		os.WriteFile(path, []byte(text), 0o600)
		return path
	}
	empty := file("empty.pem", "")
	cut := file("cut.pem", string(ca.CertPEM()[:100]))
	der := file("der.pem", string(ca.X509.Raw))
	for _, c := range []struct {
		pair       KeyPair
		file, text string
	}{
		{KeyPair{filepath.Join(dir, "none.pem"), key}, "none.pem", "no such file or directory"},
		{KeyPair{cert, filepath.Join(dir, "none.key")}, "none.key", "no such file or directory"},
		{KeyPair{dir, key}, filepath.Base(dir), "it is no regular file"},
		{KeyPair{"/dev/zero", key}, "zero", "it is no regular file"},
		{KeyPair{empty, key}, "empty.pem", "there is no certificate in it: want PEM, -----BEGIN CERTIFICATE-----"},
		{KeyPair{cut, key}, "cut.pem", "the PEM text is damaged"},
		{KeyPair{der, key}, "der.pem", "there is no certificate in it: want PEM, -----BEGIN CERTIFICATE-----"},
		{KeyPair{key, cert}, "a.key", "there is no certificate in it: want PEM, -----BEGIN CERTIFICATE-----"},
		{KeyPair{cert, cert}, "a.pem", "found a certificate rather than a key in the PEM for the private key"},
		{KeyPair{cert, empty}, "empty.pem", "failed to find any PEM data in key input"},
	} {
		_, err := LoadCertificates(KeyPair{cert, key}, c.pair)
		var wrong PairErrors
		if !errors.As(err, &wrong) || len(wrong) != 1 || wrong[0].Index != 1 || filepath.Base(wrong[0].File) != c.file || wrong[0].Err.Error() != c.text {
			t.Errorf("%v: %v", c.pair, err)
		}
	}
}

// BenchmarkLookup: the cost of a lookup does not depend on how many there are.
func BenchmarkLookup(b *testing.B) {
	cert := testcert.NewCA(b, "CA").Server("a.test")
	for _, n := range []int{1, 100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			list := make([]*tls.Certificate, n)
			for i := range list {
				leaf := *cert.X509
				leaf.DNSNames = []string{fmt.Sprintf("host%d.example.test", i), fmt.Sprintf("*.w%d.example.test", i)}
				list[i] = &tls.Certificate{Certificate: cert.TLS().Certificate, PrivateKey: cert.Key, Leaf: &leaf}
			}
			cs, err := NewCertificates(list...)
			if err != nil {
				b.Fatal(err)
			}
			tl := &TLS{Certificates: cs}
			hellos := make([]*tls.ClientHelloInfo, 2*n)
			for i := range n {
				hellos[2*i] = &tls.ClientHelloInfo{ServerName: fmt.Sprintf("host%d.example.test", i*7919%n)}
				hellos[2*i+1] = &tls.ClientHelloInfo{ServerName: fmt.Sprintf("x.w%d.example.test", i*7919%n)}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if c, _ := tl.certificate(hellos[i%len(hellos)]); c == nil {
					b.Fatal("none")
				}
				i++
			}
		})
	}
}
