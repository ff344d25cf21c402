package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/vmware/govmomi/simulator"
)

// Guests are the QEMU processes of the machines that are on.
type Guests struct {
	mu   sync.Mutex
	list map[string]*Running
}

// Running is one QEMU.
type Running struct {
	command *exec.Cmd
	monitor *Monitor
	ended   chan struct{}
}

func newGuests() *Guests { return &Guests{list: map[string]*Running{}} }

func (g *Guests) get(id string) *Running {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.list[id]
}

// kill cuts the power and waits for the end, so that nothing writes to the disks afterwards.
func (g *Guests) kill(id string) {
	g.mu.Lock()
	running := g.list[id]
	delete(g.list, id)
	g.mu.Unlock()
	if running != nil {
		_ = running.command.Process.Kill()
		<-running.ended
	}
}

func (g *Guests) killAll() {
	g.mu.Lock()
	ids := make([]string, 0, len(g.list))
	for id := range g.list {
		ids = append(ids, id)
	}
	g.mu.Unlock()
	for _, id := range ids {
		g.kill(id)
	}
}

// gone takes a QEMU that ended by itself out of the list and says whether it was there.
func (g *Guests) gone(id string, running *Running) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.list[id] != running {
		return false
	}
	delete(g.list, id)
	return true
}

// written is how many bytes the guest wrote to each of a machine's disks since power-on, by device.
func (g *Guests) written(id string) map[string]int64 {
	running := g.get(id)
	if running == nil {
		return nil
	}
	var stats []struct {
		Device string `json:"qdev"`
		Stats  struct {
			Written int64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := running.monitor.do("query-blockstats", nil, &stats); err != nil {
		return nil
	}
	bytes := map[string]int64{}
	for _, device := range stats {
		bytes[path.Base(device.Device)] = device.Stats.Written
	}
	return bytes
}

// boot starts QEMU on a machine's disks.
func (w *World) boot(vm *simulator.VirtualMachine) *Failure {
	arguments, err := w.qemuArguments(vm)
	if err != nil {
		return systemError("%v", err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return systemError("%v", err)
	}
	defer theirs.Close()
	command := exec.Command("qemu-system-x86_64", arguments...)
	command.ExtraFiles = []*os.File{theirs} // becomes number 3
	// However we end, QEMU ends with us.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errors strings.Builder
	command.Stderr = &errors
	if err := command.Start(); err != nil {
		ours.Close()
		return systemError("%v", err)
	}
	theirs.Close()
	running := &Running{command: command, ended: make(chan struct{})}
	go func() {
		_ = command.Wait()
		close(running.ended)
	}()
	if running.monitor, err = newMonitor(ours); err != nil {
		_ = command.Process.Kill()
		<-running.ended
		return vmConfigFault("msg.vmx.poweron", "QEMU did not start: %s", strings.TrimSpace(errors.String()))
	}
	w.guests.mu.Lock()
	w.guests.list[vm.Self.Value] = running
	w.guests.mu.Unlock()
	go func() {
		<-running.ended
		ours.Close()
		if said := strings.TrimSpace(errors.String()); said != "" {
			log.Printf("QEMU of %s: %s", vm.Name, said)
		}
		if w.guests.gone(vm.Self.Value, running) {
			w.wentOff(vm)
		}
	}()
	return nil
}

// socketPair is a monitor's connection without a name in the file system, whose paths may not be longer than 107 bytes.
func socketPair() (net.Conn, *os.File, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("no socket for the monitor: %w", err)
	}
	file := os.NewFile(uintptr(pair[0]), "monitor")
	defer file.Close()
	connection, err := net.FileConn(file)
	return connection, os.NewFile(uintptr(pair[1]), "monitor"), err
}
