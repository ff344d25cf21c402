package main

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/vmware/govmomi/object"
	_ "github.com/vmware/govmomi/pbm/simulator" // storage policies
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Ready is what we say about ourselves when we can be used.
type Ready struct {
	Address         string            `json:"address"`
	Port            int               `json:"port"`
	User            string            `json:"user"`
	Password        string            `json:"password"`
	Fingerprint     string            `json:"fingerprint"`
	Certificate     string            `json:"certificate"`
	Control         string            `json:"control,omitempty"`
	Host            string            `json:"host,omitempty"`
	HostFingerprint string            `json:"host_fingerprint,omitempty"`
	HostCertificate string            `json:"host_certificate,omitempty"`
	Datastores      map[string]string `json:"datastores,omitempty"`
}

// World is everything that one run knows.
type World struct {
	settings Settings
	model    *simulator.Model
	service  *simulator.Service
	host     *UploadHost
	rules    *Rules
	tally    *Tally
	access   *Access
	space    *Space
	guests   *Guests
	plays    *plays

	mu       sync.Mutex
	sessions map[string]*simulator.Registry
	leases   map[types.ManagedObjectReference]*Lease
}

func startWorld(settings Settings) (*Ready, func(), error) {
	w := &World{
		settings: settings, rules: newRules(), tally: newTally(), guests: newGuests(), plays: newPlays(),
		sessions: map[string]*simulator.Registry{}, leases: map[types.ManagedObjectReference]*Lease{},
	}
	w.access = newAccess(settings.User, settings.Password)
	w.model = newModel(settings)
	if err := w.model.Create(); err != nil {
		return nil, nil, err
	}
	w.furnishNetworks()
	w.space = newSpace(w, settings.DatastoreSize)
	w.space.refresh(w.background(nil))
	certificate, err := newCertificate("stand-in vCenter", settings.Listen)
	if err != nil {
		return nil, nil, err
	}
	if w.host, err = newUploadHost(w); err != nil {
		return nil, nil, err
	}
	w.service = w.model.Service
	w.service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate.TLS}}
	w.service.RegisterEndpoints = true
	w.service.Listen = &url.URL{Host: settings.Listen, User: url.UserPassword(settings.User, settings.Password)}
	w.service.ServeMux = http.NewServeMux()
	// Patterns with a method win over the simulator's own.
	w.service.ServeMux.HandleFunc("POST /sdk", w.serveSDK)
	w.service.ServeMux.HandleFunc("POST /sdk/vimService", w.serveSDK)
	w.serveFolder(w.service.ServeMux)
	if settings.ESX {
		w.host.serve(w.service.ServeMux) // a single host takes uploads where its API is
	}
	w.limitSessions()
	w.access.install(w.model.Map().SessionManager())
	w.model.Map().AddHandler(&watcher{world: w})
	w.model.Map().Handler = w.handle
	server := w.service.NewServer()
	control, err := w.startControl()
	if err != nil {
		return nil, nil, err
	}
	ready := &Ready{
		Address: server.URL.Hostname(), Port: portOf(server.URL.Host), User: settings.User, Password: settings.Password,
		Fingerprint: certificate.SHA256, Certificate: certificate.PEM, Control: control,
		Host: w.host.address, HostFingerprint: w.host.certificate.SHA256, HostCertificate: w.host.certificate.PEM,
		Datastores: map[string]string{},
	}
	for _, datastore := range w.datastores() {
		ready.Datastores[datastore.Name] = datastore.Summary.Url
	}
	return ready, func() { w.guests.killAll() }, nil
}

// background is a context for what no call asked for; `session` is in whose name, nil for the system itself.
func (w *World) background(session *simulator.Session) *simulator.Context {
	if session == nil {
		session = &simulator.Session{
			UserSession: types.UserSession{UserName: "vpxd", FullName: "vpxd"},
			Registry:    simulator.NewRegistry(), Map: w.model.Map(),
		}
	}
	return &simulator.Context{Map: w.model.Map(), Context: context.Background(), Session: session}
}

// limitSessions ends sessions that nobody uses, as vCenter does after 120 minutes (vpxd's default).
func (w *World) limitSessions() {
	if w.settings.SessionTimeout == 0 {
		return
	}
	manager := w.model.Map().OptionManager()
	manager.Setting = append(manager.Setting, &types.OptionValue{
		Key: "config.vmacore.soap.sessionTimeout", Value: w.settings.SessionTimeout.String(),
	})
}

// alive says whether a session is still known. Logged out, terminated and expired ones are not.
func (w *World) alive(session *simulator.Session) bool {
	manager := session.Get(w.model.Map().SessionManager().Reference()).(*simulator.SessionManager)
	for _, known := range manager.SessionList {
		if known.Key == session.Key {
			return true
		}
	}
	return false
}

func (w *World) datastores() []*simulator.Datastore {
	var found []*simulator.Datastore
	for _, entity := range w.model.Map().All("Datastore") {
		found = append(found, entity.(*simulator.Datastore))
	}
	return found
}

func (w *World) datastore(name string) *simulator.Datastore {
	for _, datastore := range w.datastores() {
		if datastore.Name == name {
			return datastore
		}
	}
	return nil
}

func (w *World) machines() []*simulator.VirtualMachine {
	var found []*simulator.VirtualMachine
	for _, entity := range w.model.Map().All("VirtualMachine") {
		if vm, ok := entity.(*simulator.VirtualMachine); ok && vm.Config != nil {
			found = append(found, vm)
		}
	}
	return found
}

func (w *World) machine(ref types.ManagedObjectReference) *simulator.VirtualMachine {
	vm, _ := w.model.Map().Get(ref).(*simulator.VirtualMachine)
	return vm
}

// local is the file behind a path such as "[LocalDS_0] folder/disk.vmdk", empty for a path that names none.
func (w *World) local(path string) string {
	var parsed object.DatastorePath
	if !parsed.FromString(path) {
		return ""
	}
	datastore := w.datastore(parsed.Datastore)
	if datastore == nil || !filepath.IsLocal(parsed.Path) {
		return ""
	}
	return filepath.Join(datastore.Summary.Url, parsed.Path)
}

// waitUntil asks every 20 ms.
func waitUntil(limit time.Duration, done func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if done() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// watcher hears of every object that changes or goes.
type watcher struct {
	mo.ExtensibleManagedObject
	world *World
}

func (*watcher) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Watcher", Value: "watcher"}
}

func (*watcher) PutObject(*simulator.Context, mo.Reference) {}

func (h *watcher) RemoveObject(_ *simulator.Context, ref types.ManagedObjectReference) {
	h.world.guests.kill(ref.Value)
	h.world.forget(ref)
}

func (h *watcher) UpdateObject(_ *simulator.Context, changed mo.Reference, changes []types.PropertyChange) {
	for _, change := range changes {
		switch {
		case change.Name == "runtime.powerState" && change.Val == types.VirtualMachinePowerStatePoweredOff:
			h.world.guests.kill(changed.Reference().Value)
		case change.Name == "info.cancelled" && change.Val == true:
			h.world.cancelled(changed.Reference())
		}
	}
}
