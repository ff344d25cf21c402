package main

import (
	"fmt"
	"slices"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// User may log in. Grants are privileges by object (id, name, or "*" for everything); an object without its own entry
// has that of the nearest one above it, as permissions that propagate. Without grants the user may do everything.
type User struct {
	Name     string              `json:"name"`
	Password string              `json:"password"`
	Grants   map[string][]string `json:"grants"`
}

// Access decides who may do what.
type Access struct {
	mu         sync.Mutex
	users      map[string]*User
	restricted bool // the free licence of ESXi: reading only
}

func newAccess(name, password string) *Access {
	return &Access{users: map[string]*User{name: {Name: name, Password: password}}}
}

func (a *Access) install(manager *simulator.SessionManager) {
	manager.ValidLogin = func(request *types.Login) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		user := a.users[request.UserName]
		return user != nil && user.Password == request.Password
	}
}

func (a *Access) addUser(user *User) error {
	if user.Name == "" || user.Password == "" {
		return fmt.Errorf("a user needs a name and a password")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users[user.Name] = user
	return nil
}

func (a *Access) restrict(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.restricted = on
}

// showLicence tells which licence there is. That the free one of ESXi has this edition is unverified.
func (w *World) showLicence(free bool) {
	shown := simulator.EvalLicense
	if free {
		shown.Name, shown.EditionKey = "VMware vSphere 8 Hypervisor", "esxBasic"
	}
	for _, reference := range w.model.Map().AllReference("LicenseManager") {
		manager := reference.(*simulator.LicenseManager)
		ctx := w.background(nil)
		ctx.WithLock(manager, func() { manager.Licenses = []types.LicenseManagerLicenseInfo{shown} })
	}
}

// check refuses a call whose privileges are missing, or that changes something under a licence that only reads.
func (a *Access) check(w *World, ctx *simulator.Context, method *simulator.Method) types.BaseMethodFault {
	needed := needs(ctx, method)
	a.mu.Lock()
	restricted := a.restricted
	a.mu.Unlock()
	if restricted && len(needed) > 0 {
		return &types.RestrictedVersion{}
	}
	for _, need := range needed {
		if !a.has(w, ctx.Session.UserName, need.object, need.privilege) {
			object := need.object
			fault := &types.NoPermission{Object: &object, PrivilegeId: need.privilege}
			fault.FaultMessage = []types.LocalizableMessage{{
				Key: "com.vmware.vim.noPermission", Message: "Permission to perform this operation was denied. " + need.privilege,
			}}
			return fault
		}
	}
	return nil
}

// has looks for the user's grant at the object and then above it.
func (a *Access) has(w *World, name string, object types.ManagedObjectReference, privilege string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	user := a.users[name]
	if user == nil || user.Grants == nil {
		return true
	}
	for ref := &object; ref != nil; {
		entity, ok := w.model.Map().Get(*ref).(mo.Entity)
		if granted, known := user.Grants[ref.Value]; known {
			return slices.Contains(granted, privilege)
		}
		if !ok {
			break
		}
		if granted, known := user.Grants[entity.Entity().Name]; known {
			return slices.Contains(granted, privilege)
		}
		ref = entity.Entity().Parent
	}
	return slices.Contains(user.Grants["*"], privilege)
}

// Authorization answers what a user may do from the same table that calls are refused by.
type Authorization struct {
	*simulator.AuthorizationManager
	world *World
}

func (m *Authorization) availability(user string, object types.ManagedObjectReference, ids []string) types.EntityPrivilege {
	result := types.EntityPrivilege{Entity: object}
	for _, id := range ids {
		result.PrivAvailability = append(result.PrivAvailability, types.PrivilegeAvailability{
			PrivId: id, IsGranted: m.world.access.has(m.world, user, object, id),
		})
	}
	return result
}

// HasPrivilegeOnEntities asks for a session's user. A session that is not known is refused.
func (m *Authorization) HasPrivilegeOnEntities(_ *simulator.Context, request *types.HasPrivilegeOnEntities) soap.HasFault {
	user := m.world.userOf(request.SessionId)
	if user == "" {
		fault := &types.NotFound{}
		return &methods.HasPrivilegeOnEntitiesBody{Fault_: simulator.Fault("The session is not known.", fault)}
	}
	var list []types.EntityPrivilege
	for _, object := range request.Entity {
		list = append(list, m.availability(user, object, request.PrivId))
	}
	return &methods.HasPrivilegeOnEntitiesBody{Res: &types.HasPrivilegeOnEntitiesResponse{Returnval: list}}
}

// HasUserPrivilegeOnEntities asks for a user by name.
func (m *Authorization) HasUserPrivilegeOnEntities(
	_ *simulator.Context, request *types.HasUserPrivilegeOnEntities,
) soap.HasFault {
	var list []types.EntityPrivilege
	for _, object := range request.Entities {
		list = append(list, m.availability(request.UserName, object, request.PrivId))
	}
	return &methods.HasUserPrivilegeOnEntitiesBody{Res: &types.HasUserPrivilegeOnEntitiesResponse{Returnval: list}}
}

// endSessions terminates every session, as an administrator or a restart of vpxd does.
func (w *World) endSessions() {
	ctx := w.background(nil)
	var ids []string
	for _, session := range w.sessionList() {
		ids = append(ids, session.Key)
	}
	w.model.Map().SessionManager().TerminateSession(ctx, &types.TerminateSession{SessionId: ids})
}
