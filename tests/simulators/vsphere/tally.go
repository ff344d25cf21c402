package main

import (
	"sync"
	"time"
)

// Tally remembers what happened, for tests to ask.
type Tally struct {
	mu       sync.Mutex
	calls    map[string]int
	log      []Call
	transfer map[string]*Transfer
	problems []string
}

// Call is one call of the API.
type Call struct {
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	Object string    `json:"object"`
	User   string    `json:"user,omitempty"`
	Rule   string    `json:"rule,omitempty"` // what a rule did to it
}

// Transfer is what came for one disk through NFC.
type Transfer struct {
	Attempts int   `json:"attempts"`
	Whole    int   `json:"whole"`    // attempts that ended well
	Received int64 `json:"received"` // bytes of streams, broken ones too
	Written  int64 `json:"written"`  // bytes of the disk that the last whole stream filled
	Length   int64 `json:"length"`   // of the last stream, as announced; -1: not announced
}

func newTally() *Tally {
	return &Tally{calls: map[string]int{}, transfer: map[string]*Transfer{}}
}

func (t *Tally) call(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[name]++
}

func (t *Tally) record(call Call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[call.Method]++
	t.log = append(t.log, call)
}

func (t *Tally) problem(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.problems = append(t.problems, text)
}

func (t *Tally) of(disk string) *Transfer {
	if t.transfer[disk] == nil {
		t.transfer[disk] = &Transfer{}
	}
	return t.transfer[disk]
}

func (t *Tally) uploadBegan(disk string, length int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	transfer := t.of(disk)
	transfer.Attempts++
	transfer.Length = length
}

func (t *Tally) uploaded(disk string, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(disk).Received += bytes
}

func (t *Tally) uploadDone(disk string, written int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(disk).Whole++
	t.of(disk).Written = written
}

// reset forgets the calls and transfers so far.
func (t *Tally) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls, t.log, t.transfer = map[string]int{}, nil, map[string]*Transfer{}
}
