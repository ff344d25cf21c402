package main

import (
	"net/http"
	"slices"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// GuestState is what Tools in a guest would tell. A test plays the guest with it. It is kept by the machine's name and
// holds whenever the machine is on, so it can be said before the machine exists.
type GuestState struct {
	Tools     string   `json:"tools"`     // "running" (default), "starting" or "none"
	Heartbeat string   `json:"heartbeat"` // green (default), yellow, red, gray
	Hostname  string   `json:"hostname"`
	Addresses []string `json:"addresses"`
	Family    string   `json:"family"`
	FullName  string   `json:"full_name"`
	Stubborn  bool     `json:"stubborn"` // does not shut down when asked
}

// Question is one that a machine waits with for an answer. With OnPowerOn it comes at the next power-on, which does not
// go on without the answer; else it comes now.
type Question struct {
	ID        string            `json:"id"`
	Text      string            `json:"text"`
	Choices   map[string]string `json:"choices"` // key to label
	Default   int32             `json:"default"`
	OnPowerOn bool              `json:"on_power_on"`
	Refusing  []string          `json:"refusing"` // answers with which the power-on fails
}

// plays is what tests said about guests.
type plays struct {
	mu        sync.Mutex
	guests    map[string]*GuestState
	questions map[string]*Question // that wait for a power-on
	asked     map[string]*Question // that wait for an answer
	answers   map[string]string
}

func newPlays() *plays {
	return &plays{
		guests: map[string]*GuestState{}, questions: map[string]*Question{}, asked: map[string]*Question{},
		answers: map[string]string{},
	}
}

func (w *World) byName(name string) *simulator.VirtualMachine {
	for _, vm := range w.machines() {
		if vm.Name == name {
			return vm
		}
	}
	return nil
}

func (w *World) setGuest(name string, guest *GuestState) error {
	w.plays.mu.Lock()
	w.plays.guests[name] = guest
	w.plays.mu.Unlock()
	if vm := w.byName(name); vm != nil && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		ctx := w.background(nil)
		ctx.WithLock(vm, func() { w.applyGuest(ctx, vm) })
	}
	return nil
}

func (w *World) stubborn(name string) bool {
	w.plays.mu.Lock()
	defer w.plays.mu.Unlock()
	guest := w.plays.guests[name]
	return guest != nil && guest.Stubborn
}

// applyGuest shows what Tools tell. Without a word from the test there are no Tools.
func (w *World) applyGuest(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	w.plays.mu.Lock()
	guest := w.plays.guests[vm.Name]
	w.plays.mu.Unlock()
	if guest == nil {
		return
	}
	running, status := types.VirtualMachineToolsRunningStatusGuestToolsRunning, types.VirtualMachineToolsStatusToolsOk
	state, heartbeat := string(types.VirtualMachineGuestStateRunning), guest.Heartbeat
	version := types.VirtualMachineToolsVersionStatusGuestToolsUnmanaged
	switch guest.Tools {
	case "none":
		running, status = types.VirtualMachineToolsRunningStatusGuestToolsNotRunning,
			types.VirtualMachineToolsStatusToolsNotInstalled
		state, heartbeat = string(types.VirtualMachineGuestStateNotRunning), "gray"
		version = types.VirtualMachineToolsVersionStatusGuestToolsNotInstalled
	case "starting":
		running = types.VirtualMachineToolsRunningStatusGuestToolsExecutingScripts
	}
	if heartbeat == "" {
		heartbeat = "green"
	}
	nets := slices.Clone(vm.Guest.Net)
	var first string
	for i := range nets {
		nets[i].IpAddress, nets[i].Connected = guest.Addresses, true
	}
	if len(guest.Addresses) > 0 {
		first = guest.Addresses[0]
	}
	ctx.Update(vm, []types.PropertyChange{
		{Name: "guest.toolsRunningStatus", Val: string(running)},
		{Name: "guest.toolsStatus", Val: status},
		{Name: "guest.toolsVersionStatus2", Val: string(version)},
		{Name: "guest.guestState", Val: state},
		{Name: "guest.hostName", Val: guest.Hostname},
		{Name: "guest.ipAddress", Val: first},
		{Name: "guest.guestFamily", Val: guest.Family},
		{Name: "guest.guestFullName", Val: guest.FullName},
		{Name: "guest.net", Val: nets},
		{Name: "guestHeartbeatStatus", Val: types.ManagedEntityStatus(heartbeat)},
		{Name: "summary.guest.toolsRunningStatus", Val: string(running)},
		{Name: "summary.guest.toolsStatus", Val: status},
		{Name: "summary.guest.hostName", Val: guest.Hostname},
		{Name: "summary.guest.ipAddress", Val: first},
		{Name: "summary.quickStats.guestHeartbeatStatus", Val: types.ManagedEntityStatus(heartbeat)},
	})
}

// forgetGuest is what remains when a machine is off: Tools say nothing.
func (w *World) forgetGuest(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	ctx.Update(vm, []types.PropertyChange{
		{Name: "guest.toolsRunningStatus", Val: string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning)},
		{Name: "guest.guestState", Val: string(types.VirtualMachineGuestStateNotRunning)},
		{Name: "guest.ipAddress", Val: ""},
		{Name: "guestHeartbeatStatus", Val: types.ManagedEntityStatusGray},
		{Name: "summary.quickStats.guestHeartbeatStatus", Val: types.ManagedEntityStatusGray},
		{Name: "summary.guest.ipAddress", Val: ""},
	})
}

// ask puts a question.
func (w *World) ask(name string, question *Question) error {
	if question.ID == "" || len(question.Choices) == 0 {
		return &refusal{http.StatusBadRequest, "a question needs an id and choices"}
	}
	if question.OnPowerOn {
		w.plays.mu.Lock()
		w.plays.questions[name] = question
		w.plays.mu.Unlock()
		return nil
	}
	vm := w.byName(name)
	if vm == nil {
		return &refusal{http.StatusNotFound, "there is no such machine"}
	}
	ctx := w.background(nil)
	ctx.WithLock(vm, func() { w.show(ctx, vm, question) })
	return nil
}

func (w *World) show(ctx *simulator.Context, vm *simulator.VirtualMachine, question *Question) {
	info := &types.VirtualMachineQuestionInfo{Id: question.ID, Text: question.Text}
	info.Choice.DefaultIndex = question.Default
	keys := make([]string, 0, len(question.Choices))
	for key := range question.Choices {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		info.Choice.ChoiceInfo = append(info.Choice.ChoiceInfo, &types.ElementDescription{
			Description: types.Description{Label: question.Choices[key], Summary: question.Choices[key]}, Key: key,
		})
	}
	w.plays.mu.Lock()
	w.plays.asked[vm.Self.Value] = question
	delete(w.plays.answers, vm.Self.Value)
	w.plays.mu.Unlock()
	ctx.Update(vm, []types.PropertyChange{{Name: "runtime.question", Val: info}, {Name: "summary.runtime.question", Val: info}})
}

// waitForAnswer puts the question that waits for this power-on, and waits, without the machine's lock: the question must
// be seen and answered.
func (m *Machine) waitForAnswer() *Failure {
	w := m.world
	w.plays.mu.Lock()
	question := w.plays.questions[m.Name]
	delete(w.plays.questions, m.Name)
	w.plays.mu.Unlock()
	if question == nil {
		return nil
	}
	ctx := w.background(nil)
	ctx.WithLock(m.VirtualMachine, func() { w.show(ctx, m.VirtualMachine, question) })
	var answer string
	answered := waitUntil(questionPatience, func() bool {
		w.plays.mu.Lock()
		defer w.plays.mu.Unlock()
		answer = w.plays.answers[m.Self.Value]
		return answer != ""
	})
	if !answered || slices.Contains(question.Refusing, answer) {
		return vmConfigFault("msg.question.refused", "The operation was cancelled by the answer to: %s", question.Text)
	}
	return nil
}

// AnswerVM answers a machine's question. Another question's id, or a choice that it does not offer, is refused.
func (m *Machine) AnswerVM(ctx *simulator.Context, request *types.AnswerVM) soap.HasFault {
	body := &methods.AnswerVMBody{}
	w := m.world
	w.plays.mu.Lock()
	question := w.plays.asked[m.Self.Value]
	property := ""
	switch {
	case question == nil || question.ID != request.QuestionId:
		property = "questionId"
	case question.Choices[request.AnswerChoice] == "":
		property = "answerChoice"
	default:
		delete(w.plays.asked, m.Self.Value)
		w.plays.answers[m.Self.Value] = request.AnswerChoice
	}
	w.plays.mu.Unlock()
	if property != "" {
		body.Fault_ = simulator.Fault("A specified parameter was not correct: "+property,
			&types.InvalidArgument{InvalidProperty: property})
		return body
	}
	ctx.Update(m.VirtualMachine, []types.PropertyChange{{Name: "runtime.question"}, {Name: "summary.runtime.question"}})
	body.Res = &types.AnswerVMResponse{}
	return body
}
