package main

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// NetworkSystem is a host's standard switches and port groups. Port groups of the same name on several hosts are one
// network, as in vCenter; a switch keeps its uplinks, so that one without any can be told.
type NetworkSystem struct {
	*simulator.HostNetworkSystem
	world *World
}

// furnishNetworks gives every host switches of its own, the first with its uplink: the simulator's share what they have.
func (w *World) furnishNetworks() {
	for _, reference := range w.model.Map().AllReference("HostNetworkSystem") {
		system := reference.(*simulator.HostNetworkSystem)
		if system.Host == nil || system.Host.Config == nil || system.Host.Config.Network == nil {
			continue
		}
		config, network := *system.Host.Config, *system.Host.Config.Network
		network.Vswitch, network.Portgroup = slices.Clone(network.Vswitch), slices.Clone(network.Portgroup)
		config.Network = &network
		system.Host.Config = &config
		info := network
		system.NetworkInfo = &info
	}
}

// show puts changed switches and port groups where clients look for them.
func (s *NetworkSystem) show(ctx *simulator.Context, switches []types.HostVirtualSwitch, groups []types.HostPortGroup) {
	ctx.Update(s.HostNetworkSystem, []types.PropertyChange{
		{Name: "networkInfo.vswitch", Val: switches}, {Name: "networkInfo.portgroup", Val: groups},
	})
	host := ctx.Map.Get(s.Host.Self).(*simulator.HostSystem)
	ctx.WithLock(host, func() {
		ctx.Update(host, []types.PropertyChange{
			{Name: "config.network.vswitch", Val: switches}, {Name: "config.network.portgroup", Val: groups},
		})
	})
}

func (s *NetworkSystem) switchNamed(name string) int {
	return slices.IndexFunc(s.NetworkInfo.Vswitch, func(v types.HostVirtualSwitch) bool { return v.Name == name })
}

func (s *NetworkSystem) groupNamed(name string) int {
	return slices.IndexFunc(s.NetworkInfo.Portgroup, func(g types.HostPortGroup) bool { return g.Spec.Name == name })
}

// AddVirtualSwitch makes a switch. Without a bridge in its specification it has no uplink.
func (s *NetworkSystem) AddVirtualSwitch(ctx *simulator.Context, request *types.AddVirtualSwitch) soap.HasFault {
	if s.switchNamed(request.VswitchName) >= 0 {
		fault := &types.AlreadyExists{Name: request.VswitchName}
		return &methods.AddVirtualSwitchBody{Fault_: simulator.Fault("The switch is there already.", fault)}
	}
	made := types.HostVirtualSwitch{
		Name: request.VswitchName, Key: "key-vim.host.VirtualSwitch-" + request.VswitchName, NumPorts: 1536, Mtu: 1500,
	}
	if request.Spec != nil {
		made.Spec = *request.Spec
	}
	if bridge, ok := made.Spec.Bridge.(*types.HostVirtualSwitchBondBridge); ok {
		for _, nic := range bridge.NicDevice {
			made.Pnic = append(made.Pnic, "key-vim.host.PhysicalNic-"+nic)
		}
	}
	s.show(ctx, append(slices.Clone(s.NetworkInfo.Vswitch), made), s.NetworkInfo.Portgroup)
	return &methods.AddVirtualSwitchBody{Res: &types.AddVirtualSwitchResponse{}}
}

// AddPortGroup makes a port group and, unless another host has one of this name, its network.
func (s *NetworkSystem) AddPortGroup(ctx *simulator.Context, request *types.AddPortGroup) soap.HasFault {
	body := &methods.AddPortGroupBody{}
	spec := request.Portgrp
	number := s.switchNamed(spec.VswitchName)
	switch {
	case spec.Name == "":
		body.Fault_ = simulator.Fault("A port group needs a name.", &types.InvalidArgument{InvalidProperty: "name"})
		return body
	case number < 0:
		body.Fault_ = simulator.Fault("There is no such switch.", &types.NotFound{})
		return body
	case s.groupNamed(spec.Name) >= 0:
		body.Fault_ = simulator.Fault("The port group is there already.", &types.AlreadyExists{Name: spec.Name})
		return body
	}
	key := "key-vim.host.PortGroup-" + spec.Name
	switches := slices.Clone(s.NetworkInfo.Vswitch)
	switches[number].Portgroup = append(slices.Clone(switches[number].Portgroup), key)
	group := types.HostPortGroup{Key: key, Vswitch: switches[number].Key, Spec: spec}
	groups := append(slices.Clone(s.NetworkInfo.Portgroup), group)
	ref := s.network(spec.Name)
	if ref == nil {
		answer := s.HostNetworkSystem.AddPortGroup(ctx, request)
		if answer.Fault() != nil {
			return answer
		}
		ref = s.network(spec.Name)
	}
	s.show(ctx, switches, groups)
	host := ctx.Map.Get(s.Host.Self).(*simulator.HostSystem)
	ctx.Map.AddReference(ctx, host, &host.Network, *ref)
	body.Res = &types.AddPortGroupResponse{}
	return body
}

func (s *NetworkSystem) network(name string) *types.ManagedObjectReference {
	for _, network := range s.world.model.Map().All("Network") {
		if network.Entity().Name == name {
			ref := network.Reference()
			return &ref
		}
	}
	return nil
}

// RemovePortGroup removes a port group that no machine is on; the network goes with the last host's.
func (s *NetworkSystem) RemovePortGroup(ctx *simulator.Context, request *types.RemovePortGroup) soap.HasFault {
	body := &methods.RemovePortGroupBody{}
	number := s.groupNamed(request.PgName)
	ref := s.network(request.PgName)
	if number < 0 || ref == nil {
		body.Fault_ = simulator.Fault("There is no such port group.", &types.NotFound{})
		return body
	}
	for _, vm := range s.world.machines() {
		if vm.Runtime.Host != nil && *vm.Runtime.Host == s.Host.Self && slices.Contains(vm.Network, *ref) {
			fault := &types.ResourceInUse{Type: "Network", Name: request.PgName}
			body.Fault_ = simulator.Fault("The port group is in use by "+vm.Name+".", fault)
			return body
		}
	}
	key := s.NetworkInfo.Portgroup[number].Key
	groups := slices.Delete(slices.Clone(s.NetworkInfo.Portgroup), number, number+1)
	switches := slices.Clone(s.NetworkInfo.Vswitch)
	for i := range switches {
		switches[i].Portgroup = slices.DeleteFunc(slices.Clone(switches[i].Portgroup), func(k string) bool { return k == key })
	}
	s.show(ctx, switches, groups)
	host := ctx.Map.Get(s.Host.Self).(*simulator.HostSystem)
	ctx.Map.RemoveReference(ctx, host, &host.Network, *ref)
	if !s.elsewhere(*ref) {
		s.removeNetwork(ctx, *ref)
	}
	body.Res = &types.RemovePortGroupResponse{}
	return body
}

func (s *NetworkSystem) elsewhere(network types.ManagedObjectReference) bool {
	for _, entity := range s.world.model.Map().All("HostSystem") {
		if host, ok := entity.(*simulator.HostSystem); ok && slices.Contains(host.Network, network) {
			return true
		}
	}
	return false
}

func (s *NetworkSystem) removeNetwork(ctx *simulator.Context, ref types.ManagedObjectReference) {
	network, ok := ctx.Map.Get(ref).(mo.Entity)
	if !ok {
		return
	}
	if folder, ok := ctx.Map.Get(*network.Entity().Parent).(*simulator.Folder); ok {
		ctx.Map.RemoveReference(ctx, folder, &folder.ChildEntity, ref)
	}
	if datacenter, ok := ctx.Map.Any("Datacenter").(*simulator.Datacenter); ok {
		ctx.Map.RemoveReference(ctx, datacenter, &datacenter.Network, ref)
	}
	ctx.Map.Remove(ctx, ref)
}

// RemoveVirtualSwitch removes a switch without port groups that machines use.
func (s *NetworkSystem) RemoveVirtualSwitch(ctx *simulator.Context, request *types.RemoveVirtualSwitch) soap.HasFault {
	body := &methods.RemoveVirtualSwitchBody{}
	number := s.switchNamed(request.VswitchName)
	if number < 0 {
		body.Fault_ = simulator.Fault("There is no such switch.", &types.NotFound{})
		return body
	}
	for _, group := range s.NetworkInfo.Portgroup {
		if group.Spec.VswitchName == request.VswitchName {
			answer := s.RemovePortGroup(ctx, &types.RemovePortGroup{This: s.Self, PgName: group.Spec.Name})
			if fault := answer.Fault(); fault != nil {
				body.Fault_ = fault
				return body
			}
		}
	}
	s.show(ctx, slices.Delete(slices.Clone(s.NetworkInfo.Vswitch), number, number+1), s.NetworkInfo.Portgroup)
	body.Res = &types.RemoveVirtualSwitchResponse{}
	return body
}
