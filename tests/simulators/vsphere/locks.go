package main

import (
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// lockedBy is the powered-on machine that has a disk's file open (itself, or as a parent of another), nil for none.
// A host locks the files of every disk of a running machine, whatever the datastore's type.
func (w *World) lockedBy(name string, except types.ManagedObjectReference) *simulator.VirtualMachine {
	for _, vm := range w.machines() {
		if vm.Self == except || vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
			continue
		}
		for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
			names, _ := w.chain(disk.Path())
			for _, held := range names {
				if held == name {
					return vm
				}
			}
		}
	}
	return nil
}

// lockedFile says the same of a file on a datastore: descriptor or blocks, in a local path.
func (w *World) lockedFile(file string) *simulator.VirtualMachine {
	for _, vm := range w.machines() {
		if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
			continue
		}
		if vmx := w.local(vm.Config.Files.VmPathName); vmx == file {
			return vm
		}
		for _, attached := range attachedDisks(vm.Config.Hardware.Device) {
			names, _ := w.chain(attached.Path())
			for _, name := range names {
				disk, err := w.openDisk(name)
				if err == nil && (disk.File == file || disk.Blocks() == file) {
					return vm
				}
			}
		}
	}
	return nil
}

// holdsInside says whether a running machine has a file open below a folder.
func (w *World) holdsInside(folder string) *simulator.VirtualMachine {
	for _, vm := range w.machines() {
		if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
			continue
		}
		files := []string{w.local(vm.Config.Files.VmPathName)}
		for _, attached := range attachedDisks(vm.Config.Hardware.Device) {
			files = append(files, w.local(attached.Path()))
		}
		for _, file := range files {
			if inside, err := filepath.Rel(folder, file); err == nil && !strings.HasPrefix(inside, "..") {
				return vm
			}
		}
	}
	return nil
}

// failedToLock is what a machine's power-on and a hot-add end with when another host's machine has the disk. The texts
// are ESXi's; that vCenter passes them on in a GenericVmConfigFault is unverified.
func failedToLock(name string) *Failure {
	failure := vmConfigFault("msg.fileio.lock", "Failed to lock the file")
	fault := failure.Fault.(*types.GenericVmConfigFault)
	fault.FaultMessage = append(fault.FaultMessage, types.LocalizableMessage{
		Key:     "msg.disk.noBackEnd",
		Message: "Cannot open the disk '" + name + "' or one of the snapshot disks it depends on.",
	})
	failure.Text = "Failed to lock the file. Cannot open the disk '" + name +
		"' or one of the snapshot disks it depends on."
	return failure
}

// fileLocked is the answer to whoever wants to attach, move or delete a file that a running machine has. Unverified.
func fileLocked(name string) *Failure {
	fault := &types.FileLocked{FileFault: types.FileFault{File: name}}
	return &Failure{fault, "Unable to access file " + name + " since it is locked"}
}
