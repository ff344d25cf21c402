package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Forward makes a port of a running guest reachable from here: on a free port of the loopback unless told which.
type Forward struct {
	Guest   int    `json:"guest"`
	Address string `json:"address"` // default 127.0.0.1; another one of 127.0.0.0/8 can play the guest's own
	Port    int    `json:"port"`
}

// forward returns the address and port that lead to the guest's first network card.
func (w *World) forward(name string, wish *Forward) (string, error) {
	vm := w.byName(name)
	if vm == nil || w.guests.get(vm.Self.Value) == nil {
		return "", &refusal{http.StatusNotFound, "no QEMU runs for such a machine"}
	}
	if wish.Address == "" {
		wish.Address = "127.0.0.1"
	}
	if wish.Port == 0 {
		listener, err := net.Listen("tcp", wish.Address+":0")
		if err != nil {
			return "", err
		}
		wish.Port = portOf(listener.Addr().String())
		listener.Close()
	}
	var said string
	command := fmt.Sprintf("hostfwd_add net0 tcp:%s:%d-:%d", wish.Address, wish.Port, wish.Guest)
	err := w.guests.get(vm.Self.Value).monitor.do("human-monitor-command", map[string]any{"command-line": command}, &said)
	if err == nil && strings.TrimSpace(said) != "" {
		err = &refusal{http.StatusConflict, strings.TrimSpace(said)}
	}
	return fmt.Sprintf("%s:%d", wish.Address, wish.Port), err
}
