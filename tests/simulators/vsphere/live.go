package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// nodeOf is the name of the node that reads a file's format in a running QEMU, empty for none.
func (r *Running) nodeOf(file string) (string, error) {
	var nodes []struct {
		Name   string `json:"node-name"`
		Driver string `json:"drv"`
		File   string `json:"file"`
	}
	if err := r.monitor.do("query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return "", err
	}
	for _, node := range nodes {
		if node.File == file && (node.Driver == "qcow2" || node.Driver == "raw") && !strings.HasPrefix(node.Name, "#") {
			return node.Name, nil
		}
	}
	return "", nil
}

// addLayer makes the guest write to a new file on top of the one it wrote to.
func (r *Running) addLayer(lower, upper string) error {
	below, err := r.nodeOf(lower)
	if err != nil || below == "" {
		return err // no disk of the running machine: it may have come without being plugged in
	}
	name := "layer-" + strings.TrimSuffix(filepath.Base(upper), "-sesparse.vmdk")
	if len(name) > 31 {
		name = "l" + name[len(name)-30:] // QEMU's limit for names of nodes
	}
	err = r.monitor.do("blockdev-add", map[string]any{
		"driver": "qcow2", "node-name": name, "discard": "unmap", "backing": nil,
		"file": map[string]any{"driver": "file", "filename": upper, "discard": "unmap"},
	}, nil)
	if err != nil {
		return err
	}
	return r.monitor.do("blockdev-snapshot", map[string]any{"node": below, "overlay": name}, nil)
}

// commit writes a layer into the one below while the guest runs, and lets go of it.
func (r *Running) commit(upper, lower string) error {
	above, err := r.nodeOf(upper)
	if err != nil {
		return err
	}
	under, err := r.nodeOf(lower)
	if err != nil {
		return err
	}
	if above == "" || under == "" {
		return fmt.Errorf("the running machine does not have %s", upper)
	}
	const job = "merge"
	if err := r.monitor.do("block-commit", map[string]any{
		"job-id": job, "device": r.topOf(above), "top-node": above, "base-node": under,
	}, nil); err != nil {
		return err
	}
	mine := func(data map[string]any) bool { return data["device"] == job }
	if r.topOf(above) == above {
		// The layer that the guest writes to: it moves over when both are equal.
		if err := r.monitor.await("BLOCK_JOB_READY", mine); err != nil {
			return err
		}
		if err := r.monitor.do("job-complete", map[string]any{"id": job}, nil); err != nil {
			return err
		}
	}
	failed := ""
	err = r.monitor.await("BLOCK_JOB_COMPLETED", func(data map[string]any) bool {
		if text, ok := data["error"].(string); ok {
			failed = text
		}
		return mine(data)
	})
	if err == nil && failed != "" {
		err = fmt.Errorf("merging %s: %s", upper, failed)
	}
	if err == nil {
		// It stays known where it was added by its own name.
		_ = r.monitor.do("blockdev-del", map[string]any{"node-name": above}, nil)
	}
	return err
}

// topOf is the node that the guest writes to above a node.
func (r *Running) topOf(node string) string {
	var devices []struct {
		Inserted struct {
			Name  string     `json:"node-name"`
			Image chainImage `json:"image"`
		} `json:"inserted"`
	}
	if err := r.monitor.do("query-block", nil, &devices); err != nil {
		return node
	}
	file := r.fileOf(node)
	for _, device := range devices {
		for image := &device.Inserted.Image; image != nil; image = image.Backing {
			if image.Name == file {
				return device.Inserted.Name
			}
		}
	}
	return node
}

type chainImage struct {
	Name    string      `json:"filename"`
	Backing *chainImage `json:"backing-image"`
}

func (r *Running) fileOf(node string) string {
	var nodes []struct {
		Name string `json:"node-name"`
		File string `json:"file"`
	}
	if err := r.monitor.do("query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return ""
	}
	for _, known := range nodes {
		if known.Name == node {
			return known.File
		}
	}
	return ""
}
