package main

import (
	"io"
	"sync"
	"time"
)

// Rate holds readers back to so many bytes a second together; 0 does not.
type Rate struct {
	mu    sync.Mutex
	bytes int64
	next  time.Time
}

func (r *Rate) set(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes, r.next = bytes, time.Now()
}

const (
	creditTime = 200 * time.Millisecond // what a reader that came late may make good
	shortest   = 2 * time.Millisecond   // shorter waits are put together: a sleep takes longer than asked for
)

// pay waits until `n` more bytes may have come.
func (r *Rate) pay(n int) {
	r.mu.Lock()
	if r.bytes == 0 {
		r.mu.Unlock()
		return
	}
	now := time.Now()
	if earliest := now.Add(-creditTime); r.next.Before(earliest) {
		r.next = earliest
	}
	r.next = r.next.Add(time.Duration(float64(n) / float64(r.bytes) * float64(time.Second)))
	wait := r.next.Sub(now)
	r.mu.Unlock()
	if wait > shortest {
		time.Sleep(wait)
	}
}

// limited is a reader that pays for what it reads.
type limited struct {
	source io.Reader
	rate   *Rate
}

func (l *limited) Read(into []byte) (int, error) {
	if len(into) > 128<<10 {
		into = into[:128<<10]
	}
	n, err := l.source.Read(into)
	l.rate.pay(n)
	return n, err
}
