// A stand-in for a vCenter or a single ESXi host: govmomi's simulator, made to keep disk bytes and to refuse what the
// real ones refuse. README.md says how to start it by hand and what its control address understands.
//
// Comments say of each behaviour which real one it imitates, and "unverified" where that is our reading of the
// documentation and of other people's reports: nobody ran this beside a real vCenter.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	log.SetFlags(log.Lmicroseconds)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	settings, err := parseSettings(os.Args[1:])
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("qemu-img"); err != nil && !settings.Stock {
		return errors.New("qemu-img is missing, which reads uploads and makes snapshots: apt-get install qemu-utils")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil && settings.QEMU {
		return errors.New("QEMU is missing, which machines run in: apt-get install qemu-system-x86")
	}
	// The simulator puts its datastores into the folder for temporary files.
	if err := os.MkdirAll(settings.Home, 0o700); err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", settings.Home); err != nil {
		return err
	}
	var ready any
	var stop func()
	if settings.Stock {
		ready, stop, err = startStock(settings)
	} else {
		ready, stop, err = startWorld(settings)
	}
	if err != nil {
		return err
	}
	defer stop()
	// One line that says where we are; whoever started us reads it.
	line, err := json.Marshal(ready)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return waitForEnd()
}

// waitForEnd returns when our standard input is closed (whoever started us is gone) or a signal says so.
func waitForEnd() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	closed := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		closed <- err
	}()
	select {
	case <-signals:
		return nil
	case err := <-closed:
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	}
}
