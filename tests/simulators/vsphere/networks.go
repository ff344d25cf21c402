package main

import (
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// networkOf is the network that a card is on, nil when it is on none that exists.
func networkOf(ctx *simulator.Context, card *types.VirtualEthernetCard) *types.ManagedObjectReference {
	switch backing := card.Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		for _, network := range ctx.Map.All("Network") {
			if network.Entity().Name == backing.DeviceName {
				ref := network.Reference()
				return &ref
			}
		}
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		for _, group := range ctx.Map.All("DistributedVirtualPortgroup") {
			if ref := group.Reference(); ref.Value == backing.Port.PortgroupKey {
				return &ref
			}
		}
	}
	return nil
}

// datastoreOf is where a new disk goes.
func datastoreOf(
	ctx *simulator.Context, name string, given *types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
) *types.ManagedObjectReference {
	var path object.DatastorePath
	if !path.FromString(name) {
		if given != nil {
			return given
		}
		if spec.Files == nil || !path.FromString(spec.Files.VmPathName) {
			return nil
		}
	}
	for _, datastore := range ctx.Map.All("Datastore") {
		if datastore.Entity().Name == path.Datastore {
			ref := datastore.Reference()
			return &ref
		}
	}
	return nil
}

// isolated says whether a card is on a standard switch without a network adapter: nothing leaves it. Port groups of
// distributed switches are taken to have a way out.
func (w *World) isolated(card *types.VirtualEthernetCard) bool {
	backing, ok := card.Backing.(*types.VirtualEthernetCardNetworkBackingInfo)
	if !ok {
		return false
	}
	for _, reference := range w.model.Map().AllReference("HostNetworkSystem") {
		system, ok := reference.(*simulator.HostNetworkSystem)
		if !ok || system.NetworkInfo == nil {
			continue
		}
		for _, group := range system.NetworkInfo.Portgroup {
			if group.Spec.Name != backing.DeviceName {
				continue
			}
			for _, vswitch := range system.NetworkInfo.Vswitch {
				if vswitch.Name == group.Spec.VswitchName && len(vswitch.Pnic) == 0 {
					return true
				}
			}
		}
	}
	return false
}
