package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// ReconfigVMTask is ReconfigVM_Task. Disks come and go while the machine runs; other hardware needs it to be off.
func (m *Machine) ReconfigVMTask(ctx *simulator.Context, request *types.ReconfigVM_Task) soap.HasFault {
	task := m.world.start(ctx, m, "ReconfigVM_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		return nil, m.reconfigure(ctx, request)
	})
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: task}}
}

func (m *Machine) reconfigure(ctx *simulator.Context, request *types.ReconfigVM_Task) *Failure {
	w, vm, spec := m.world, m.VirtualMachine, &request.Spec
	if failure := m.checkReconfigure(ctx, spec); failure != nil {
		return failure
	}
	running := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
	before := map[int32]Attached{}
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		before[disk.Device.Key] = disk
	}
	// A disk leaves the running guest before it leaves the configuration.
	if failure := m.removals(spec, func(disk Attached) *Failure { return w.unplug(vm, disk) }); failure != nil {
		return failure
	}
	if w.settings.DropEmpty {
		dropEmpty(vm, spec)
	}
	kept := w.keepFiles(spec)
	spec.Name = escaped(spec.Name)
	answer := vm.ReconfigVMTask(ctx, request)
	_, failure := w.inner(ctx, answer, func() types.ManagedObjectReference {
		return answer.(*methods.ReconfigVM_TaskBody).Res.Returnval
	})
	if failure != nil {
		return failure
	}
	for _, name := range kept {
		w.removeDisk(name)
	}
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		old, known := before[disk.Device.Key]
		switch {
		case known && old.Path() == disk.Path():
			if err := w.growDisk(disk); err != nil {
				return systemError("%v", err)
			}
			continue
		case created(spec, disk):
			if err := w.furnish(disk); err != nil {
				return systemError("%v", err)
			}
		}
		if running {
			if failure := w.plug(vm, disk); failure != nil {
				return failure
			}
		}
	}
	w.noteMAC(ctx, vm)
	return w.plugCables(vm)
}

func (m *Machine) checkReconfigure(ctx *simulator.Context, spec *types.VirtualMachineConfigSpec) *Failure {
	w, vm := m.world, m.VirtualMachine
	if failure := w.leased(vm.Self); failure != nil {
		return failure
	}
	if failure := checkGuestID(spec.GuestId); failure != nil {
		return failure
	}
	if spec.ChangeVersion != "" && spec.ChangeVersion != vm.Config.ChangeVersion {
		return &Failure{&types.ConcurrentAccess{}, "The object has been modified since it was read."}
	}
	if failure := checkName(spec.Name); failure != nil {
		return failure
	}
	if spec.Name != "" && escaped(spec.Name) != vm.Name {
		if folder, ok := ctx.Map.Get(*vm.Parent).(*simulator.Folder); ok {
			if child := ctx.Map.FindByName(escaped(spec.Name), folder.ChildEntity); child != nil {
				return duplicateName(spec.Name, child.Reference())
			}
		}
	}
	off := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff
	if !off && (spec.Firmware != "" || spec.GuestId != "" || spec.InstanceUuid != "" || spec.Uuid != "") {
		return invalidPowerState(types.VirtualMachinePowerStatePoweredOff, vm.Runtime.PowerState)
	}
	for i, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		disk, isDisk := device.Device.(*types.VirtualDisk)
		if !isDisk && !off && !hotPlugs(device.Device) {
			return invalidPowerState(types.VirtualMachinePowerStatePoweredOff, vm.Runtime.PowerState)
		}
		if !isDisk && w.guests.get(vm.Self.Value) != nil {
			if failure := w.checkLive(vm, device); failure != nil {
				return failure
			}
		}
		if device.Operation == types.VirtualDeviceConfigSpecOperationAdd {
			if isDisk && disk.UnitNumber != nil && (*disk.UnitNumber == controllerUnit || *disk.UnitNumber > lastUnit) {
				fault := &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
				fault.Property = "virtualDeviceSpec.device.unitNumber"
				return &Failure{fault, "No disk can have this unit number."}
			}
			if isDisk && !hasController(vm, spec, disk.ControllerKey) {
				fault := &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
				fault.Property = "virtualDeviceSpec.device.controllerKey"
				return &Failure{fault, "There is no controller with the disk's key."}
			}
			continue
		}
		if !hasDevice(vm, device.Device.GetVirtualDevice().Key) {
			fault := &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
			return &Failure{fault, "The device is not there."}
		}
		if isDisk && device.Operation == types.VirtualDeviceConfigSpecOperationEdit && vm.Snapshot != nil &&
			disk.CapacityInKB > 0 && disk.CapacityInKB != capacityOf(vm, disk.Key)/1024 {
			return invalidConfig("capacity: the machine has snapshots")
		}
	}
	home := w.datastore(datastoreName(vm.Config.Files.VmPathName))
	return w.checkDevices(ctx, vm, home, spec)
}

// A SCSI controller is unit 7 of its own bus; hardware version 14 and later have units up to 63.
const (
	controllerUnit = 7
	lastUnit       = 63
)

// hotPlugs says what else may change while a machine runs.
func hotPlugs(device types.BaseVirtualDevice) bool {
	switch device.(type) {
	case types.BaseVirtualEthernetCard, *types.VirtualCdrom, *types.ParaVirtualSCSIController:
		return true
	}
	return false
}

func hasDevice(vm *simulator.VirtualMachine, key int32) bool {
	for _, device := range vm.Config.Hardware.Device {
		if device.GetVirtualDevice().Key == key {
			return true
		}
	}
	return false
}

func hasController(vm *simulator.VirtualMachine, spec *types.VirtualMachineConfigSpec, key int32) bool {
	for _, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		_, controller := device.Device.(types.BaseVirtualController)
		if controller && device.Operation == types.VirtualDeviceConfigSpecOperationAdd &&
			device.Device.GetVirtualDevice().Key == key {
			return true
		}
	}
	return hasDevice(vm, key)
}

func capacityOf(vm *simulator.VirtualMachine, key int32) int64 {
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		if disk.Device.Key == key {
			return disk.Device.CapacityInBytes
		}
	}
	return 0
}

// removals calls `do` for every disk that the specification takes away.
func (m *Machine) removals(spec *types.VirtualMachineConfigSpec, do func(Attached) *Failure) *Failure {
	for _, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		if device.Operation != types.VirtualDeviceConfigSpecOperationRemove {
			continue
		}
		for _, disk := range attachedDisks(m.Config.Hardware.Device) {
			if disk.Device.Key == device.Device.GetVirtualDevice().Key {
				// What is attached counts, not what the caller says about it.
				device.Device = disk.Device
				if failure := do(disk); failure != nil {
					return failure
				}
			}
		}
	}
	return nil
}

// keepFiles takes the removal of files out of the specification and returns them: the simulator knows no snapshots.
func (w *World) keepFiles(spec *types.VirtualMachineConfigSpec) []string {
	var names []string
	for _, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		disk, ok := device.Device.(*types.VirtualDisk)
		if !ok || device.FileOperation != types.VirtualDeviceConfigSpecFileOperationDestroy {
			continue
		}
		device.FileOperation = ""
		if backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			chain, _ := w.chain(backing.FileName)
			names = append(names, chain...)
		}
	}
	return names
}

func created(spec *types.VirtualMachineConfigSpec, disk Attached) bool {
	for _, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		if device.Device == types.BaseVirtualDevice(disk.Device) &&
			device.Operation == types.VirtualDeviceConfigSpecOperationAdd && device.FileOperation != "" {
			return true
		}
	}
	return false
}

// dropEmpty takes a SCSI controller away with its last disk: the guide of the VDDK warns of it for disks that were added
// to a running machine. Unverified, so it is a switch.
func dropEmpty(vm *simulator.VirtualMachine, spec *types.VirtualMachineConfigSpec) {
	left, touched := map[int32]int{}, map[int32]bool{}
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		left[disk.Device.ControllerKey]++
	}
	for _, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		if disk, ok := device.Device.(*types.VirtualDisk); ok {
			switch device.Operation {
			case types.VirtualDeviceConfigSpecOperationRemove:
				left[disk.ControllerKey]--
				touched[disk.ControllerKey] = true
			case types.VirtualDeviceConfigSpecOperationAdd:
				left[disk.ControllerKey]++
			}
		}
	}
	for _, device := range vm.Config.Hardware.Device {
		key := device.GetVirtualDevice().Key
		if _, scsi := device.(types.BaseVirtualSCSIController); scsi && touched[key] && left[key] == 0 {
			spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
				Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: device,
			})
		}
	}
}
