package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Report is the answer to GET /report.
type Report struct {
	Calls    map[string]int          `json:"calls"` // how often each method was called, "NFC POST" and "folder GET" too
	Log      []Call                  `json:"log"`
	Uploads  map[string]Transfer     `json:"uploads"` // by the disk's datastore path
	Machines map[string]MachineState `json:"machines"`
	Disks    map[string]DiskState    `json:"disks"`
	Orphans  []string                `json:"orphans"` // disks and folders of no machine
	Leases   []LeaseState            `json:"leases"`  // that are open
	Sessions int                     `json:"sessions"`
	Problems []string                `json:"problems"` // of the stand-in itself: a test should fail on them
}

// MachineState is a machine as a test that plays the guest sees it.
type MachineState struct {
	ID        string         `json:"id"`
	Power     string         `json:"power"`
	Booted    *time.Time     `json:"booted"` // when it was switched on last
	Disks     []AttachedDisk `json:"disks"`
	Snapshots []string       `json:"snapshots"`
	Leased    bool           `json:"leased"`
	QEMU      bool           `json:"qemu"`
	Serial    string         `json:"serial"` // local file of the first serial port's output
	Version   string         `json:"change_version"`
}

// AttachedDisk is one disk of a machine.
type AttachedDisk struct {
	Path       string `json:"path"`
	File       string `json:"file"` // local: the blocks
	Format     string `json:"format"`
	UUID       string `json:"uuid"`
	Capacity   int64  `json:"capacity"`
	Controller int32  `json:"controller"`
	Unit       int32  `json:"unit"`
	Mode       string `json:"mode"`
	Written    int64  `json:"written"` // by QEMU since power-on
}

// DiskState is a disk on a datastore.
type DiskState struct {
	File      string `json:"file"`
	Format    string `json:"format"`
	Parent    string `json:"parent"`
	UUID      string `json:"uuid"`
	Capacity  int64  `json:"capacity"`
	Allocated int64  `json:"allocated"`
	Thin      bool   `json:"thin"`
	Broken    string `json:"broken"` // the disk below that was written although this one lies on it
	LockedBy  string `json:"locked_by"`
}

// LeaseState is an open lease.
type LeaseState struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Percent int32  `json:"percent"`
	Machine string `json:"machine"`
}

func (w *World) report() *Report {
	r := &Report{
		Machines: map[string]MachineState{}, Disks: map[string]DiskState{}, Orphans: []string{}, Leases: []LeaseState{},
		Uploads: map[string]Transfer{}, Sessions: len(w.sessionList()),
	}
	w.tally.mu.Lock()
	r.Calls, r.Log = maps.Clone(w.tally.calls), slices.Clone(w.tally.log)
	r.Problems = append([]string{}, w.tally.problems...)
	for disk, transfer := range w.tally.transfer {
		r.Uploads[disk] = *transfer
	}
	w.tally.mu.Unlock()
	used := map[string]bool{}
	for _, vm := range w.machines() {
		r.Machines[vm.Name] = w.machineState(vm)
		for _, name := range w.filesOf(vm) {
			used[name] = true
		}
	}
	for _, datastore := range w.datastores() {
		for _, name := range w.descriptors(datastore) {
			disk, err := w.openDisk(name)
			if err != nil {
				r.Orphans = append(r.Orphans, name+" ("+err.Error()+")")
				continue
			}
			state := DiskState{
				File: disk.Blocks(), Format: disk.Format(), Parent: below(name, disk.Parent), UUID: disk.UUID,
				Capacity: disk.Capacity, Allocated: allocated(disk.Blocks()), Thin: disk.Thin, Broken: w.changedBelow(name),
			}
			if owner := w.lockedBy(name, types.ManagedObjectReference{}); owner != nil {
				state.LockedBy = owner.Name
			}
			r.Disks[name] = state
			if !used[name] {
				r.Orphans = append(r.Orphans, name)
			}
		}
		r.Orphans = append(r.Orphans, w.strayFiles(datastore, used)...)
	}
	slices.Sort(r.Orphans)
	for _, lease := range w.openLeases() {
		r.Leases = append(r.Leases, w.leaseState(lease))
	}
	return r
}

func (w *World) openLeases() []*Lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []*Lease
	for _, lease := range w.leases {
		if lease.isOpen() {
			found = append(found, lease)
		}
	}
	return found
}

func (w *World) leaseState(lease *Lease) LeaseState {
	var state LeaseState
	ctx := w.background(lease.session)
	ctx.WithLock(lease, func() {
		state = LeaseState{ID: lease.Self.Value, State: string(lease.State), Percent: lease.TransferProgress}
		if lease.Info != nil {
			state.Machine = lease.Info.Entity.Value
		}
	})
	return state
}

func (w *World) machineState(vm *simulator.VirtualMachine) MachineState {
	state := MachineState{
		ID: vm.Self.Value, Power: string(vm.Runtime.PowerState), Booted: vm.Runtime.BootTime, Leased: w.leaseOn(vm.Self) != nil,
		QEMU: w.guests.get(vm.Self.Value) != nil, Serial: w.serialFile(vm), Version: vm.Config.ChangeVersion,
		Disks: []AttachedDisk{}, Snapshots: []string{},
	}
	if vm.Snapshot != nil {
		for _, tree := range vm.Snapshot.RootSnapshotList {
			state.Snapshots = append(state.Snapshots, snapshotNames(tree)...)
		}
	}
	written := w.guests.written(vm.Self.Value)
	for _, attached := range attachedDisks(vm.Config.Hardware.Device) {
		disk := AttachedDisk{
			Path: attached.Path(), UUID: attached.Backing.Uuid, Capacity: attached.Device.CapacityInBytes,
			Controller: attached.Device.ControllerKey, Mode: attached.Backing.DiskMode,
			Written: written[deviceName(attached.Device.Key)],
		}
		if attached.Device.UnitNumber != nil {
			disk.Unit = *attached.Device.UnitNumber
		}
		if descriptor, err := w.openDisk(attached.Path()); err == nil {
			disk.File, disk.Format = descriptor.Blocks(), descriptor.Format()
		}
		state.Disks = append(state.Disks, disk)
	}
	return state
}

func snapshotNames(tree types.VirtualMachineSnapshotTree) []string {
	names := []string{tree.Name}
	for _, child := range tree.ChildSnapshotList {
		names = append(names, snapshotNames(child)...)
	}
	return names
}

// filesOf are the disks of a machine and its snapshots with what lies below each, and its home.
func (w *World) filesOf(vm *simulator.VirtualMachine) []string {
	devices := [][]types.BaseVirtualDevice{vm.Config.Hardware.Device}
	for _, snapshot := range w.snapshotsOf(vm) {
		devices = append(devices, snapshot.Config.Hardware.Device)
	}
	names := []string{filepath.Dir(w.local(vm.Config.Files.VmPathName))}
	for _, list := range devices {
		for _, attached := range attachedDisks(list) {
			chain, _ := w.chain(attached.Path())
			names = append(names, chain...)
		}
	}
	return names
}

// strayFiles are folders of no machine that hold a machine's configuration, and blocks without a descriptor.
func (w *World) strayFiles(datastore *simulator.Datastore, used map[string]bool) []string {
	var found []string
	_ = filepath.WalkDir(datastore.Summary.Url, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		inside, _ := filepath.Rel(datastore.Summary.Url, file)
		switch {
		case filepath.Ext(file) == ".vmx" && !used[filepath.Dir(file)]:
			found = append(found, "["+datastore.Name+"] "+inside)
		case isBlocks(file):
			stem := strings.TrimSuffix(strings.TrimSuffix(file, "-flat.vmdk"), "-sesparse.vmdk")
			if _, err := os.Stat(stem + ".vmdk"); err != nil {
				found = append(found, "["+datastore.Name+"] "+inside)
			}
		}
		return nil
	})
	return found
}
