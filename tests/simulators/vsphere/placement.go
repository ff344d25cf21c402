package main

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// place chooses the host of a new machine: the first of the pool's that sees its networks, as DRS does, or the one that
// was asked for. A host that does not see a network cannot take the machine.
func (w *World) place(ctx *simulator.Context, request *types.CreateVM_Task) *Failure {
	hosts := w.hostsOf(ctx, request.Pool)
	if request.Host != nil {
		if !slices.Contains(hosts, *request.Host) {
			fault := &types.InvalidArgument{InvalidProperty: "host"}
			return &Failure{fault, "A specified parameter was not correct: host is not in the resource pool's cluster"}
		}
		hosts = []types.ManagedObjectReference{*request.Host}
	}
	for _, ref := range hosts {
		host, ok := ctx.Map.Get(ref).(*simulator.HostSystem)
		if ok && w.sees(ctx, host, &request.Config) {
			request.Host = &ref
			return nil
		}
	}
	fault := &types.InvalidDeviceBacking{}
	fault.Property = "virtualDeviceSpec.device.backing"
	return &Failure{fault, "No host of the resource pool has the networks of the machine."}
}

// hostsOf are the hosts of the compute resource that a pool belongs to.
func (w *World) hostsOf(ctx *simulator.Context, pool types.ManagedObjectReference) []types.ManagedObjectReference {
	for ref := &pool; ref != nil; {
		switch object := ctx.Map.Get(*ref).(type) {
		case *simulator.ClusterComputeResource:
			return object.Host
		case *mo.ComputeResource:
			return object.Host
		case mo.Entity:
			ref = object.Entity().Parent
		default:
			return nil
		}
	}
	return nil
}

func (w *World) sees(ctx *simulator.Context, host *simulator.HostSystem, spec *types.VirtualMachineConfigSpec) bool {
	for _, change := range spec.DeviceChange {
		card, ok := change.GetVirtualDeviceConfigSpec().Device.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		backing, standard := card.GetVirtualEthernetCard().Backing.(*types.VirtualEthernetCardNetworkBackingInfo)
		if standard && !slices.ContainsFunc(host.Config.Network.Portgroup, func(group types.HostPortGroup) bool {
			return group.Spec.Name == backing.DeviceName
		}) {
			return false
		}
	}
	return true
}
