package main

import (
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// PowerOnVMTask is PowerOnVM_Task.
func (m *Machine) PowerOnVMTask(ctx *simulator.Context, request *types.PowerOnVM_Task) soap.HasFault {
	work := func(*simulator.Task) (types.AnyType, *Failure) { return nil, m.powerOn(ctx, request) }
	task := m.world.startAfter(ctx, m, "PowerOnVM_Task", m.waitForAnswer, work)
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: task}}
}

func (m *Machine) powerOn(ctx *simulator.Context, request *types.PowerOnVM_Task) *Failure {
	w, vm := m.world, m.VirtualMachine
	if failure := w.leased(vm.Self); failure != nil {
		return failure
	}
	if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		return invalidPowerState(types.VirtualMachinePowerStatePoweredOn, vm.Runtime.PowerState)
	}
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		names, err := w.chain(disk.Path())
		if err != nil {
			return vmConfigFault("msg.disk.noBackEnd", "Cannot open the disk '%s' or one of the snapshot disks it depends on: %v",
				disk.Path(), err)
		}
		for _, name := range names {
			if w.lockedBy(name, vm.Self) != nil {
				return failedToLock(disk.Path())
			}
		}
		if lower := w.changedBelow(disk.Path()); lower != "" {
			return parentChanged(lower)
		}
	}
	if w.settings.QEMU {
		if failure := w.boot(vm); failure != nil {
			return failure
		}
	}
	booted(ctx, vm, time.Now()) // before it shows as on: nobody sees it on without knowing since when
	answer := vm.PowerOnVMTask(ctx, request)
	_, failure := w.inner(ctx, answer, func() types.ManagedObjectReference {
		return answer.(*methods.PowerOnVM_TaskBody).Res.Returnval
	})
	if failure != nil {
		booted(ctx, vm, nil)
		w.guests.kill(vm.Self.Value)
		return failure
	}
	changed(ctx, vm)
	w.applyGuest(ctx, vm)
	return w.plugCables(vm)
}

// booted notes since when the machine is on; nil: it is off.
func booted(ctx *simulator.Context, vm *simulator.VirtualMachine, since any) {
	ctx.Update(vm, []types.PropertyChange{
		{Name: "runtime.bootTime", Val: since}, {Name: "summary.runtime.bootTime", Val: since},
	})
}

// PowerOffVMTask is PowerOffVM_Task: the power is cut.
func (m *Machine) PowerOffVMTask(ctx *simulator.Context, request *types.PowerOffVM_Task) soap.HasFault {
	task := m.world.start(ctx, m, "PowerOffVM_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		return nil, m.world.powerOff(ctx, m.VirtualMachine)
	})
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: task}}
}

func (w *World) powerOff(ctx *simulator.Context, vm *simulator.VirtualMachine) *Failure {
	if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
		return invalidPowerState(types.VirtualMachinePowerStatePoweredOff, vm.Runtime.PowerState)
	}
	w.guests.kill(vm.Self.Value)
	answer := vm.PowerOffVMTask(ctx, &types.PowerOffVM_Task{This: vm.Self})
	_, failure := w.inner(ctx, answer, func() types.ManagedObjectReference {
		return answer.(*methods.PowerOffVM_TaskBody).Res.Returnval
	})
	w.forgetGuest(ctx, vm)
	if failure == nil {
		booted(ctx, vm, nil)
	}
	return failure
}

// ResetVMTask is ResetVM_Task.
func (m *Machine) ResetVMTask(ctx *simulator.Context, _ *types.ResetVM_Task) soap.HasFault {
	task := m.world.start(ctx, m, "ResetVM_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		if m.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
			return nil, invalidPowerState(types.VirtualMachinePowerStatePoweredOn, m.Runtime.PowerState)
		}
		if guest := m.world.guests.get(m.Self.Value); guest != nil {
			if err := guest.monitor.do("system_reset", nil, nil); err != nil {
				return nil, systemError("%v", err)
			}
		}
		return nil, nil
	})
	return &methods.ResetVM_TaskBody{Res: &types.ResetVM_TaskResponse{Returnval: task}}
}

// ShutdownGuest asks the guest, which takes running Tools, and returns at once.
func (m *Machine) ShutdownGuest(ctx *simulator.Context, _ *types.ShutdownGuest) soap.HasFault {
	body := &methods.ShutdownGuestBody{}
	if m.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		body.Fault_ = invalidPowerState(types.VirtualMachinePowerStatePoweredOn, m.Runtime.PowerState).soap()
		return body
	}
	if m.Guest.ToolsRunningStatus != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) {
		body.Fault_ = simulator.Fault(
			"Cannot complete operation because VMware Tools is not running in this virtual machine.", &types.ToolsUnavailable{})
		return body
	}
	body.Res = &types.ShutdownGuestResponse{}
	if m.world.stubborn(m.Name) {
		return body
	}
	if guest := m.world.guests.get(m.Self.Value); guest != nil {
		// The guest goes off by itself; the end of QEMU tells us.
		if err := guest.monitor.do("system_powerdown", nil, nil); err != nil {
			body.Res, body.Fault_ = nil, systemError("%v", err).soap()
		}
		return body
	}
	go m.world.wentOff(m.VirtualMachine)
	return body
}

// wentOff shows in the inventory that a guest has shut its machine down.
func (w *World) wentOff(vm *simulator.VirtualMachine) {
	ctx := w.background(nil)
	ctx.WithLock(vm, func() {
		if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn || w.machine(vm.Self) == nil {
			return
		}
		event := types.VmEvent{}
		event.Vm = &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vm.Name}, Vm: vm.Self}
		w.postEvent(ctx, &types.VmGuestShutdownEvent{VmEvent: event})
		w.postEvent(ctx, &types.VmPoweredOffEvent{VmEvent: event})
		ctx.Update(vm, []types.PropertyChange{
			{Name: "runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
			{Name: "summary.runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
		})
		w.forgetGuest(ctx, vm)
	})
}

// questionPatience is how long a power-on waits for an answer at most.
const questionPatience = 10 * time.Minute
