package main

import (
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Folder makes machines only where a real one would.
type Folder struct {
	*simulator.Folder
	world *World
}

// CreateVMTask is CreateVM_Task.
func (f *Folder) CreateVMTask(ctx *simulator.Context, request *types.CreateVM_Task) soap.HasFault {
	task := f.world.start(ctx, f, "CreateVM_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		vm, failure := f.world.createMachine(ctx, f.Folder, request)
		if failure != nil {
			return nil, failure
		}
		return vm.Self, nil
	})
	return &methods.CreateVM_TaskBody{Res: &types.CreateVM_TaskResponse{Returnval: task}}
}

// createMachine checks the specification as a real host does, has the simulator make the machine, and gives its new
// disks capacity and identity. What a failed attempt left on the datastore is removed again.
func (w *World) createMachine(
	ctx *simulator.Context, folder *simulator.Folder, request *types.CreateVM_Task,
) (*simulator.VirtualMachine, *Failure) {
	spec := &request.Config
	home, failure := w.checkCreate(ctx, folder, request)
	if failure != nil {
		return nil, failure
	}
	before := listing(home.Summary.Url)
	if spec.InstanceUuid == "" {
		spec.InstanceUuid = newUUID()
	}
	name := escaped(spec.Name)
	if name != spec.Name { // the simulator would make every device of such a machine twice
		spec.Name = newUUID()
	}
	answer := folder.CreateVMTask(ctx, request)
	result, failure := w.inner(ctx, answer, func() types.ManagedObjectReference {
		return answer.(*methods.CreateVM_TaskBody).Res.Returnval
	})
	if failure != nil {
		for name := range listing(home.Summary.Url) {
			if !before[name] {
				os.RemoveAll(filepath.Join(home.Summary.Url, name))
			}
		}
		return nil, failure
	}
	vm := w.machine(result.(types.ManagedObjectReference))
	if name != vm.Name {
		ctx.Update(vm, []types.PropertyChange{
			{Name: "name", Val: name}, {Name: "config.name", Val: name}, {Name: "summary.config.name", Val: name},
		})
	}
	for _, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		disk, ok := device.Device.(*types.VirtualDisk)
		if !ok || device.FileOperation != types.VirtualDeviceConfigSpecFileOperationCreate {
			continue
		}
		if backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			if err := w.furnish(Attached{disk, backing}); err != nil {
				return nil, systemError("%v", err)
			}
		}
	}
	w.noteMAC(ctx, vm)
	return vm, nil
}

// checkCreate returns the datastore of the machine's home.
func (w *World) checkCreate(
	ctx *simulator.Context, folder *simulator.Folder, request *types.CreateVM_Task,
) (*simulator.Datastore, *Failure) {
	spec := &request.Config
	if failure := checkName(spec.Name); failure != nil {
		return nil, failure
	}
	if child := ctx.Map.FindByName(escaped(spec.Name), folder.ChildEntity); child != nil {
		return nil, duplicateName(spec.Name, child.Reference())
	}
	if failure := checkGuestID(spec.GuestId); failure != nil {
		return nil, failure
	}
	var path object.DatastorePath
	if spec.Files == nil || !path.FromString(spec.Files.VmPathName) {
		return nil, invalidConfig("configSpec.files.vmPathName")
	}
	home := w.datastore(path.Datastore)
	if home == nil || !filepath.IsLocal(filepath.Join("x", path.Path)) {
		fault := &types.InvalidDatastorePath{DatastorePath: spec.Files.VmPathName}
		fault.Name = path.Datastore
		return nil, &Failure{fault, "Invalid datastore path '" + spec.Files.VmPathName + "'."}
	}
	if pool, ok := ctx.Map.Get(request.Pool).(mo.Entity); !ok {
		fault := &types.ManagedObjectNotFound{Obj: request.Pool}
		return nil, &Failure{fault, "The resource pool is not there: " + request.Pool.Value}
	} else if len(pool.Entity().Name) == 0 {
		return nil, invalidConfig("pool")
	}
	if failure := w.checkDevices(ctx, nil, home, spec); failure != nil {
		return home, failure
	}
	return home, w.place(ctx, request)
}

func duplicateName(name string, object types.ManagedObjectReference) *Failure {
	return &Failure{
		&types.DuplicateName{Name: name, Object: object}, "The name '" + name + "' already exists.",
	}
}

// checkName refuses what is too long. Which fault a real vCenter answers with is unverified.
func checkName(name string) *Failure {
	if utf8.RuneCountInString(name) <= 80 {
		return nil
	}
	return &Failure{&types.InvalidName{Name: name}, "The name '" + name + "' is invalid."}
}

// escaped is a name as vCenter keeps it.
func escaped(name string) string {
	return strings.NewReplacer("%", "%25", "/", "%2f", `\`, "%5c").Replace(name)
}

// checkGuestID refuses what the API does not know. Real hosts know fewer. Which fault they answer with is unverified.
func checkGuestID(id string) *Failure {
	if id == "" {
		return nil
	}
	for _, known := range simulator.GuestID {
		if id == string(known) {
			return nil
		}
	}
	fault := &types.InvalidArgument{InvalidProperty: "configSpec.guestId"}
	return &Failure{fault, "A specified parameter was not correct: configSpec.guestId"}
}

func invalidConfig(property string) *Failure {
	return &Failure{
		&types.InvalidVmConfig{Property: property}, "Invalid virtual machine configuration: " + property,
	}
}

func listing(folder string) map[string]bool {
	names := map[string]bool{}
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		names[entry.Name()] = true
	}
	return names
}
