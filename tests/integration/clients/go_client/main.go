// One GET through an HTTPS proxy with a client certificate, by Go's standard library.
//
// client PROXY_URL TARGET_URL PROXY_CA_FILE TARGET_CA_FILE CERTIFICATE KEY; the placeholder is in API_KEY.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func main() {
	proxy := must(url.Parse(os.Args[1]))
	roots := x509.NewCertPool()
	for _, name := range os.Args[3:5] {
		roots.AppendCertsFromPEM(must(os.ReadFile(name)))
	}
	pair := must(tls.LoadX509KeyPair(os.Args[5], os.Args[6]))
	client := http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			Proxy:           http.ProxyURL(proxy),
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		},
	}
	request := must(http.NewRequest("GET", os.Args[2], nil))
	request.Header.Set("Authorization", "Bearer "+os.Getenv("API_KEY"))
	answer := must(client.Do(request))
	body := must(io.ReadAll(answer.Body))
	fmt.Println(answer.Status, answer.Header, string(body))
	if answer.StatusCode != 200 {
		os.Exit(1)
	}
}
