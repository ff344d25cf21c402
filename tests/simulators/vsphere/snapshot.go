package main

import (
	"bytes"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// Snapshot is a machine's snapshot: the disks as they were, under the layers that the machine writes since.
type Snapshot struct {
	*simulator.VirtualMachineSnapshot
	world *World
}

// CreateSnapshotTask is CreateSnapshot_Task.
func (m *Machine) CreateSnapshotTask(ctx *simulator.Context, request *types.CreateSnapshot_Task) soap.HasFault {
	ex := &types.CreateSnapshotEx_Task{
		This: request.This, Name: request.Name, Description: request.Description, Memory: request.Memory,
	}
	task := m.world.start(ctx, m, "CreateSnapshot_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		return m.snapshot(ctx, ex)
	})
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: task}}
}

// CreateSnapshotExTask is CreateSnapshotEx_Task.
func (m *Machine) CreateSnapshotExTask(ctx *simulator.Context, request *types.CreateSnapshotEx_Task) soap.HasFault {
	task := m.world.start(ctx, m, "CreateSnapshotEx_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		return m.snapshot(ctx, request)
	})
	return &methods.CreateSnapshotEx_TaskBody{Res: &types.CreateSnapshotEx_TaskResponse{Returnval: task}}
}

func (m *Machine) snapshot(ctx *simulator.Context, request *types.CreateSnapshotEx_Task) (types.AnyType, *Failure) {
	w, vm := m.world, m.VirtualMachine
	if failure := w.leased(vm.Self); failure != nil {
		return nil, failure
	}
	if request.Memory && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		return nil, &Failure{&types.NotSupported{}, "The stand-in keeps no memory in snapshots."}
	}
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		if lower := w.changedBelow(disk.Path()); lower != "" {
			return nil, parentChanged(lower)
		}
		if owner := w.lockedBy(disk.Path(), vm.Self); owner != nil && disk.snapshotable() {
			return nil, failedToLock(disk.Path())
		}
	}
	answer := vm.CreateSnapshotExTask(ctx, request)
	made, failure := w.inner(ctx, answer, func() types.ManagedObjectReference {
		return answer.(*methods.CreateSnapshotEx_TaskBody).Res.Returnval
	})
	if failure != nil {
		return nil, failure
	}
	if failure := w.layerDisks(ctx, vm); failure != nil {
		return nil, failure
	}
	changed(ctx, vm)
	return made, nil
}

// layerDisks puts a fresh layer on every disk that snapshots catch.
func (w *World) layerDisks(ctx *simulator.Context, vm *simulator.VirtualMachine) *Failure {
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		if !disk.snapshotable() {
			continue
		}
		name, err := w.addLayer(vm, disk)
		if err != nil {
			return systemError("%v", err)
		}
		w.pointAt(ctx, vm, disk.Device.Key, name)
	}
	return nil
}

// pointAt makes a machine's disk use another file.
func (w *World) pointAt(ctx *simulator.Context, vm *simulator.VirtualMachine, key int32, name string) {
	devices := slices.Clone(vm.Config.Hardware.Device)
	for i, device := range devices {
		if disk, ok := device.(*types.VirtualDisk); ok && disk.Key == key {
			devices[i] = w.pointed(disk, name)
		}
	}
	ctx.Update(vm, []types.PropertyChange{{Name: "config.hardware.device", Val: devices}})
}

func (w *World) pointed(disk *types.VirtualDisk, name string) *types.VirtualDisk {
	moved, backing := *disk, *disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	backing.FileName, backing.Parent = name, nil
	if descriptor, err := w.openDisk(name); err == nil {
		backing.Parent = w.parentBacking(&backing, descriptor)
	}
	moved.Backing = &backing
	return &moved
}

func (w *World) snapshotsOf(vm *simulator.VirtualMachine) []*simulator.VirtualMachineSnapshot {
	if vm.Snapshot == nil {
		return nil
	}
	var found []*simulator.VirtualMachineSnapshot
	var walk func([]types.VirtualMachineSnapshotTree)
	walk = func(trees []types.VirtualMachineSnapshotTree) {
		for _, tree := range trees {
			if snapshot, ok := w.model.Map().Get(tree.Snapshot).(*simulator.VirtualMachineSnapshot); ok {
				found = append(found, snapshot)
			}
			walk(tree.ChildSnapshotList)
		}
	}
	walk(vm.Snapshot.RootSnapshotList)
	return found
}

// RevertToSnapshotTask is RevertToSnapshot_Task. The machine is off afterwards: our snapshots hold no memory.
func (s *Snapshot) RevertToSnapshotTask(ctx *simulator.Context, _ *types.RevertToSnapshot_Task) soap.HasFault {
	vm := s.world.machine(s.Vm)
	task := s.world.start(ctx, vm, "RevertToSnapshot_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		return nil, s.world.revert(ctx, vm, s.VirtualMachineSnapshot)
	})
	return &methods.RevertToSnapshot_TaskBody{Res: &types.RevertToSnapshot_TaskResponse{Returnval: task}}
}

// RevertToCurrentSnapshotTask is RevertToCurrentSnapshot_Task.
func (m *Machine) RevertToCurrentSnapshotTask(
	ctx *simulator.Context, _ *types.RevertToCurrentSnapshot_Task,
) soap.HasFault {
	task := m.world.start(ctx, m, "RevertToCurrentSnapshot_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		if m.VirtualMachine.Snapshot == nil || m.VirtualMachine.Snapshot.CurrentSnapshot == nil {
			return nil, &Failure{&types.NotFound{}, "The machine has no snapshot."}
		}
		current := ctx.Map.Get(*m.VirtualMachine.Snapshot.CurrentSnapshot).(*simulator.VirtualMachineSnapshot)
		return nil, m.world.revert(ctx, m.VirtualMachine, current)
	})
	return &methods.RevertToCurrentSnapshot_TaskBody{
		Res: &types.RevertToCurrentSnapshot_TaskResponse{Returnval: task},
	}
}

func (w *World) revert(
	ctx *simulator.Context, vm *simulator.VirtualMachine, snapshot *simulator.VirtualMachineSnapshot,
) *Failure {
	for _, disk := range attachedDisks(snapshot.Config.Hardware.Device) {
		if owner := w.lockedBy(disk.Path(), vm.Self); owner != nil {
			return failedToLock(disk.Path())
		}
		if w.changedUpon(disk.Path()) {
			return parentChanged(disk.Path())
		}
	}
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		if failure := w.powerOff(ctx, vm); failure != nil {
			return failure
		}
	}
	config, err := copied(&snapshot.Config)
	if err != nil {
		return systemError("%v", err)
	}
	vm.Config = config
	ctx.Update(vm, []types.PropertyChange{
		{Name: "config.hardware.device", Val: config.Hardware.Device}, {Name: "snapshot.currentSnapshot", Val: snapshot.Self},
	})
	if failure := w.consolidate(ctx, vm); failure != nil { // layers that nobody needs any more go
		return failure
	}
	if failure := w.layerDisks(ctx, vm); failure != nil {
		return failure
	}
	changed(ctx, vm)
	return nil
}

// copied is a deep copy through the API's own XML.
func copied(config *types.VirtualMachineConfigInfo) (*types.VirtualMachineConfigInfo, error) {
	var text bytes.Buffer
	if err := xml.NewEncoder(&text).Encode(config); err != nil {
		return nil, err
	}
	decoder := xml.NewDecoder(&text)
	decoder.TypeFunc = types.TypeFunc()
	into := &types.VirtualMachineConfigInfo{}
	return into, decoder.Decode(into)
}

// RemoveSnapshotTask is RemoveSnapshot_Task: what the layer above holds is merged into the snapshot's disks.
func (s *Snapshot) RemoveSnapshotTask(ctx *simulator.Context, request *types.RemoveSnapshot_Task) soap.HasFault {
	w, vm := s.world, s.world.machine(s.Vm)
	task := w.start(ctx, vm, "RemoveSnapshot_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		if failure := w.mergeable(vm); failure != nil {
			return nil, failure
		}
		answer := s.VirtualMachineSnapshot.RemoveSnapshotTask(ctx, request)
		_, failure := w.inner(ctx, answer, func() types.ManagedObjectReference {
			return answer.(*methods.RemoveSnapshot_TaskBody).Res.Returnval
		})
		if failure != nil {
			return nil, failure
		}
		return nil, w.afterRemoval(ctx, vm, request.Consolidate == nil || *request.Consolidate)
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: task}}
}

// RemoveAllSnapshotsTask is RemoveAllSnapshots_Task.
func (m *Machine) RemoveAllSnapshotsTask(ctx *simulator.Context, request *types.RemoveAllSnapshots_Task) soap.HasFault {
	w := m.world
	task := w.start(ctx, m, "RemoveAllSnapshots_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		if failure := w.mergeable(m.VirtualMachine); failure != nil {
			return nil, failure
		}
		answer := m.VirtualMachine.RemoveAllSnapshotsTask(ctx, request)
		_, failure := w.inner(ctx, answer, func() types.ManagedObjectReference {
			return answer.(*methods.RemoveAllSnapshots_TaskBody).Res.Returnval
		})
		if failure != nil {
			return nil, failure
		}
		return nil, w.afterRemoval(ctx, m.VirtualMachine, request.Consolidate == nil || *request.Consolidate)
	})
	return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: task}}
}

// ConsolidateVMDisksTask is ConsolidateVMDisks_Task.
func (m *Machine) ConsolidateVMDisksTask(ctx *simulator.Context, _ *types.ConsolidateVMDisks_Task) soap.HasFault {
	task := m.world.start(ctx, m, "ConsolidateVMDisks_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		if failure := m.world.mergeable(m.VirtualMachine); failure != nil {
			return nil, failure
		}
		return nil, m.world.afterRemoval(ctx, m.VirtualMachine, true)
	})
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: task}}
}

// mergeable refuses to merge disks that another machine has or that do not fit together any more.
func (w *World) mergeable(vm *simulator.VirtualMachine) *Failure {
	if failure := w.leased(vm.Self); failure != nil {
		return failure
	}
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		names, _ := w.chain(disk.Path())
		for _, name := range names {
			if w.lockedBy(name, vm.Self) != nil {
				return failedToLock(name)
			}
		}
		if lower := w.changedBelow(disk.Path()); lower != "" {
			return parentChanged(lower)
		}
	}
	return nil
}

func (w *World) afterRemoval(ctx *simulator.Context, vm *simulator.VirtualMachine, merge bool) *Failure {
	if merge {
		if failure := w.consolidate(ctx, vm); failure != nil {
			return failure
		}
	}
	ctx.Update(vm, []types.PropertyChange{{Name: "runtime.consolidationNeeded", Val: !merge}})
	changed(ctx, vm)
	return nil
}
