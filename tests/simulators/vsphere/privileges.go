package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// need is a privilege on an object.
type need struct {
	object    types.ManagedObjectReference
	privilege string
}

// privilegeOf is what a method that changes something wants on the object it is called on: "Required Privileges" of the
// vSphere Web Services API reference. Methods that are not listed only read.
var privilegeOf = map[string]string{
	"AddPortGroup":                        "Host.Config.Network",
	"AddVirtualSwitch":                    "Host.Config.Network",
	"AnswerVM":                            "VirtualMachine.Interact.AnswerQuestion",
	"CloneVM_Task":                        "VirtualMachine.Provisioning.Clone",
	"ConsolidateVMDisks_Task":             "VirtualMachine.State.RemoveSnapshot",
	"CreateFolder":                        "Folder.Create",
	"CreateScreenshot_Task":               "VirtualMachine.Interact.CreateScreenshot",
	"CreateSnapshot_Task":                 "VirtualMachine.State.CreateSnapshot",
	"CreateSnapshotEx_Task":               "VirtualMachine.State.CreateSnapshot",
	"CreateVirtualDisk_Task":              "Datastore.FileManagement",
	"CreateVM_Task":                       "VirtualMachine.Inventory.Create",
	"DeleteDatastoreFile_Task":            "Datastore.FileManagement",
	"DeleteVirtualDisk_Task":              "Datastore.FileManagement",
	"Destroy_Task":                        "VirtualMachine.Inventory.Delete",
	"ImportVApp":                          "VApp.Import",
	"MakeDirectory":                       "Datastore.FileManagement",
	"MarkAsTemplate":                      "VirtualMachine.Provisioning.MarkAsTemplate",
	"MoveDatastoreFile_Task":              "Datastore.FileManagement",
	"PowerOffVM_Task":                     "VirtualMachine.Interact.PowerOff",
	"PowerOnVM_Task":                      "VirtualMachine.Interact.PowerOn",
	"ReconfigVM_Task":                     "VirtualMachine.Config.Settings",
	"RegisterVM_Task":                     "VirtualMachine.Inventory.Register",
	"RelocateVM_Task":                     "Resource.ColdMigrate",
	"RemoveAllSnapshots_Task":             "VirtualMachine.State.RemoveSnapshot",
	"RemovePortGroup":                     "Host.Config.Network",
	"RemoveSnapshot_Task":                 "VirtualMachine.State.RemoveSnapshot",
	"RemoveVirtualSwitch":                 "Host.Config.Network",
	"Rename_Task":                         "VirtualMachine.Config.Rename",
	"ResetVM_Task":                        "VirtualMachine.Interact.Reset",
	"RevertToCurrentSnapshot_Task":        "VirtualMachine.State.RevertToSnapshot",
	"RevertToSnapshot_Task":               "VirtualMachine.State.RevertToSnapshot",
	"SetField":                            "Global.SetCustomField",
	"AddCustomFieldDef":                   "Global.ManageCustomFields",
	"ShutdownGuest":                       "VirtualMachine.Interact.PowerOff",
	"TerminateSession":                    "Sessions.TerminateSession",
	"UnregisterVM":                        "VirtualMachine.Inventory.Unregister",
	"HttpNfcLeasePullFromUrls_Task":       "VApp.PullFromUrls",
	"ReconfigureComputeResource_Task":     "Host.Inventory.EditCluster",
	"CreateResourcePool":                  "Resource.CreatePool",
	"AddDVPortgroup_Task":                 "DVPortgroup.Create",
	"ConfigureDatastoreIORM_Task":         "Datastore.ConfigIOManagement",
	"ConfigureStorageDrsForPod_Task":      "StoragePod.Config",
	"SetVirtualDiskUuid":                  "Datastore.FileManagement",
	"ExtendVirtualDisk_Task":              "Datastore.FileManagement",
	"CopyVirtualDisk_Task":                "Datastore.FileManagement",
	"MoveVirtualDisk_Task":                "Datastore.FileManagement",
	"MigrateVM_Task":                      "Resource.ColdMigrate",
	"SuspendVM_Task":                      "VirtualMachine.Interact.Suspend",
	"UpgradeVM_Task":                      "VirtualMachine.Config.UpgradeVirtualHardware",
	"RefreshDatastoreStorageInfo":         "Datastore.Config",
	"DestroyNetwork":                      "Network.Delete",
	"DestroyDatastore":                    "Datastore.Delete",
	"StartProgramInGuest":                 "VirtualMachine.GuestOperations.Execute",
	"InitiateFileTransferToGuest":         "VirtualMachine.GuestOperations.Modify",
	"InitiateFileTransferFromGuest":       "VirtualMachine.GuestOperations.Query",
	"ListProcessesInGuest":                "VirtualMachine.GuestOperations.Query",
	"ReadEnvironmentVariableInGuest":      "VirtualMachine.GuestOperations.Query",
	"CreateNasDatastore":                  "Host.Config.Storage",
	"PutUsbScanCodes":                     "VirtualMachine.Interact.PutUsbScanCodes",
	"HttpNfcLeaseComplete":                "",
	"HttpNfcLeaseAbort":                   "",
	"HttpNfcLeaseProgress":                "",
	"HttpNfcLeaseGetManifest":             "",
	"HttpNfcLeaseSetManifestChecksumType": "",
}

// needs are all privileges that a call wants, those on the objects inside its arguments included.
func needs(ctx *simulator.Context, method *simulator.Method) []need {
	privilege := privilegeOf[method.Name]
	if privilege == "" {
		return nil
	}
	found := []need{{owner(ctx, method.This), privilege}}
	switch body := method.Body.(type) {
	case *types.CreateVM_Task:
		found = append(found, need{body.Pool, "Resource.AssignVMToPool"})
		found = append(found, specNeeds(ctx, method.This, &body.Config, true)...)
	case *types.ImportVApp:
		found[0].object = method.This
		found = append(found, need{method.This, "Resource.AssignVMToPool"})
		if spec, ok := body.Spec.(*types.VirtualMachineImportSpec); ok {
			found = append(found, specNeeds(ctx, method.This, &spec.ConfigSpec, true)...)
		}
	case *types.ReconfigVM_Task:
		found = specNeeds(ctx, method.This, &body.Spec, false)
		if len(found) == 0 {
			found = []need{{method.This, privilege}}
		}
	case *types.Destroy_Task:
		if method.This.Type != "VirtualMachine" {
			found[0].privilege = map[string]string{
				"Datastore": "Datastore.Delete", "Folder": "Folder.Delete", "ResourcePool": "Resource.DeletePool",
				"DistributedVirtualPortgroup": "DVPortgroup.Delete", "Network": "Network.Delete",
			}[method.This.Type]
		}
	}
	return found
}

// owner is the object that carries the permission: a snapshot's is its machine.
func owner(ctx *simulator.Context, ref types.ManagedObjectReference) types.ManagedObjectReference {
	switch object := ctx.Map.Get(ref).(type) {
	case *simulator.VirtualMachineSnapshot:
		return object.Vm
	case *simulator.HostNetworkSystem:
		if object.Host != nil {
			return object.Host.Self
		}
	case *simulator.FileManager, *simulator.VirtualDiskManager, *simulator.SessionManager, *simulator.CustomFieldsManager:
		return ctx.Map.Get(serviceInstance).(*simulator.ServiceInstance).Content.RootFolder
	}
	return ref
}

// specNeeds are the privileges for what a specification changes.
func specNeeds(
	ctx *simulator.Context, on types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec, create bool,
) []need {
	var found []need
	add := func(condition bool, object types.ManagedObjectReference, privilege string) {
		if condition {
			found = append(found, need{object, privilege})
		}
	}
	if !create {
		add(spec.NumCPUs != 0 || spec.NumCoresPerSocket != nil, on, "VirtualMachine.Config.CPUCount")
		add(spec.MemoryMB != 0, on, "VirtualMachine.Config.Memory")
		add(len(spec.ExtraConfig) != 0, on, "VirtualMachine.Config.AdvancedConfig")
		add(spec.Name != "", on, "VirtualMachine.Config.Rename")
		add(spec.Annotation != "", on, "VirtualMachine.Config.Annotation")
		add(spec.InstanceUuid != "" || spec.GuestId != "" || spec.Firmware != "" || spec.BootOptions != nil, on,
			"VirtualMachine.Config.Settings")
	}
	for _, change := range spec.DeviceChange {
		device := change.GetVirtualDeviceConfigSpec()
		switch d := device.Device.(type) {
		case *types.VirtualDisk:
			fresh := device.FileOperation != ""
			added := device.Operation == types.VirtualDeviceConfigSpecOperationAdd
			add(added && fresh, on, "VirtualMachine.Config.AddNewDisk")
			add(added && !fresh, on, "VirtualMachine.Config.AddExistingDisk")
			add(device.Operation == types.VirtualDeviceConfigSpecOperationRemove, on, "VirtualMachine.Config.RemoveDisk")
			if backing, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && added && fresh {
				if datastore := datastoreOf(ctx, backing.FileName, backing.Datastore, spec); datastore != nil {
					add(true, *datastore, "Datastore.AllocateSpace")
				}
			}
		case types.BaseVirtualEthernetCard:
			add(!create, on, "VirtualMachine.Config.AddRemoveDevice")
			if network := networkOf(ctx, d.GetVirtualEthernetCard()); network != nil {
				add(true, *network, "Network.Assign")
			}
		default:
			add(!create, on, "VirtualMachine.Config.AddRemoveDevice")
		}
	}
	return found
}
