package main

import (
	"fmt"
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Failure is a fault with the text that people see.
type Failure struct {
	Fault types.BaseMethodFault
	Text  string
}

func (f *Failure) localized() *types.LocalizedMethodFault {
	return &types.LocalizedMethodFault{Fault: f.Fault, LocalizedMessage: f.Text}
}

func (f *Failure) soap() *soap.Fault { return simulator.Fault(f.Text, f.Fault) }

func systemError(format string, arguments ...any) *Failure {
	text := fmt.Sprintf(format, arguments...)
	return &Failure{&types.SystemErrorFault{Reason: text}, "A general system error occurred: " + text}
}

// vmConfigFault is what hosts answer when a machine's monitor refuses: one fault for everything, the reason in its texts.
func vmConfigFault(key, format string, arguments ...any) *Failure {
	text := fmt.Sprintf(format, arguments...)
	fault := &types.GenericVmConfigFault{Reason: text}
	fault.FaultMessage = []types.LocalizableMessage{{Key: key, Message: text}}
	return &Failure{fault, text}
}

func invalidPowerState(wanted, existing types.VirtualMachinePowerState) *Failure {
	fault := &types.InvalidPowerState{RequestedState: wanted, ExistingState: existing}
	return &Failure{fault, fmt.Sprintf("The attempted operation cannot be performed in the current state (%s).", existing)}
}

// namedFault builds a fault from its name in the API, with what its schema demands, so that pyvmomi can read it.
func namedFault(name, text string, object types.ManagedObjectReference) (*Failure, error) {
	kind, ok := types.TypeFunc()(name)
	if !ok {
		kind, ok = types.TypeFunc()(name + "Fault") // SystemError, for example, has another name in Go
	}
	if !ok {
		return nil, fmt.Errorf("the API has no fault %q", name)
	}
	fault, ok := reflect.New(kind).Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%q is no fault", name)
	}
	switch f := fault.(type) {
	case *types.NotAuthenticated:
		f.Object, f.PrivilegeId = &object, "System.View"
	case *types.NoPermission:
		f.Object, f.PrivilegeId = &object, "System.View"
	case *types.TaskInProgress:
		f.Task = types.ManagedObjectReference{Type: "Task", Value: "task-0"}
	case *types.ManagedObjectNotFound:
		f.Obj = object
	case *types.SystemErrorFault:
		f.Reason = text
	case *types.InvalidPowerState:
		f.ExistingState = types.VirtualMachinePowerStatePoweredOff
	case *types.DuplicateName:
		f.Object = object
	case *types.NoDiskSpace:
		f.File, f.Datastore = "unknown", "unknown"
	case *types.GenericVmConfigFault:
		f.Reason = text
	case types.BaseFileFault:
		f.GetFileFault().File = "unknown"
	}
	if text == "" {
		text = name
	}
	return &Failure{fault, text}, nil
}
