package main

import (
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func datastoreName(path string) string {
	var p object.DatastorePath
	p.FromString(path)
	return p.Datastore
}

// DiskManager is VirtualDiskManager with real disks and locks.
type DiskManager struct {
	*simulator.VirtualDiskManager
	world *World
}

// CreateVirtualDiskTask makes a disk with its capacity and identity.
func (m *DiskManager) CreateVirtualDiskTask(ctx *simulator.Context, request *types.CreateVirtualDisk_Task) soap.HasFault {
	w := m.world
	task := w.start(ctx, m, "CreateVirtualDisk_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		spec, ok := request.Spec.(types.BaseFileBackedVirtualDiskSpec)
		if !ok {
			return nil, &Failure{&types.InvalidArgument{InvalidProperty: "spec"}, "A specified parameter was not correct: spec"}
		}
		capacity := spec.GetFileBackedVirtualDiskSpec().CapacityKb * 1024
		thin := spec.GetFileBackedVirtualDiskSpec().DiskType == string(types.VirtualDiskTypeThin)
		datastore := w.datastore(datastoreName(request.Name))
		if datastore != nil && !thin && w.space.free(datastore) < capacity {
			return nil, noSpace(datastore, request.Name)
		}
		answer := m.VirtualDiskManager.CreateVirtualDiskTask(ctx, request)
		result, failure := w.inner(ctx, answer, func() types.ManagedObjectReference {
			return answer.(*methods.CreateVirtualDisk_TaskBody).Res.Returnval
		})
		if failure != nil {
			return nil, failure
		}
		device := &types.VirtualDisk{CapacityInBytes: capacity}
		backing := &types.VirtualDiskFlatVer2BackingInfo{Uuid: newDiskUUID(), ThinProvisioned: &thin}
		backing.FileName = request.Name
		if err := w.furnish(Attached{device, backing}); err != nil {
			return nil, systemError("%v", err)
		}
		return result, nil
	})
	return &methods.CreateVirtualDisk_TaskBody{Res: &types.CreateVirtualDisk_TaskResponse{Returnval: task}}
}

// DeleteVirtualDiskTask removes a disk that no running machine has.
func (m *DiskManager) DeleteVirtualDiskTask(ctx *simulator.Context, request *types.DeleteVirtualDisk_Task) soap.HasFault {
	w := m.world
	task := w.start(ctx, m, "DeleteVirtualDisk_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		if _, err := w.openDisk(request.Name); err != nil {
			fault := &types.FileNotFound{FileFault: types.FileFault{File: request.Name}}
			return nil, &Failure{fault, "File " + request.Name + " was not found"}
		}
		if w.lockedBy(request.Name, types.ManagedObjectReference{}) != nil {
			return nil, fileLocked(request.Name)
		}
		w.removeDisk(request.Name)
		return nil, nil
	})
	return &methods.DeleteVirtualDisk_TaskBody{Res: &types.DeleteVirtualDisk_TaskResponse{Returnval: task}}
}

// QueryVirtualDiskUuid tells the identity in the form of the descriptor: "60 00 C2 9a …-…".
func (m *DiskManager) QueryVirtualDiskUuid(_ *simulator.Context, request *types.QueryVirtualDiskUuid) soap.HasFault {
	disk, err := m.world.openDisk(request.Name)
	if err != nil {
		fault := &types.FileNotFound{FileFault: types.FileFault{File: request.Name}}
		return &methods.QueryVirtualDiskUuidBody{Fault_: simulator.Fault("File "+request.Name+" was not found", fault)}
	}
	return &methods.QueryVirtualDiskUuidBody{
		Res: &types.QueryVirtualDiskUuidResponse{Returnval: spaced(disk.UUID)},
	}
}

// SetVirtualDiskUuid gives a disk another identity.
func (m *DiskManager) SetVirtualDiskUuid(_ *simulator.Context, request *types.SetVirtualDiskUuid) soap.HasFault {
	disk, err := m.world.openDisk(request.Name)
	if err != nil {
		fault := &types.FileNotFound{FileFault: types.FileFault{File: request.Name}}
		return &methods.SetVirtualDiskUuidBody{Fault_: simulator.Fault("File "+request.Name+" was not found", fault)}
	}
	if uuid := dashed(request.Uuid); strings.HasPrefix(uuid, "6000C29") {
		disk.UUID = uuid
	} else {
		fault := &types.InvalidArgument{InvalidProperty: "uuid"}
		return &methods.SetVirtualDiskUuidBody{Fault_: simulator.Fault("A specified parameter was not correct: uuid", fault)}
	}
	if err := disk.save(); err != nil {
		return &methods.SetVirtualDiskUuidBody{Fault_: systemError("%v", err).soap()}
	}
	return &methods.SetVirtualDiskUuidBody{Res: &types.SetVirtualDiskUuidResponse{}}
}

// FileManager is FileManager with locks.
type FileManager struct {
	*simulator.FileManager
	world *World
}

// DeleteDatastoreFileTask removes a file or folder in which no running machine has a file open.
func (m *FileManager) DeleteDatastoreFileTask(ctx *simulator.Context, request *types.DeleteDatastoreFile_Task) soap.HasFault {
	w := m.world
	task := w.start(ctx, m, "DeleteDatastoreFile_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		file := w.local(request.Name)
		if file != "" && (w.lockedFile(file) != nil || w.holdsInside(file) != nil) {
			return nil, fileLocked(request.Name)
		}
		answer := m.FileManager.DeleteDatastoreFileTask(ctx, request)
		return w.inner(ctx, answer, func() types.ManagedObjectReference {
			return answer.(*methods.DeleteDatastoreFile_TaskBody).Res.Returnval
		})
	})
	return &methods.DeleteDatastoreFile_TaskBody{Res: &types.DeleteDatastoreFile_TaskResponse{Returnval: task}}
}

// Datastore counts its space.
type Datastore struct {
	*simulator.Datastore
	world *World
}

// RefreshDatastore looks at the files again.
func (d *Datastore) RefreshDatastore(ctx *simulator.Context, _ *types.RefreshDatastore) soap.HasFault {
	d.world.space.refresh(ctx)
	return &methods.RefreshDatastoreBody{Res: &types.RefreshDatastoreResponse{}}
}
