package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Machine is a virtual machine with real disks.
type Machine struct {
	*simulator.VirtualMachine
	world *World
}

// changed gives the machine a new change version. Real ones get one with every change of their configuration and, as
// far as is known (unverified), with every power-on.
func changed(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	now := time.Now()
	ctx.Update(vm, []types.PropertyChange{
		{Name: "config.changeVersion", Val: now.UTC().Format("2006-01-02T15:04:05.000000Z")},
		{Name: "config.modified", Val: now},
	})
}

// DestroyTask is Destroy_Task.
func (m *Machine) DestroyTask(ctx *simulator.Context, _ *types.Destroy_Task) soap.HasFault {
	task := m.world.start(ctx, m, "Destroy_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		if failure := m.world.leased(m.Self); failure != nil {
			return nil, failure
		}
		return nil, m.world.destroyMachine(ctx, m.VirtualMachine)
	})
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: task}}
}

// destroyMachine removes a machine and every disk that is attached to it, wherever it lies: vSphere does so too, which is
// why disks must be detached from a worker first. A disk that another machine has open cannot go, and stops everything.
func (w *World) destroyMachine(ctx *simulator.Context, vm *simulator.VirtualMachine) *Failure {
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		return invalidPowerState(types.VirtualMachinePowerStatePoweredOff, vm.Runtime.PowerState)
	}
	files := w.filesOf(vm)
	for _, name := range files[1:] {
		if w.lockedBy(name, vm.Self) != nil {
			return fileLocked(name)
		}
	}
	home := files[0]
	answer := vm.UnregisterVM(ctx, &types.UnregisterVM{This: vm.Self})
	if fault := answer.Fault(); fault != nil {
		return &Failure{fault.VimFault().(types.BaseMethodFault), fault.String}
	}
	for _, name := range files[1:] {
		w.removeDisk(name)
	}
	if err := os.RemoveAll(home); err != nil {
		return systemError("%v", err)
	}
	return nil
}

// destroy removes a machine and its files whatever its state, as the end of a lease does.
func (w *World) destroy(ctx *simulator.Context, ref types.ManagedObjectReference) {
	vm := w.machine(ref)
	if vm == nil {
		return
	}
	if failure := w.destroyMachine(ctx, vm); failure != nil {
		w.tally.problem("a lease's machine was not removed: " + failure.Text)
	}
}

// UnregisterVM takes the machine out of the inventory and leaves its files.
func (m *Machine) UnregisterVM(ctx *simulator.Context, request *types.UnregisterVM) soap.HasFault {
	if failure := m.world.leased(m.Self); failure != nil {
		return &methods.UnregisterVMBody{Fault_: failure.soap()}
	}
	return m.VirtualMachine.UnregisterVM(ctx, request)
}

// CloneVMTask is refused: the simulator would make a machine without the disks' content.
func (m *Machine) CloneVMTask(ctx *simulator.Context, _ *types.CloneVM_Task) soap.HasFault {
	return &methods.CloneVM_TaskBody{Res: &types.CloneVM_TaskResponse{Returnval: m.refuse(ctx, "CloneVM_Task")}}
}

// RelocateVMTask is refused: the simulator would move no file.
func (m *Machine) RelocateVMTask(ctx *simulator.Context, _ *types.RelocateVM_Task) soap.HasFault {
	return &methods.RelocateVM_TaskBody{Res: &types.RelocateVM_TaskResponse{Returnval: m.refuse(ctx, "RelocateVM_Task")}}
}

// SuspendVMTask is refused: there is no memory image.
func (m *Machine) SuspendVMTask(ctx *simulator.Context, _ *types.SuspendVM_Task) soap.HasFault {
	return &methods.SuspendVM_TaskBody{Res: &types.SuspendVM_TaskResponse{Returnval: m.refuse(ctx, "SuspendVM_Task")}}
}

// refuse is a task that fails because the stand-in cannot do it as it should.
func (m *Machine) refuse(ctx *simulator.Context, method string) types.ManagedObjectReference {
	return m.world.start(ctx, m, method, func(*simulator.Task) (types.AnyType, *Failure) {
		return nil, &Failure{&types.NotSupported{}, "The stand-in does not do " + method + "."}
	})
}

// serialFile is the local file behind the machine's first serial port, empty without one that writes to a file.
func (w *World) serialFile(vm *simulator.VirtualMachine) string {
	for _, device := range vm.Config.Hardware.Device {
		if port, ok := device.(*types.VirtualSerialPort); ok {
			if backing, ok := port.Backing.(*types.VirtualSerialPortFileBackingInfo); ok {
				return w.local(backing.FileName)
			}
		}
	}
	return ""
}

// home is the machine's folder.
func (w *World) home(vm *simulator.VirtualMachine) string {
	return filepath.Dir(w.local(vm.Config.Files.VmPathName))
}
