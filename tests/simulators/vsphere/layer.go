package main

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

var layerSuffix = regexp.MustCompile(`-\d{6}$`)

// layerName is the first free name for a layer of a disk: disk-000001.vmdk, as hosts name them.
func (w *World) layerName(name string) string {
	var p object.DatastorePath
	p.FromString(name)
	stem := layerSuffix.ReplaceAllString(strings.TrimSuffix(p.Path, ".vmdk"), "")
	for number := 1; ; number++ {
		p.Path = fmt.Sprintf("%s-%06d.vmdk", stem, number)
		if _, err := os.Stat(w.local(p.String())); err != nil {
			return p.String()
		}
	}
}

// addLayer puts a qcow2 file on top of a disk, in the running machine too, and returns its name.
func (w *World) addLayer(vm *simulator.VirtualMachine, attached Attached) (string, error) {
	lower, err := w.openDisk(attached.Path())
	if err != nil {
		return "", err
	}
	name := w.layerName(attached.Path())
	file := w.local(name)
	disk := &Descriptor{
		File: file, CID: randomCID(), Parent: filepath.Base(lower.File), Capacity: lower.Capacity, UUID: lower.UUID, Thin: true,
		Extent: strings.TrimSuffix(filepath.Base(file), ".vmdk") + "-sesparse.vmdk",
	}
	command := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", lower.Format(), "-b", lower.Blocks(),
		disk.Blocks(), fmt.Sprint(disk.Capacity))
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %s", name, strings.TrimSpace(string(output)))
	}
	if running := w.guests.get(vm.Self.Value); running != nil {
		if err := running.addLayer(lower.Blocks(), disk.Blocks()); err != nil {
			return "", err
		}
	}
	disk.Stamp = stamp(lower.Blocks())
	return name, disk.save()
}

// changedUpon says whether a disk was written after a layer was put on it.
func (w *World) changedUpon(name string) bool {
	for upper, parent := range w.relations() {
		if parent == name && w.changedBelow(upper) == name {
			return true
		}
	}
	return false
}

// consolidate removes layers that neither the machine nor one of its snapshots uses, and merges a disk that nobody uses
// directly with the only layer on it. The merged disk has the lower one's name.
func (w *World) consolidate(ctx *simulator.Context, vm *simulator.VirtualMachine) *Failure {
	for {
		pinned, roots := w.pinned(vm)
		children := map[string][]string{}
		parents := w.relations()
		for name, parent := range parents {
			if parent != "" && roots[path.Dir(parent)] {
				children[parent] = append(children[parent], name)
			}
		}
		again := false
		for name, parent := range parents {
			if !roots[path.Dir(name)] || pinned[name] {
				continue
			}
			switch {
			case len(children[name]) == 0 && parent != "":
				w.removeDisk(name)
				again = true
			case len(children[name]) == 1:
				if err := w.merge(ctx, vm, children[name][0], name); err != nil {
					return systemError("%v", err)
				}
				again = true
			}
			if again {
				break
			}
		}
		if !again {
			return nil
		}
	}
}

// pinned are the disks that the machine or a snapshot uses directly, and the folders in which its disks lie.
func (w *World) pinned(vm *simulator.VirtualMachine) (names, folders map[string]bool) {
	names, folders = map[string]bool{}, map[string]bool{}
	lists := [][]types.BaseVirtualDevice{vm.Config.Hardware.Device}
	for _, snapshot := range w.snapshotsOf(vm) {
		lists = append(lists, snapshot.Config.Hardware.Device)
	}
	for _, list := range lists {
		for _, disk := range attachedDisks(list) {
			names[disk.Path()] = true
			folders[path.Dir(disk.Path())] = true
		}
	}
	return names, folders
}

// merge writes what `upper` holds into `lower`, and makes everybody who used the upper one use the lower one.
func (w *World) merge(ctx *simulator.Context, vm *simulator.VirtualMachine, upper, lower string) error {
	above, err := w.openDisk(upper)
	if err != nil {
		return err
	}
	under, err := w.openDisk(lower)
	if err != nil {
		return err
	}
	running := w.guests.get(vm.Self.Value)
	if running != nil {
		err = running.commit(above.Blocks(), under.Blocks())
	} else {
		err = commitFile(above, under)
	}
	if err != nil {
		return err
	}
	for name, parent := range w.relations() {
		if parent != upper {
			continue
		}
		disk, err := w.openDisk(name)
		if err != nil {
			return err
		}
		if running == nil {
			command := exec.Command("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", under.Format(), "-b", under.Blocks(),
				disk.Blocks())
			if output, err := command.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %s", name, strings.TrimSpace(string(output)))
			}
		}
		disk.Parent, disk.Stamp = filepath.Base(under.File), stamp(under.Blocks())
		if err := disk.save(); err != nil {
			return err
		}
	}
	w.removeDisk(upper)
	for _, disk := range attachedDisks(vm.Config.Hardware.Device) {
		w.pointAt(ctx, vm, disk.Device.Key, replaced(disk.Path(), upper, lower))
	}
	for _, snapshot := range w.snapshotsOf(vm) {
		for i, device := range snapshot.Config.Hardware.Device {
			if disk, ok := device.(*types.VirtualDisk); ok {
				name := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo).FileName
				snapshot.Config.Hardware.Device[i] = w.pointed(disk, replaced(name, upper, lower))
			}
		}
	}
	return nil
}

func replaced(name, old, other string) string {
	if name == old {
		return other
	}
	return name
}

func commitFile(above, under *Descriptor) error {
	command := exec.Command("qemu-img", "commit", "-q", "-d", "-f", "qcow2", above.Blocks())
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s into %s: %s", above.File, under.File, strings.TrimSpace(string(output)))
	}
	return nil
}
