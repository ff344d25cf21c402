package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Action is what a rule does.
type Action = string

const (
	actionFault  Action = "fault"      // the call is refused with a fault and has no effect
	actionTask   Action = "task-fault" // the call is taken, its task fails and has no effect
	actionDelay  Action = "delay"      // it waits; an upload does so after `at` bytes
	actionLose   Action = "lose"       // it takes effect, then the connection is cut instead of an answer
	actionCut    Action = "cut"        // the connection is cut without effect; an upload's after `at` bytes
	actionStatus Action = "status"     // an HTTP status (401, 403, 503) and no effect
)

// Rule disturbs some calls. Method is the name of a call in the API ("CreateVM_Task"), or "nfc" (an upload), "folder"
// (a file of a datastore) or "lease" (a report of progress, from `at` percent on: the lease fails).
type Rule struct {
	Method       string `json:"method"`
	Object       string `json:"object"` // id or name; empty: any
	Action       Action `json:"action"`
	Skip         int    `json:"skip"`  // so many matching calls pass before
	Times        int    `json:"times"` // so many are disturbed; 0: one; negative: all
	Fault        string `json:"fault"`
	Text         string `json:"text"`
	Milliseconds int    `json:"milliseconds"`
	Status       int    `json:"status"`
	At           int64  `json:"at"`
	Fired        int    `json:"fired"`
	seen         int
}

func (r *Rule) check() error {
	switch r.Action {
	case actionFault, actionTask:
		_, err := namedFault(r.Fault, r.Text, serviceInstance)
		return err
	case actionDelay, actionLose, actionCut:
		return nil
	case actionStatus:
		if r.Status < 300 || r.Status > 599 {
			return fmt.Errorf("%d is no status of a failure", r.Status)
		}
		return nil
	}
	return fmt.Errorf("there is no action %q", r.Action)
}

// Rules are asked before every call, the oldest first.
type Rules struct {
	mu   sync.Mutex
	list []*Rule
}

func newRules() *Rules { return &Rules{} }

func (r *Rules) add(rule *Rule) error {
	if err := rule.check(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, rule)
	return nil
}

func (r *Rules) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = nil
}

// copies are the rules with how often each fired.
func (r *Rules) copies() []Rule {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Rule, 0, len(r.list))
	for _, rule := range r.list {
		list = append(list, *rule)
	}
	return list
}

// find returns the first rule that holds for a call and passes `fits`, and counts it.
func (r *Rules) find(method, id, name string, fits func(*Rule) bool) *Rule {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rule := range r.list {
		if rule.Method != method && rule.Method != "*" || rule.Object != "" && rule.Object != id && rule.Object != name {
			continue
		}
		if !fits(rule) || rule.Times >= 0 && rule.Fired >= max(1, rule.Times) {
			continue
		}
		if rule.seen++; rule.seen <= rule.Skip {
			continue
		}
		rule.Fired++
		return rule
	}
	return nil
}

// match is for calls of the API.
func (r *Rules) match(method string, object types.ManagedObjectReference, name string) *Rule {
	return r.find(method, object.Value, name, func(rule *Rule) bool { return rule.Action != actionTask })
}

func (r *Rules) failTask(_ *simulator.Context, entity mo.Reference, method string) *Failure {
	name := ""
	if named, ok := entity.(mo.Entity); ok {
		name = named.Entity().Name
	}
	rule := r.find(method, entity.Reference().Value, name, func(rule *Rule) bool { return rule.Action == actionTask })
	if rule == nil {
		return nil
	}
	failure, _ := namedFault(rule.Fault, rule.Text, entity.Reference())
	return failure
}

func (r *Rules) failLease(l *Lease, percent int32) *Failure {
	rule := r.find("lease", l.Self.Value, "", func(rule *Rule) bool { return int64(percent) >= rule.At })
	if rule == nil {
		return nil
	}
	failure, _ := namedFault(rule.Fault, rule.Text, l.Self)
	return failure
}

// errCut is what a body that a rule cuts off reads as: the connection is gone.
var errCut = errors.New("a rule cut the connection")

// disturbUpload returns the body as it arrives under the rules, and what to do with the answer. `done`: there is one.
func (r *Rules) disturbUpload(answer http.ResponseWriter, request *http.Request) (body io.Reader, lose, done bool) {
	rule := r.find("nfc", request.PathValue("file"), "", func(*Rule) bool { return true })
	if rule == nil {
		return request.Body, false, false
	}
	switch rule.Action {
	case actionStatus:
		turnAway(answer, request, rule.Status, http.StatusText(rule.Status))
		return nil, false, true
	case actionLose:
		return request.Body, true, false
	}
	return &disturbed{source: request.Body, rule: rule, left: rule.At, answer: answer}, false, false
}

// disturbed is a body with a cut or a pause in it.
type disturbed struct {
	source io.Reader
	rule   *Rule
	left   int64
	struck bool
	answer http.ResponseWriter
}

func (d *disturbed) Read(into []byte) (int, error) {
	if d.left == 0 && !d.struck {
		d.struck = true
		if d.rule.Action == actionCut {
			hangUp(d.answer)
			return 0, errCut
		}
		time.Sleep(time.Duration(d.rule.Milliseconds) * time.Millisecond)
	}
	if !d.struck && int64(len(into)) > d.left {
		into = into[:d.left]
	}
	n, err := d.source.Read(into)
	d.left -= int64(n)
	return n, err
}
