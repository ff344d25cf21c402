package main

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
)

// UploadHost is the ESXi host that a vCenter sends uploads to: another address with another certificate. It can be taken
// off the network while the vCenter answers.
type UploadHost struct {
	world       *World
	address     string
	certificate *Certificate
	rate        *Rate

	mu     sync.Mutex
	server *http.Server // nil while it is off
}

func newUploadHost(w *World) (*UploadHost, error) {
	h := &UploadHost{world: w, address: w.settings.HostListen, rate: &Rate{bytes: w.settings.UploadRate}}
	var err error
	if h.certificate, err = newCertificate("stand-in ESXi host", h.address); err != nil {
		return nil, err
	}
	return h, h.reach(true)
}

// reach switches the host on or off. Off: its port refuses, and transfers break.
func (h *UploadHost) reach(on bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if on == (h.server != nil) {
		return nil
	}
	if !on {
		err := h.server.Close()
		h.server = nil
		return err
	}
	listener, err := net.Listen("tcp", h.address)
	if err != nil {
		return err
	}
	h.address = listener.Addr().String()
	mux := http.NewServeMux()
	h.serve(mux)
	h.server = &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	server := h.server
	go func() {
		_ = server.Serve(tls.NewListener(listener, &tls.Config{
			Certificates: []tls.Certificate{h.certificate.TLS}, NextProtos: []string{"http/1.1"},
		}))
	}()
	return nil
}

// url is where a lease's file goes, with the thumbprint of the host's certificate. A single ESXi host says "*": the
// client puts in the name that it connected to.
func (h *UploadHost) url(ticket, target string) (string, string) {
	if h.world.settings.ESX {
		return "https://*/nfc/" + ticket + "/" + target, ""
	}
	return "https://" + h.address + "/nfc/" + ticket + "/" + target, h.certificate.SHA1
}

func (h *UploadHost) serve(mux *http.ServeMux) {
	mux.HandleFunc("/nfc/{ticket}/{file}", h.world.serveNFC)
}
