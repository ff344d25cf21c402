package main

import (
	"fmt"
	"log"
	"runtime/debug"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Work is what a task does. It holds the lock of the task's object.
type Work func(*simulator.Task) (types.AnyType, *Failure)

// start makes a task of a method ("PowerOnVM_Task") and runs it. Unlike the simulator's own, its error has a text that people can read, its reason
// names the user, and vCenter's event about it is posted.
func (w *World) start(ctx *simulator.Context, entity mo.Reference, method string, work Work) types.ManagedObjectReference {
	task := w.announce(ctx, entity, method)
	// Taken before the call returns, so that nothing comes between the two.
	unlock := ctx.Map.AcquireLock(ctx, entity.Reference())
	go w.run(ctx, entity, method, task, unlock, work)
	return task.Self
}

// startAfter is start for work that first waits for something else without its object's lock.
func (w *World) startAfter(
	ctx *simulator.Context, entity mo.Reference, method string, first func() *Failure, work Work,
) types.ManagedObjectReference {
	task := w.announce(ctx, entity, method)
	go func() {
		if failure := first(); failure != nil {
			w.finish(task, nil, failure)
			return
		}
		w.run(ctx, entity, method, task, ctx.Map.AcquireLock(ctx, entity.Reference()), work)
	}()
	return task.Self
}

func (w *World) run(
	ctx *simulator.Context, entity mo.Reference, method string, task *simulator.Task, unlock func(), work Work,
) {
	failure := w.rules.failTask(ctx, entity, method)
	var result types.AnyType
	if failure == nil {
		result, failure = w.guarded(task, work)
	}
	unlock()
	w.space.refresh(w.background(nil))
	w.finish(task, result, failure)
}

// announce makes a task that is running, for whoever ends it with `finish`.
func (w *World) announce(ctx *simulator.Context, entity mo.Reference, method string) *simulator.Task {
	task := simulator.CreateTask(entity.Reference(), method, nil)
	task.Info.Name = method
	task.Info.DescriptionId = describe(entity.Reference().Type, method)
	task.Info.Reason = &types.TaskReasonUser{UserName: ctx.Session.UserName}
	task.Info.State = types.TaskInfoStateRunning
	task.Info.StartTime = types.NewTime(time.Now())
	if named, ok := entity.(mo.Entity); ok {
		task.Info.EntityName = named.Entity().Name
	}
	ctx.Map.Put(task)
	own := w.background(ctx.Session)
	own.WithLock(task, func() {
		own.Update(task, []types.PropertyChange{
			{Name: "info.key", Val: task.Self.Value}, {Name: "info.task", Val: task.Self},
		})
	})
	w.post(ctx, entity, task.Info)
	return task
}

// describe is the name of a task's text: mostly the method's own. The others are those of vCenter's task list.
func describe(kind, method string) string {
	switch method {
	case "CreateVM_Task":
		return "Folder.createVm"
	case "PowerOnVM_Task", "PowerOffVM_Task", "ResetVM_Task", "SuspendVM_Task":
		return kind + "." + lowered(strings.TrimSuffix(method, "VM_Task"))
	case "ReconfigVM_Task":
		return "VirtualMachine.reconfigure"
	case "RevertToSnapshot_Task":
		return "vm.Snapshot.revert"
	case "RemoveSnapshot_Task":
		return "vm.Snapshot.remove"
	case importTask:
		return kind + "." + importTask
	}
	return kind + "." + lowered(strings.TrimSuffix(method, "_Task"))
}

func lowered(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// importTask is the name of the task beside an import's lease, which no method has.
const importTask = "ImportVAppLRO"

func (w *World) finish(task *simulator.Task, result types.AnyType, failure *Failure) {
	ctx := w.background(nil)
	ctx.WithLock(task, func() {
		if task.Info.State == types.TaskInfoStateError || task.Info.State == types.TaskInfoStateSuccess {
			return // it was cancelled
		}
		changes := []types.PropertyChange{
			{Name: "info.completeTime", Val: time.Now()}, {Name: "info.state", Val: types.TaskInfoStateSuccess},
		}
		if failure != nil {
			changes[1].Val = types.TaskInfoStateError
			changes = append(changes, types.PropertyChange{Name: "info.error", Val: failure.localized()})
		} else if result != nil {
			changes = append(changes, types.PropertyChange{Name: "info.result", Val: result})
		}
		ctx.Update(task, changes)
	})
}

// guarded makes a failure of a panic, so that one wrong call does not end every other test's server.
func (w *World) guarded(task *simulator.Task, work Work) (result types.AnyType, failure *Failure) {
	defer func() {
		if trouble := recover(); trouble != nil {
			log.Printf("%s: %v\n%s", task.Info.Name, trouble, debug.Stack())
			w.tally.problem(fmt.Sprintf("%s: %v", task.Info.Name, trouble))
			failure = systemError("the stand-in failed: %v", trouble)
		}
	}()
	return work(task)
}

// inner waits for a task of the simulator that is one step of ours, and takes it out of sight.
func (w *World) inner(ctx *simulator.Context, answer soap.HasFault, ref func() types.ManagedObjectReference) (types.AnyType, *Failure) {
	if fault := answer.Fault(); fault != nil {
		return nil, &Failure{fault.VimFault().(types.BaseMethodFault), fault.String}
	}
	task := ctx.Map.Get(ref()).(*simulator.Task)
	task.Wait()
	if entity, ok := ctx.Map.Get(*task.Info.Entity).(mo.Entity); ok {
		ctx.Map.RemoveReference(ctx, entity, &entity.Entity().RecentTask, task.Self)
	}
	manager := ctx.Map.Get(*w.model.ServiceContent.TaskManager).(*simulator.TaskManager)
	manager.Lock()
	simulator.RemoveReference(&manager.RecentTask, task.Self)
	manager.Unlock()
	ctx.Map.Remove(ctx, task.Self)
	if task.Info.Error != nil {
		return nil, &Failure{task.Info.Error.Fault, fmt.Sprintf("%T", task.Info.Error.Fault)}
	}
	return task.Info.Result, nil
}

var serviceInstance = types.ManagedObjectReference{Type: "ServiceInstance", Value: "ServiceInstance"}

// post is the event that vCenter writes for every task, with the user's name.
func (w *World) post(ctx *simulator.Context, entity mo.Reference, info types.TaskInfo) {
	event := &types.TaskEvent{Info: info}
	event.FullFormattedMessage = "Task: " + info.Name
	if vm, ok := ctx.Map.Get(entity.Reference()).(*simulator.VirtualMachine); ok {
		event.Vm = &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vm.Name}, Vm: vm.Self}
	}
	w.postEvent(ctx, event)
}

func (w *World) postEvent(ctx *simulator.Context, event types.BaseEvent) {
	manager := ctx.Map.EventManager()
	own := w.background(ctx.Session)
	own.WithLock(manager, func() { manager.PostEvent(own, &types.PostEvent{EventToPost: event}) })
}
