package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Pool opens leases.
type Pool struct {
	*simulator.ResourcePool
	world *World
}

// ImportVApp returns a lease at once; the machine is made meanwhile, and what is wrong with it shows as the lease's
// error. That vCenter reports a bad specification there too, and not in the call, is unverified. The task beside it runs
// until the lease ends; cancelling it ends the lease.
func (p *Pool) ImportVApp(ctx *simulator.Context, request *types.ImportVApp) soap.HasFault {
	spec, ok := request.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		fault := &types.InvalidArgument{InvalidProperty: "spec"}
		return &methods.ImportVAppBody{Fault_: simulator.Fault("only single machines can be imported here", fault)}
	}
	folder, failure := p.world.importFolder(ctx, p.ResourcePool, request.Folder)
	if failure != nil {
		return &methods.ImportVAppBody{Fault_: failure.soap()}
	}
	lease := p.world.newLease(ctx, p.ResourcePool)
	create := &types.CreateVM_Task{This: folder.Self, Config: spec.ConfigSpec, Pool: p.Self, Host: request.Host}
	go func() {
		own := p.world.background(ctx.Session)
		vm, failure := p.world.createMachine(own, folder, create)
		if failure != nil {
			lease.fail(failure)
			return
		}
		lease.open(vm)
	}()
	return &methods.ImportVAppBody{Res: &types.ImportVAppResponse{Returnval: lease.Self}}
}

// importFolder is where the machine goes: by default the first folder for machines.
func (w *World) importFolder(
	ctx *simulator.Context, pool *simulator.ResourcePool, asked *types.ManagedObjectReference,
) (*simulator.Folder, *Failure) {
	if asked != nil {
		if folder, ok := ctx.Map.Get(*asked).(*simulator.Folder); ok {
			return folder, nil
		}
		return nil, &Failure{&types.ManagedObjectNotFound{Obj: *asked}, "The folder is not there: " + asked.Value}
	}
	datacenter := ctx.Map.Any("Datacenter").(*simulator.Datacenter)
	return ctx.Map.Get(datacenter.VmFolder).(*simulator.Folder), nil
}
