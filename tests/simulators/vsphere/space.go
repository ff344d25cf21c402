package main

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/units"
	"github.com/vmware/govmomi/vim25/types"
)

// Space counts what the datastores hold: a thin disk what it takes, a thick one its capacity.
type Space struct {
	world *World
	mu    sync.Mutex
	sizes map[string]int64 // capacity by the datastore's name
}

func newSpace(w *World, size int64) *Space {
	s := &Space{world: w, sizes: map[string]int64{}}
	for _, datastore := range w.datastores() {
		s.sizes[datastore.Name] = size
	}
	return s
}

// resize sets a datastore's capacity.
func (s *Space) resize(name string, size int64) {
	s.mu.Lock()
	s.sizes[name] = size
	s.mu.Unlock()
	s.refresh(s.world.background(nil))
}

func (s *Space) size(name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, ok := s.sizes[name]; ok {
		return size
	}
	return int64(units.TB)
}

func (s *Space) free(datastore *simulator.Datastore) int64 {
	return max(0, s.size(datastore.Name)-s.used(datastore))
}

func (s *Space) used(datastore *simulator.Datastore) int64 {
	var sum int64
	_ = filepath.WalkDir(datastore.Summary.Url, func(file string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			sum += allocated(file)
		}
		return nil
	})
	for _, name := range s.world.descriptors(datastore) {
		if disk, err := s.world.openDisk(name); err == nil && !disk.Thin && disk.Parent == "" {
			sum += max(0, disk.Capacity-allocated(disk.Blocks()))
		}
	}
	return sum
}

// refresh shows the numbers in the inventory. Real ones lag behind by minutes until RefreshDatastore; ours do not.
func (s *Space) refresh(ctx *simulator.Context) {
	for _, datastore := range s.world.datastores() {
		size, free := s.size(datastore.Name), s.free(datastore)
		ctx.WithLock(datastore, func() {
			if datastore.Summary.FreeSpace == free && datastore.Summary.Capacity == size {
				return
			}
			datastore.Info.GetDatastoreInfo().FreeSpace = free
			ctx.Update(datastore, []types.PropertyChange{
				{Name: "summary.capacity", Val: size}, {Name: "summary.freeSpace", Val: free},
			})
		})
	}
}

func noSpace(datastore *simulator.Datastore, file string) *Failure {
	fault := &types.NoDiskSpace{FileFault: types.FileFault{File: file}, Datastore: datastore.Name}
	return &Failure{fault, "Insufficient disk space on datastore '" + datastore.Name + "'."}
}
