package main

import (
	"os"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// RefreshStorageInfo makes layoutEx list the disks' files with the sizes that they have now. Until it is called the list
// is an old one, which the simulator made without knowing the files.
func (m *Machine) RefreshStorageInfo(ctx *simulator.Context, _ *types.RefreshStorageInfo) soap.HasFault {
	layout := types.VirtualMachineFileLayoutEx{Timestamp: time.Now()}
	add := func(name, kind string, size int64) int32 {
		key := int32(len(layout.File))
		layout.File = append(layout.File, types.VirtualMachineFileLayoutExFileInfo{
			Key: key, Name: name, Type: kind, Size: size, UniqueSize: size, Accessible: types.NewBool(true),
		})
		return key
	}
	for _, attached := range attachedDisks(m.Config.Hardware.Device) {
		disk := types.VirtualMachineFileLayoutExDiskLayout{Key: attached.Device.Key}
		names, err := m.world.chain(attached.Path())
		if err != nil {
			continue // it says nothing of a disk that cannot be read
		}
		for number := len(names) - 1; number >= 0; number-- {
			file, err := m.world.openDisk(names[number])
			if err != nil {
				continue
			}
			descriptor := int64(0)
			if info, err := os.Stat(file.File); err == nil {
				descriptor = info.Size()
			}
			var path object.DatastorePath
			path.FromString(names[number])
			extent := object.DatastorePath{Datastore: path.Datastore, Path: path.Path[:len(path.Path)-len(".vmdk")] + "-extent.vmdk"}
			disk.Chain = append(disk.Chain, types.VirtualMachineFileLayoutExDiskUnit{FileKey: []int32{
				add(names[number], string(types.VirtualMachineFileLayoutExFileTypeDiskDescriptor), descriptor),
				add(extent.String(), string(types.VirtualMachineFileLayoutExFileTypeDiskExtent), allocated(file.Blocks())),
			}})
		}
		layout.Disk = append(layout.Disk, disk)
	}
	ctx.Update(m.VirtualMachine, []types.PropertyChange{{Name: "layoutEx", Val: layout}})
	return &methods.RefreshStorageInfoBody{Res: &types.RefreshStorageInfoResponse{}}
}
