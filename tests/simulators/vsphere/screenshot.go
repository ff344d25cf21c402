package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// CreateScreenshotTask puts a picture of the screen into the machine's folder; the result is its datastore path. Without
// QEMU the screen is black, 720 by 400, as in text mode.
func (m *Machine) CreateScreenshotTask(ctx *simulator.Context, _ *types.CreateScreenshot_Task) soap.HasFault {
	task := m.world.start(ctx, m, "CreateScreenshot_Task", func(*simulator.Task) (types.AnyType, *Failure) {
		if m.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
			return nil, invalidPowerState(types.VirtualMachinePowerStatePoweredOn, m.Runtime.PowerState)
		}
		var place object.DatastorePath
		place.FromString(m.Config.Files.VmPathName)
		folder := path.Dir(place.Path)
		for number := 1; ; number++ {
			place.Path = path.Join(folder, fmt.Sprintf("%s-%d.png", m.Name, number))
			if _, err := os.Stat(m.world.local(place.String())); err != nil {
				break
			}
		}
		if err := m.picture(m.world.local(place.String())); err != nil {
			return nil, systemError("%v", err)
		}
		return place.String(), nil
	})
	return &methods.CreateScreenshot_TaskBody{Res: &types.CreateScreenshot_TaskResponse{Returnval: task}}
}

func (m *Machine) picture(file string) error {
	if guest := m.world.guests.get(m.Self.Value); guest != nil {
		return guest.monitor.do("screendump", map[string]any{"filename": file, "format": "png"}, nil)
	}
	into, err := os.Create(file)
	if err != nil {
		return err
	}
	screen := image.NewPaletted(image.Rect(0, 0, 720, 400), color.Palette{color.Black})
	return firstError(png.Encode(into, screen), into.Close())
}
