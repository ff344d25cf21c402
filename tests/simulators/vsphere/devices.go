package main

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func newUUID() string { return uuid.NewString() }

// checkDevices refuses devices that a host refuses, and fills in what a host finds out by itself. `vm` is nil for a
// machine that is about to be made; `home` is where disks go that name no datastore.
func (w *World) checkDevices(
	ctx *simulator.Context, vm *simulator.VirtualMachine, home *simulator.Datastore, spec *types.VirtualMachineConfigSpec,
) *Failure {
	wanted := map[string]int64{}
	for i, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		if device.Operation == types.VirtualDeviceConfigSpecOperationRemove {
			continue
		}
		switch d := device.Device.(type) {
		case *types.VirtualDisk:
			if device.Operation == types.VirtualDeviceConfigSpecOperationEdit {
				continue
			}
			datastore, failure := w.checkDisk(vm, home, device, d)
			if failure != nil {
				return failure
			}
			backing := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			thin := backing.ThinProvisioned != nil && *backing.ThinProvisioned
			if device.FileOperation == types.VirtualDeviceConfigSpecFileOperationCreate && !thin {
				wanted[datastore.Name] += d.CapacityInBytes
			}
		case types.BaseVirtualEthernetCard:
			if failure := w.checkCard(ctx, i, d.GetVirtualEthernetCard()); failure != nil {
				return failure
			}
		}
	}
	for name, bytes := range wanted {
		if datastore := w.datastore(name); w.space.free(datastore) < bytes {
			return noSpace(datastore, spec.Name)
		}
	}
	return nil
}

// checkDisk returns the disk's datastore.
func (w *World) checkDisk(
	vm *simulator.VirtualMachine, home *simulator.Datastore, change *types.VirtualDeviceConfigSpec, disk *types.VirtualDisk,
) (*simulator.Datastore, *Failure) {
	backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		fault := &types.DeviceUnsupportedForVmPlatform{}
		fault.Property = "virtualDeviceSpec.device.backing"
		return nil, &Failure{fault, fmt.Sprintf("The device is not supported: %T", disk.Backing)}
	}
	datastore := home
	var path object.DatastorePath
	if path.FromString(backing.FileName) {
		datastore = w.datastore(path.Datastore)
	} else if backing.Datastore != nil {
		if named, ok := w.model.Map().Get(*backing.Datastore).(*simulator.Datastore); ok {
			datastore = named
			backing.FileName = "[" + named.Name + "]"
		}
	}
	if datastore == nil {
		return nil, &Failure{
			&types.InvalidDatastorePath{DatastorePath: backing.FileName}, "Invalid datastore path '" + backing.FileName + "'.",
		}
	}
	if change.FileOperation != "" {
		if disk.CapacityInBytes == 0 {
			disk.CapacityInBytes = disk.CapacityInKB * 1024
		}
		disk.CapacityInKB = disk.CapacityInBytes / 1024
		if disk.CapacityInBytes <= 0 {
			return nil, invalidConfig("virtualDeviceSpec.device.capacityInKB")
		}
		if backing.Uuid == "" {
			backing.Uuid = newDiskUUID()
		}
		return datastore, nil
	}
	// An existing disk: its size, identity and parents are what they are, not what the caller says.
	found, err := w.openDisk(backing.FileName)
	if err != nil {
		fault := &types.FileNotFound{FileFault: types.FileFault{File: backing.FileName}}
		return nil, &Failure{fault, "File " + backing.FileName + " was not found"}
	}
	self := types.ManagedObjectReference{}
	if vm != nil {
		self = vm.Self
		for _, has := range attachedDisks(vm.Config.Hardware.Device) {
			if has.Path() == backing.FileName {
				return nil, fileLocked(backing.FileName)
			}
		}
	}
	if owner := w.lockedBy(backing.FileName, self); owner != nil {
		if vm != nil && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
			return nil, failedToLock(backing.FileName) // a hot-add opens the disk at once
		}
		return nil, fileLocked(backing.FileName)
	}
	if changed := w.changedBelow(backing.FileName); changed != "" {
		return nil, parentChanged(changed)
	}
	disk.CapacityInBytes, disk.CapacityInKB = found.Capacity, found.Capacity/1024
	backing.Uuid = found.UUID
	backing.ThinProvisioned = types.NewBool(found.Thin)
	backing.Parent = w.parentBacking(backing, found)
	return datastore, nil
}

// parentBacking is the chain below a disk, as the API shows it.
func (w *World) parentBacking(child *types.VirtualDiskFlatVer2BackingInfo, disk *Descriptor) *types.VirtualDiskFlatVer2BackingInfo {
	name := below(child.FileName, disk.Parent)
	if name == "" {
		return nil
	}
	lower, err := w.openDisk(name)
	if err != nil {
		return nil
	}
	parent := &types.VirtualDiskFlatVer2BackingInfo{
		DiskMode: child.DiskMode, Uuid: lower.UUID, ThinProvisioned: types.NewBool(lower.Thin),
	}
	parent.FileName = name
	parent.Parent = w.parentBacking(parent, lower)
	return parent
}

// parentChanged is ESXi's answer to a disk whose parent was written after the snapshot.
func parentChanged(name string) *Failure {
	return vmConfigFault("msg.disk.parentModified",
		"The parent virtual disk has been modified since the child was created. The content ID of the parent virtual disk "+
			"does not match the corresponding parent content ID in the child. (%s)", name)
}

// checkCard refuses networks that are not there. The simulator would crash.
func (w *World) checkCard(ctx *simulator.Context, index int, card *types.VirtualEthernetCard) *Failure {
	fault := &types.InvalidDeviceBacking{InvalidDeviceSpec: types.InvalidDeviceSpec{DeviceIndex: int32(index)}}
	fault.Property = "virtualDeviceSpec.device.backing"
	invalid := &Failure{fault, fmt.Sprintf("Invalid backing of the network card (device %d).", index)}
	switch backing := card.Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		for _, network := range ctx.Map.All("Network") {
			if network.Entity().Name == backing.DeviceName {
				return w.checkMAC(card)
			}
		}
		return invalid
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		for _, group := range ctx.Map.All("DistributedVirtualPortgroup") {
			if group.Reference().Value == backing.Port.PortgroupKey {
				return w.checkMAC(card)
			}
		}
		return invalid
	case nil:
		return invalid
	}
	return w.checkMAC(card)
}

// checkMAC refuses addresses that no card can have.
func (w *World) checkMAC(card *types.VirtualEthernetCard) *Failure {
	if card.MacAddress == "" {
		return nil
	}
	var b [6]byte
	n, _ := fmt.Sscanf(strings.ToLower(card.MacAddress), "%02x:%02x:%02x:%02x:%02x:%02x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5])
	if n == 6 && b[0]&1 == 0 {
		return nil
	}
	return &Failure{
		&types.InvalidArgument{InvalidProperty: "configSpec.deviceChange.device.macAddress"},
		"A specified parameter was not correct: macAddress " + card.MacAddress,
	}
}

// noteMAC posts vCenter's event when another machine has a card's address. vCenter allows it.
func (w *World) noteMAC(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	for _, mac := range macs(vm) {
		for _, other := range w.machines() {
			if other.Self == vm.Self {
				continue
			}
			for _, taken := range macs(other) {
				if !strings.EqualFold(mac, taken) {
					continue
				}
				event := &types.VmMacConflictEvent{Mac: mac}
				event.Vm = &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vm.Name}, Vm: vm.Self}
				event.ConflictedVm = types.VmEventArgument{
					EntityEventArgument: types.EntityEventArgument{Name: other.Name}, Vm: other.Self,
				}
				w.postEvent(ctx, event)
			}
		}
	}
}

func macs(vm *simulator.VirtualMachine) []string {
	var found []string
	for _, device := range vm.Config.Hardware.Device {
		if card, ok := device.(types.BaseVirtualEthernetCard); ok {
			found = append(found, card.GetVirtualEthernetCard().MacAddress)
		}
	}
	return found
}
