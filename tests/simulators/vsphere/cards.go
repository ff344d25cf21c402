package main

import (
	"fmt"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// cardsOf are a machine's network cards in the order in which QEMU has them: net0, net1, …
func cardsOf(vm *simulator.VirtualMachine) []*types.VirtualEthernetCard {
	var found []*types.VirtualEthernetCard
	for _, device := range vm.Config.Hardware.Device {
		if card, ok := device.(types.BaseVirtualEthernetCard); ok {
			found = append(found, card.GetVirtualEthernetCard())
		}
	}
	return found
}

// checkLive refuses what QEMU cannot play of a change to something that is no disk. A card can be moved between networks
// that both lead out, or that both do not, and its cable can be pulled.
func (w *World) checkLive(vm *simulator.VirtualMachine, change *types.VirtualDeviceConfigSpec) *Failure {
	card, ok := change.Device.(types.BaseVirtualEthernetCard)
	if !ok || change.Operation != types.VirtualDeviceConfigSpecOperationEdit {
		return &Failure{&types.NotSupported{}, "The stand-in's QEMU takes and gives disks only while it runs."}
	}
	for _, now := range cardsOf(vm) {
		if now.Key == card.GetVirtualEthernetCard().Key && w.isolated(now) != w.isolated(card.GetVirtualEthernetCard()) {
			return &Failure{&types.NotSupported{}, "The stand-in's QEMU cannot move a card to a network without a way out, or back."}
		}
	}
	return nil
}

// plugCables makes the cables of the cards in a running QEMU what the configuration says.
func (w *World) plugCables(vm *simulator.VirtualMachine) *Failure {
	running := w.guests.get(vm.Self.Value)
	if running == nil {
		return nil
	}
	for number, card := range cardsOf(vm) {
		up := card.Connectable == nil || card.Connectable.Connected
		link := map[string]any{"name": fmt.Sprintf("net%d", number), "up": up}
		if err := running.monitor.do("set_link", link, nil); err != nil {
			return systemError("%v", err)
		}
	}
	return nil
}
