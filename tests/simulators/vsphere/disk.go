package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Attached is a disk of a machine.
type Attached struct {
	Device  *types.VirtualDisk
	Backing *types.VirtualDiskFlatVer2BackingInfo
}

// Path is the disk's name, "[datastore] folder/disk.vmdk".
func (a Attached) Path() string { return a.Backing.FileName }

func attachedDisks(devices []types.BaseVirtualDevice) []Attached {
	var found []Attached
	for _, device := range devices {
		if disk, ok := device.(*types.VirtualDisk); ok {
			if backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
				found = append(found, Attached{disk, backing})
			}
		}
	}
	return found
}

// snapshotable says whether snapshots catch the disk.
func (a Attached) snapshotable() bool {
	return !strings.HasPrefix(a.Backing.DiskMode, "independent")
}

// forgets says whether what the machine writes to the disk is thrown away: it lands in a redo log that goes when the disk
// is unplugged or the machine is switched off.
func (a Attached) forgets() bool { return a.Backing.DiskMode == "independent_nonpersistent" }

func (w *World) openDisk(name string) (*Descriptor, error) {
	file := w.local(name)
	if file == "" {
		return nil, fmt.Errorf("%s names no file of a datastore", name)
	}
	return readDescriptor(file)
}

// chain is the disk and what lies below it, the base last, by datastore path.
func (w *World) chain(name string) ([]string, error) {
	var names []string
	for name != "" {
		if len(names) > 64 {
			return nil, fmt.Errorf("%s lies on itself", name)
		}
		disk, err := w.openDisk(name)
		if err != nil {
			return names, err
		}
		names = append(names, name)
		name = below(name, disk.Parent)
	}
	return names, nil
}

// below is the datastore path of a disk's parent, empty for none.
func below(name, hint string) string {
	if hint == "" || strings.HasPrefix(hint, "[") {
		return hint
	}
	var p object.DatastorePath
	p.FromString(name)
	p.Path = path.Join(path.Dir(p.Path), hint)
	return p.String()
}

// furnish gives a disk that the simulator made what it leaves out: a capacity, an identity, a kind.
func (w *World) furnish(a Attached) error {
	disk, err := w.openDisk(a.Path())
	if err != nil {
		return err
	}
	disk.Capacity, disk.UUID, disk.CID = a.Device.CapacityInBytes, a.Backing.Uuid, randomCID()
	disk.Thin = a.Backing.ThinProvisioned != nil && *a.Backing.ThinProvisioned
	if err := disk.save(); err != nil {
		return err
	}
	return os.Truncate(disk.Blocks(), disk.Capacity)
}

// growDisk follows an extended capacity.
func (w *World) growDisk(a Attached) error {
	disk, err := w.openDisk(a.Path())
	if err != nil {
		return err
	}
	if disk.Capacity == a.Device.CapacityInBytes {
		return nil
	}
	disk.Capacity = a.Device.CapacityInBytes
	if err := disk.save(); err != nil {
		return err
	}
	return os.Truncate(disk.Blocks(), disk.Capacity)
}

// removeDisk removes descriptor and blocks, whatever is missing.
func (w *World) removeDisk(name string) {
	if disk, err := w.openDisk(name); err == nil {
		os.Remove(disk.Blocks())
	}
	if file := w.local(name); file != "" {
		os.Remove(file)
	}
}

// changedBelow names a disk that was written although another lies on top of it: the upper one is worth nothing now.
func (w *World) changedBelow(name string) string {
	for name != "" {
		disk, err := w.openDisk(name)
		if err != nil {
			return ""
		}
		parent := below(name, disk.Parent)
		if parent == "" {
			return ""
		}
		lower, err := w.openDisk(parent)
		if err != nil || stamp(lower.Blocks()) != disk.Stamp {
			return parent
		}
		name = parent
	}
	return ""
}

// stamp is the time of a file's last write.
func stamp(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return -1
	}
	return info.ModTime().UnixNano()
}

// allocated is how many bytes a file takes on its file system.
func allocated(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// relations are all disks of the datastores: each one's parent, empty for a base disk.
func (w *World) relations() map[string]string {
	found := map[string]string{}
	for _, datastore := range w.datastores() {
		for _, name := range w.descriptors(datastore) {
			if disk, err := w.openDisk(name); err == nil {
				found[name] = below(name, disk.Parent)
			}
		}
	}
	return found
}

// descriptors are the datastore paths of all disks on a datastore.
func (w *World) descriptors(datastore *simulator.Datastore) []string {
	var names []string
	root := datastore.Summary.Url
	_ = filepath.WalkDir(root, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".vmdk" || isBlocks(file) {
			return nil
		}
		inside, _ := filepath.Rel(root, file)
		names = append(names, (&object.DatastorePath{Datastore: datastore.Name, Path: inside}).String())
		return nil
	})
	return names
}

func isBlocks(file string) bool {
	return strings.HasSuffix(file, "-flat.vmdk") || strings.HasSuffix(file, "-sesparse.vmdk")
}
