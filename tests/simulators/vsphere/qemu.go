package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const firmwareFolder = "/usr/share/OVMF"

// buses are the disk controllers that QEMU has too. A "BusLogic" has no counterpart; "LSI Logic Parallel" is played by a
// 53C895A, which few guests still have a driver for.
func busOf(controller types.BaseVirtualDevice) (device, bus string) {
	switch controller.(type) {
	case *types.ParaVirtualSCSIController:
		return "pvscsi", "scsi"
	case *types.VirtualLsiLogicSASController:
		return "mptsas1068", "scsi"
	case *types.VirtualLsiLogicController:
		return "lsi53c895a", "scsi"
	case *types.VirtualAHCIController:
		return "ich9-ahci", "ide"
	case *types.VirtualNVMEController:
		return "nvme", "nvme"
	}
	return "", ""
}

// qemuArguments is the machine as QEMU can play it.
func (w *World) qemuArguments(vm *simulator.VirtualMachine) ([]string, error) {
	hardware := vm.Config.Hardware
	arguments := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", "-accel", "tcg,thread=multi", "-cpu", "max",
		"-name", "guest=" + quoted(vm.Name), "-uuid", vm.Config.Uuid, "-rtc", "base=utc", "-boot", "strict=on",
		"-smp", strconv.Itoa(int(max(1, hardware.NumCPU))), "-m", fmt.Sprintf("%dM", max(64, hardware.MemoryMB)),
		"-chardev", "socket,id=monitor,fd=3", "-mon", "chardev=monitor,mode=control",
	}
	firmware, err := w.firmware(vm)
	if err != nil {
		return nil, err
	}
	arguments = append(arguments, firmware...)
	index := 0
	for _, device := range hardware.Device {
		kind, _ := busOf(device)
		if kind == "" || kind == "nvme" {
			continue // a namespace of QEMU's NVMe device is the device
		}
		arguments = append(arguments, "-device", fmt.Sprintf("%s,id=c%d", kind, device.GetVirtualDevice().Key))
	}
	for _, attached := range attachedDisks(hardware.Device) {
		node, front, err := w.diskDevices(vm, attached, index)
		if err != nil {
			return nil, err
		}
		arguments = append(arguments, "-blockdev", toJSON(node), "-device", toJSON(front))
		index++
	}
	network, serialNumber := 0, 0
	for _, device := range hardware.Device {
		switch d := device.(type) {
		case *types.VirtualSerialPort:
			id := fmt.Sprintf("serial%d", serialNumber)
			chardev := "null,id=" + id
			if backing, ok := d.Backing.(*types.VirtualSerialPortFileBackingInfo); ok && w.local(backing.FileName) != "" {
				chardev = "file,id=" + id + ",append=on,path=" + quoted(w.local(backing.FileName))
			}
			arguments = append(arguments, "-chardev", chardev, "-device", "isa-serial,chardev="+id)
			serialNumber++
		case *types.VirtualCdrom:
			if backing, ok := d.Backing.(*types.VirtualCdromIsoBackingInfo); ok && w.local(backing.FileName) != "" {
				id := fmt.Sprintf("cd%d", d.Key)
				arguments = append(arguments, "-blockdev",
					toJSON(map[string]any{"driver": "raw", "read-only": true, "node-name": id,
						"file": map[string]any{"driver": "file", "filename": w.local(backing.FileName)}}),
					"-device", "ide-cd,drive="+id)
			}
		case types.BaseVirtualEthernetCard:
			arguments = append(arguments, w.cardOptions(device, d.GetVirtualEthernetCard(), network)...)
			network++
		}
	}
	settings, err := guestInfo(vm)
	return append(arguments, settings...), err
}

// workerSettings is where failback's worker finds its settings, in base64.
const workerSettings = "guestinfo.failback.worker"

// guestInfo hands guestinfo.* settings to the guest as firmware configuration: /sys/firmware/qemu_fw_cfg/by_name/opt/…
// Tools read them through a port that QEMU does not have. A worker, which would ask Tools, looks below opt/failback too.
// What is changed while the guest runs it sees at its next start only; on a real machine at once.
func guestInfo(vm *simulator.VirtualMachine) ([]string, error) {
	var arguments []string
	for _, option := range vm.Config.ExtraConfig {
		value := option.GetOptionValue()
		text, ok := value.Value.(string)
		if !ok || !strings.HasPrefix(value.Key, "guestinfo.") || text == "" {
			continue
		}
		arguments = append(arguments, "-fw_cfg", "name=opt/"+value.Key+",string="+quoted(text))
		if value.Key == workerSettings {
			plain, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return nil, fmt.Errorf("%s is not in base64: %w", workerSettings, err)
			}
			arguments = append(arguments, "-fw_cfg", "name=opt/failback/worker,string="+quoted(string(plain)))
		}
	}
	return arguments, nil
}

// firmware are the options for BIOS or EFI. The variables are kept in the machine's .nvram file, in OVMF's format and not
// in VMware's; a file that is none of OVMF's is replaced.
func (w *World) firmware(vm *simulator.VirtualMachine) ([]string, error) {
	if vm.Config.Firmware != string(types.GuestOsDescriptorFirmwareTypeEfi) {
		return []string{"-machine", "q35"}, nil
	}
	secure := vm.Config.BootOptions != nil && vm.Config.BootOptions.EfiSecureBootEnabled != nil &&
		*vm.Config.BootOptions.EfiSecureBootEnabled
	code, fresh, machine := "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "q35"
	if secure {
		code, fresh, machine = "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd", "q35,smm=on"
	}
	template, err := os.ReadFile(filepath.Join(firmwareFolder, fresh))
	if err != nil {
		return nil, fmt.Errorf("there is no EFI firmware for QEMU (apt-get install ovmf): %w", err)
	}
	variables := filepath.Join(w.home(vm), vm.Name+".nvram")
	if info, err := os.Stat(variables); err != nil || info.Size() != int64(len(template)) {
		if err := os.WriteFile(variables, template, 0o600); err != nil {
			return nil, err
		}
	}
	return []string{
		"-machine", machine + ",pflash0=code,pflash1=variables",
		"-global", "driver=cfi.pflash01,property=secure,value=" + map[bool]string{true: "on", false: "off"}[secure],
		"-blockdev", toJSON(map[string]any{"driver": "raw", "node-name": "code", "read-only": true,
			"file": map[string]any{"driver": "file", "filename": filepath.Join(firmwareFolder, code)}}),
		"-blockdev", toJSON(map[string]any{"driver": "raw", "node-name": "variables",
			"file": map[string]any{"driver": "file", "filename": variables}}),
	}, nil
}

// cardOptions put a card on QEMU's user network: the guest reaches us at 10.0.2.2 and what we reach. On a switch without
// a way out it reaches nothing.
func (w *World) cardOptions(device types.BaseVirtualDevice, card *types.VirtualEthernetCard, number int) []string {
	kind := "e1000e"
	switch device.(type) {
	case *types.VirtualVmxnet3:
		kind = "vmxnet3"
	case *types.VirtualE1000:
		kind = "e1000"
	case *types.VirtualPCNet32:
		kind = "pcnet"
	}
	id := fmt.Sprintf("net%d", number)
	restrict := ""
	if w.isolated(card) {
		restrict = ",restrict=on"
	}
	mac := ""
	if card.MacAddress != "" {
		mac = ",mac=" + card.MacAddress
	}
	return []string{"-netdev", "user,id=" + id + restrict, "-device", kind + ",netdev=" + id + mac}
}

// quoted is a value inside a comma-separated option.
func quoted(value string) string { return strings.ReplaceAll(value, ",", ",,") }
