package main

import (
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Lease is an HttpNfcLease for an import. It lives in the session that opened it; another session does not find it.
// It ends when it is completed or aborted, when nobody reports progress for its timeout, when its session ends
// (unverified), or when its task is cancelled. Unless completed, machine and files go with it.
type Lease struct {
	mo.HttpNfcLease
	world   *World
	session *simulator.Session
	task    *simulator.Task

	guard   sync.Mutex
	last    time.Time // of the last report of progress
	over    bool
	entity  types.ManagedObjectReference // the machine, once it is made
	uploads map[string]*Upload           // by the last two parts of their URL
}

func (w *World) newLease(ctx *simulator.Context, pool *simulator.ResourcePool) *Lease {
	lease := &Lease{world: w, session: ctx.Session, last: time.Now()}
	lease.Self.Type = "HttpNfcLease"
	lease.State = types.HttpNfcLeaseStateInitializing
	lease.Capabilities = types.HttpNfcLeaseCapabilities{CorsSupported: true, PullModeSupported: true}
	lease.Mode = string(types.HttpNfcLeaseModePushOrGet)
	ctx.Session.Put(lease)
	lease.task = w.announce(ctx, pool, importTask)
	lease.task.Info.Cancelable = true
	w.mu.Lock()
	w.leases[lease.Self] = lease
	w.mu.Unlock()
	return lease
}

// open hands out the upload addresses and starts the clock.
func (l *Lease) open(vm *simulator.VirtualMachine) {
	info := &types.HttpNfcLeaseInfo{
		Lease: l.Self, Entity: vm.Self, LeaseTimeout: int32(l.world.settings.LeaseTimeout.Seconds()),
	}
	devices := object.VirtualDeviceList(vm.Config.Hardware.Device)
	counts, uploads := map[string]int{}, map[string]*Upload{}
	for _, device := range devices {
		backing, ok := device.GetVirtualDevice().Backing.(types.BaseVirtualDeviceFileBackingInfo)
		if !ok {
			continue
		}
		name := backing.GetVirtualDeviceFileBackingInfo().FileName
		_, disk := device.(*types.VirtualDisk)
		if !disk {
			if _, cdrom := device.(*types.VirtualCdrom); !cdrom {
				continue
			}
		}
		kind := devices.Type(device)
		number := counts[kind]
		counts[kind]++
		upload := &Upload{lease: l, key: fmt.Sprintf("/%s/%s:%d", vm.Self.Value, kind, number)}
		if disk {
			upload.disk = name
		} else {
			upload.file = l.world.local(name)
		}
		// Real hosts number the disks; the simulator's own names collide when two datastores hold a disk.vmdk each.
		target := fmt.Sprintf("disk-%d%s", len(uploads), path.Ext(name))
		address, thumbprint := l.world.host.url(newUUID(), target)
		uploads[strings.Join(lastTwo(address), "/")] = upload
		info.DeviceUrl = append(info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key: upload.key, ImportKey: fmt.Sprintf("/%s/%s:%d", vm.Name, kind, number), Url: address,
			SslThumbprint: thumbprint, Disk: types.NewBool(disk), TargetId: target,
		})
	}
	l.world.mu.Lock()
	l.uploads = uploads // whole: other leases' uploads are looked for here too
	l.world.mu.Unlock()
	if !l.adopt(vm) {
		l.world.destroy(l.world.background(l.session), vm.Self)
		return
	}
	l.update(types.PropertyChange{Name: "initializeProgress", Val: int32(100)},
		types.PropertyChange{Name: "info", Val: info},
		types.PropertyChange{Name: "state", Val: types.HttpNfcLeaseStateReady})
	go l.watch()
}

// adopt takes the machine, unless the lease ended while it was made: then nobody would remove it.
func (l *Lease) adopt(vm *simulator.VirtualMachine) bool {
	l.guard.Lock()
	defer l.guard.Unlock()
	if l.over {
		return false
	}
	l.last, l.entity = time.Now(), vm.Self
	return true
}

func (l *Lease) update(changes ...types.PropertyChange) {
	ctx := l.world.background(l.session)
	ctx.WithLock(l, func() { ctx.Update(l, changes) })
}

// watch ends the lease when its time is over or its session is.
func (l *Lease) watch() {
	for {
		time.Sleep(50 * time.Millisecond)
		l.guard.Lock()
		over, idle := l.over, time.Since(l.last)
		l.guard.Unlock()
		switch {
		case over:
			return
		case idle > l.world.settings.LeaseTimeout:
			l.fail(&Failure{&types.Timedout{}, "The lease timed out."})
			return
		case !l.world.alive(l.session):
			l.fail(&Failure{&types.RequestCanceled{}, "The session that held the lease has ended."})
			return
		}
	}
}

// close says whether it was us who ended the lease.
func (l *Lease) close() bool {
	l.guard.Lock()
	defer l.guard.Unlock()
	if l.over {
		return false
	}
	l.over = true
	return true
}

func (l *Lease) isOpen() bool {
	l.guard.Lock()
	defer l.guard.Unlock()
	return !l.over
}

// holds says whether the lease is open for this machine.
func (l *Lease) holds(vm types.ManagedObjectReference) bool {
	l.guard.Lock()
	defer l.guard.Unlock()
	return !l.over && l.entity == vm
}

// fail ends the lease in error and removes what was imported so far.
func (l *Lease) fail(failure *Failure) {
	if !l.close() {
		return
	}
	l.update(types.PropertyChange{Name: "error", Val: failure.localized()},
		types.PropertyChange{Name: "state", Val: types.HttpNfcLeaseStateError})
	l.guard.Lock()
	entity := l.entity
	l.guard.Unlock()
	if entity.Value != "" {
		l.world.destroy(l.world.background(l.session), entity)
	}
	l.world.finish(l.task, nil, failure)
}

// HttpNfcLeaseProgress keeps the lease alive.
func (l *Lease) HttpNfcLeaseProgress(_ *simulator.Context, request *types.HttpNfcLeaseProgress) soap.HasFault {
	if failure := l.world.rules.failLease(l, request.Percent); failure != nil {
		go l.fail(failure)
		return &methods.HttpNfcLeaseProgressBody{Fault_: failure.soap()}
	}
	if failure := l.ended(); failure != nil {
		return &methods.HttpNfcLeaseProgressBody{Fault_: failure.soap()}
	}
	l.guard.Lock()
	l.last = time.Now()
	l.guard.Unlock()
	l.TransferProgress = request.Percent
	return &methods.HttpNfcLeaseProgressBody{Res: new(types.HttpNfcLeaseProgressResponse)}
}

// ended is what calls on a lease get that is no more: its error, or that its state is wrong.
func (l *Lease) ended() *Failure {
	if l.isOpen() {
		return nil
	}
	if l.Error != nil {
		if _, timedOut := l.Error.Fault.(*types.Timedout); timedOut {
			return &Failure{&types.Timedout{}, l.Error.LocalizedMessage}
		}
	}
	return &Failure{&types.InvalidState{}, "The lease is in the state " + string(l.State) + "."}
}

// HttpNfcLeaseComplete ends the lease well. That a host refuses it while a disk is missing is unverified.
func (l *Lease) HttpNfcLeaseComplete(*simulator.Context, *types.HttpNfcLeaseComplete) soap.HasFault {
	failure := l.ended()
	if failure == nil && l.State != types.HttpNfcLeaseStateReady {
		failure = &Failure{&types.InvalidState{}, "The lease is not ready."}
	}
	for _, upload := range l.uploads {
		if failure == nil && upload.disk != "" && !upload.taken {
			failure = &Failure{&types.InvalidState{}, "The disk " + upload.key + " was not uploaded."}
		}
	}
	if failure == nil && !l.close() {
		failure = l.ended()
	}
	if failure != nil {
		return &methods.HttpNfcLeaseCompleteBody{Fault_: failure.soap()}
	}
	entity := l.Info.Entity
	go func() {
		l.update(types.PropertyChange{Name: "transferProgress", Val: int32(100)},
			types.PropertyChange{Name: "state", Val: types.HttpNfcLeaseStateDone})
		l.world.finish(l.task, entity, nil)
	}()
	return &methods.HttpNfcLeaseCompleteBody{Res: new(types.HttpNfcLeaseCompleteResponse)}
}

// HttpNfcLeaseAbort ends the lease and removes the machine.
func (l *Lease) HttpNfcLeaseAbort(_ *simulator.Context, request *types.HttpNfcLeaseAbort) soap.HasFault {
	if failure := l.ended(); failure != nil {
		return &methods.HttpNfcLeaseAbortBody{Fault_: failure.soap()}
	}
	failure := &Failure{&types.RequestCanceled{}, "The lease was aborted."}
	if request.Fault != nil && request.Fault.Fault != nil {
		failure = &Failure{request.Fault.Fault, request.Fault.LocalizedMessage}
	}
	go l.fail(failure)
	return &methods.HttpNfcLeaseAbortBody{Res: new(types.HttpNfcLeaseAbortResponse)}
}
