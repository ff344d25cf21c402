package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func nodeName(key int32) string   { return fmt.Sprintf("n%d", key) }
func deviceName(key int32) string { return fmt.Sprintf("d%d", key) }

// diskDevices are QEMU's back end and front end of a disk. Its UUID is the serial number that the guest sees, when the
// machine has disk.EnableUUID. `index` is the place in the order of booting; negative: none.
func (w *World) diskDevices(vm *simulator.VirtualMachine, attached Attached, index int) (node, front map[string]any, err error) {
	key := attached.Device.Key
	if attached.forgets() {
		node, err = w.redoNode(vm, attached)
	} else {
		node, err = w.blockNode(attached.Path(), nodeName(key), 0)
	}
	if err != nil {
		return nil, nil, err
	}
	var kind string
	for _, device := range vm.Config.Hardware.Device {
		if device.GetVirtualDevice().Key == attached.Device.ControllerKey {
			_, kind = busOf(device)
		}
	}
	unit := int32(0)
	if attached.Device.UnitNumber != nil {
		unit = *attached.Device.UnitNumber
	}
	bus := fmt.Sprintf("c%d.%d", attached.Device.ControllerKey, unit)
	front = map[string]any{"drive": nodeName(key), "id": deviceName(key)}
	switch kind {
	case "scsi":
		front["driver"], front["bus"], front["scsi-id"] = "scsi-hd", fmt.Sprintf("c%d.0", attached.Device.ControllerKey), unit
		front["vendor"], front["product"] = "VMware", "Virtual disk"
		front["wwn"] = wwn(attached.Backing.Uuid)
	case "ide":
		front["driver"], front["bus"] = "ide-hd", bus
	case "nvme":
		front["driver"], front["serial"] = "nvme", fmt.Sprintf("nvme-%d", key)
	default:
		return nil, nil, fmt.Errorf("QEMU has no counterpart for the controller of %s", attached.Path())
	}
	number := serial(attached.Backing.Uuid)
	switch {
	case kind == "scsi" && enabledUUID(vm):
		front["serial"] = number
	case kind == "nvme" && enabledUUID(vm), kind == "ide" && enabledUUID(vm):
		front["serial"] = number[:20] // as much as their protocols have room for
	}
	if index >= 0 {
		front["bootindex"] = index
	}
	return node, front, nil
}

// wwn is a number without which Linux' mptsas driver passes a disk of QEMU over.
func wwn(uuid string) uint64 {
	number, _ := strconv.ParseUint(serial(uuid)[16:], 16, 64)
	return 0x5<<60 | number>>4
}

func enabledUUID(vm *simulator.VirtualMachine) bool {
	return slices.ContainsFunc(vm.Config.ExtraConfig, func(option types.BaseOptionValue) bool {
		value := option.GetOptionValue()
		return strings.EqualFold(value.Key, "disk.EnableUUID") && strings.EqualFold(fmt.Sprint(value.Value), "true")
	})
}

// blockNode describes a disk and what lies below it.
func (w *World) blockNode(name, node string, depth int) (map[string]any, error) {
	disk, err := w.openDisk(name)
	if err != nil {
		return nil, err
	}
	options := map[string]any{
		"driver": disk.Format(), "node-name": node, "discard": "unmap",
		"file": map[string]any{"driver": "file", "filename": disk.Blocks(), "discard": "unmap"},
	}
	if depth > 0 {
		options["read-only"] = true
	}
	if parent := below(name, disk.Parent); parent != "" {
		lower, err := w.blockNode(parent, fmt.Sprintf("%s-%d", strings.SplitN(node, "-", 2)[0], depth+1), depth+1)
		if err != nil {
			return nil, err
		}
		options["backing"] = lower
	}
	return options, nil
}

// redoLog is the file that a running machine's writes to a nonpersistent disk go to.
func (w *World) redoLog(vm *simulator.VirtualMachine, attached Attached) string {
	return filepath.Join(w.home(vm), fmt.Sprintf("redo-%d.REDO", attached.Device.Key))
}

// redoNode describes a disk that is only read, below a fresh redo log.
func (w *World) redoNode(vm *simulator.VirtualMachine, attached Attached) (map[string]any, error) {
	node := nodeName(attached.Device.Key)
	lower, err := w.blockNode(attached.Path(), node+"-1", 1)
	if err != nil {
		return nil, err
	}
	file := w.redoLog(vm, attached)
	command := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", file, fmt.Sprint(attached.Device.CapacityInBytes))
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %s", file, strings.TrimSpace(string(output)))
	}
	return map[string]any{
		"driver": "qcow2", "node-name": node, "discard": "unmap", "backing": lower,
		"file": map[string]any{"driver": "file", "filename": file, "discard": "unmap"},
	}, nil
}

// plug adds a disk to a machine that is running.
func (w *World) plug(vm *simulator.VirtualMachine, attached Attached) *Failure {
	running := w.guests.get(vm.Self.Value)
	if running == nil {
		return nil
	}
	node, front, err := w.diskDevices(vm, attached, -1)
	if err == nil {
		err = running.monitor.do("blockdev-add", node, nil)
	}
	if err == nil {
		if err = running.monitor.do("device_add", front, nil); err != nil {
			_ = running.monitor.do("blockdev-del", map[string]any{"node-name": nodeName(attached.Device.Key)}, nil)
		}
	}
	if err != nil {
		return vmConfigFault("msg.hotplug.add", "Failed to add disk '%s': %v", attached.Path(), err)
	}
	return nil
}

// unplug takes a disk out of a machine that is running: its bytes are in the file when it returns.
func (w *World) unplug(vm *simulator.VirtualMachine, attached Attached) *Failure {
	if attached.forgets() {
		defer os.Remove(w.redoLog(vm, attached))
	}
	running := w.guests.get(vm.Self.Value)
	if running == nil {
		return nil
	}
	files, err := w.chain(attached.Path())
	if err != nil {
		return systemError("%v", err)
	}
	var nodes []string
	if attached.forgets() {
		nodes = append(nodes, nodeName(attached.Device.Key))
	}
	for _, file := range files {
		disk, err := w.openDisk(file)
		if err != nil {
			return systemError("%v", err)
		}
		if node, err := running.nodeOf(disk.Blocks()); err == nil && node != "" {
			nodes = append(nodes, node)
		}
	}
	name := deviceName(attached.Device.Key)
	err = running.monitor.do("device_del", map[string]any{"id": name}, nil)
	if err == nil {
		err = running.monitor.await("DEVICE_DELETED", func(data map[string]any) bool { return data["device"] == name })
	}
	for i, node := range nodes {
		if err == nil {
			deleted := running.monitor.do("blockdev-del", map[string]any{"node-name": node}, nil)
			if i == 0 { // those below may have gone with it
				err = deleted
			}
		}
	}
	if err != nil {
		return vmConfigFault("msg.hotplug.remove", "Failed to remove disk '%s': %v", attached.Path(), err)
	}
	return nil
}

func toJSON(options map[string]any) string {
	text, _ := json.Marshal(options)
	return string(text)
}
