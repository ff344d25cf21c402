package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Monitor speaks QMP with one QEMU (docs/interop/qmp-spec).
type Monitor struct {
	connection net.Conn
	reader     *bufio.Reader
	turn       sync.Mutex // one command at a time
	answers    chan message
	events     *sync.Cond
	seen       []message
	ended      bool
}

type message struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Description string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

const monitorPatience = 30 * time.Second

func newMonitor(connection net.Conn) (*Monitor, error) {
	m := &Monitor{
		connection: connection, reader: bufio.NewReader(connection), answers: make(chan message, 1),
		events: sync.NewCond(&sync.Mutex{}),
	}
	if err := connection.SetReadDeadline(time.Now().Add(monitorPatience)); err != nil {
		return nil, err
	}
	if _, err := m.reader.ReadBytes('\n'); err != nil {
		return nil, fmt.Errorf("QEMU does not greet: %w", err)
	}
	if err := connection.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	go m.listen()
	return m, m.do("qmp_capabilities", nil, nil)
}

func (m *Monitor) listen() {
	decoder := json.NewDecoder(io.Reader(m.reader))
	for {
		var said message
		if err := decoder.Decode(&said); err != nil {
			m.events.L.Lock()
			m.ended = true
			m.events.Broadcast()
			m.events.L.Unlock()
			close(m.answers)
			return
		}
		if said.Event == "" {
			m.answers <- said
			continue
		}
		m.events.L.Lock()
		m.seen = append(m.seen, said)
		m.events.Broadcast()
		m.events.L.Unlock()
	}
}

// do runs a command and puts its answer into `result`, unless that is nil.
func (m *Monitor) do(command string, arguments map[string]any, result any) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(m.connection).Encode(request); err != nil {
		return fmt.Errorf("QEMU is gone: %w", err)
	}
	answer, ok := <-m.answers
	if !ok {
		return fmt.Errorf("QEMU ended during %s", command)
	}
	if answer.Error != nil {
		return fmt.Errorf("QEMU refuses %s: %s", command, answer.Error.Description)
	}
	if result != nil {
		return json.Unmarshal(answer.Return, result)
	}
	return nil
}

// await waits for an event that `fits`; those that came before count too.
func (m *Monitor) await(event string, fits func(map[string]any) bool) error {
	expired := false
	timer := time.AfterFunc(monitorPatience, func() {
		m.events.L.Lock()
		expired = true
		m.events.Broadcast()
		m.events.L.Unlock()
	})
	defer timer.Stop()
	m.events.L.Lock()
	defer m.events.L.Unlock()
	for {
		for i, said := range m.seen {
			var data map[string]any
			if said.Event == event && (len(said.Data) == 0 || json.Unmarshal(said.Data, &data) == nil) && fits(data) {
				m.seen = append(m.seen[:i], m.seen[i+1:]...)
				return nil
			}
		}
		switch {
		case m.ended:
			return fmt.Errorf("QEMU ended before %s", event)
		case expired:
			return fmt.Errorf("no %s within %s", event, monitorPatience)
		}
		m.events.Wait()
	}
}
