package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// handle sees every call before the simulator does. It may refuse it. It also puts our own object in the place of the
// simulator's: into the registry of the session, which the simulator asks first. (The object that a handler returns is
// ignored by v0.56.0, and the simulator's own code relies on finding its own types in the map.)
func (w *World) handle(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if ctx.Session == nil || ctx.Session.Registry == nil {
		return nil, nil
	}
	if fault := w.access.check(w, ctx, method); fault != nil {
		return nil, fault
	}
	registry := ctx.Session.Registry
	w.mu.Lock()
	w.sessions[ctx.Session.Key] = registry
	w.mu.Unlock()
	if registry.Get(method.This) == nil {
		if ours := w.wrap(method.This); ours != nil {
			registry.Put(ours)
		}
	}
	return nil, nil
}

// wrap is our version of an object, nil where the simulator's own will do.
func (w *World) wrap(ref types.ManagedObjectReference) mo.Reference {
	switch object := w.model.Map().Get(ref).(type) {
	case *simulator.VirtualMachine:
		return &Machine{object, w}
	case *simulator.VirtualMachineSnapshot:
		return &Snapshot{object, w}
	case *simulator.ResourcePool:
		return &Pool{object, w}
	case *simulator.Folder:
		return &Folder{object, w}
	case *simulator.VirtualDiskManager:
		return &DiskManager{object, w}
	case *simulator.FileManager:
		return &FileManager{object, w}
	case *simulator.AuthorizationManager:
		return &Authorization{object, w}
	case *simulator.HostNetworkSystem:
		return &NetworkSystem{object, w}
	case *simulator.Datastore:
		return &Datastore{object, w}
	}
	return nil
}

// forget drops our versions of an object that is gone. Not at once: a session that logs out holds its registry locked.
func (w *World) forget(ref types.ManagedObjectReference) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, registry := range w.sessions {
		go func() {
			if registry.Get(ref) != nil {
				registry.Remove(w.background(nil), ref)
			}
		}()
	}
}
