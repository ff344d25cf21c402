package main

import "github.com/vmware/govmomi/vim25/types"

// leaseOn is the lease that holds a machine, nil for none.
func (w *World) leaseOn(vm types.ManagedObjectReference) *Lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, lease := range w.leases {
		if lease.holds(vm) {
			return lease
		}
	}
	return nil
}

// leased is what power-on, reconfiguration and removal of a machine under a lease end with.
func (w *World) leased(vm types.ManagedObjectReference) *Failure {
	lease := w.leaseOn(vm)
	if lease == nil {
		return nil
	}
	return &Failure{
		&types.TaskInProgress{Task: lease.task.Self}, "The operation is not allowed while another task is in progress.",
	}
}

// cancelled ends the lease whose task was.
func (w *World) cancelled(task types.ManagedObjectReference) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, lease := range w.leases {
		if lease.task.Self == task {
			go lease.fail(&Failure{&types.RequestCanceled{}, "The task was canceled by a user."})
		}
	}
}
