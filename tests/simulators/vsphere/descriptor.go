package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const sectorSize = 512

// Descriptor is the small text file that a disk of a datastore is known by (VMware's "Virtual Disk Format 5.0").
type Descriptor struct {
	File     string // where it lies
	CID      uint32
	Parent   string // file name or datastore path of the disk below, empty for a base disk
	Capacity int64
	Extent   string // name of the file with the blocks, beside it
	UUID     string // "6000C29…" with dashes, as the API says it
	Thin     bool
	// Stamp is the time of the last write to the disk below when this one was made on top of it. A real host keeps the
	// parent's content id instead, and changes that with the first write to it.
	Stamp int64
}

var (
	extentLine = regexp.MustCompile(`(?m)^RW (\d+) (\w+) "([^"]+)"`)
	valueLine  = regexp.MustCompile(`(?m)^\s*([\w.]+)\s*=\s*"?([^"\n]*)"?\s*$`)
)

func readDescriptor(file string) (*Descriptor, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	extent := extentLine.FindSubmatch(text)
	if extent == nil {
		return nil, fmt.Errorf("%s is no descriptor of a disk", filepath.Base(file))
	}
	sectors, err := strconv.ParseInt(string(extent[1]), 10, 64)
	if err != nil {
		return nil, err
	}
	d := &Descriptor{File: file, Capacity: sectors * sectorSize, Extent: string(extent[3])}
	for _, pair := range valueLine.FindAllSubmatch(text, -1) {
		value := string(pair[2])
		switch string(pair[1]) {
		case "CID":
			cid, _ := strconv.ParseUint(value, 16, 32)
			d.CID = uint32(cid)
		case "parentFileNameHint":
			d.Parent = value
		case "ddb.uuid":
			d.UUID = dashed(value)
		case "ddb.thinProvisioned":
			d.Thin = value == "1"
		case "ddb.parentStamp":
			d.Stamp, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	return d, nil
}

func (d *Descriptor) save() error {
	kind, form, parent := "vmfs", "VMFS", ""
	if d.Parent != "" {
		kind, form = "seSparse", "SESPARSE"
		parent = fmt.Sprintf("parentFileNameHint=%q\n", d.Parent)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08x\nparentCID=ffffffff\ncreateType=%q\n%s",
		d.CID, kind, parent)
	fmt.Fprintf(&text, "\n# Extent description\nRW %d %s %q\n", d.Capacity/sectorSize, form, d.Extent)
	fmt.Fprintf(&text, "\n# The Disk Data Base\n#DDB\nddb.uuid = %q\n", spaced(d.UUID))
	if d.Thin {
		text.WriteString("ddb.thinProvisioned = \"1\"\n")
	}
	if d.Stamp != 0 {
		fmt.Fprintf(&text, "ddb.parentStamp = \"%d\"\n", d.Stamp)
	}
	return os.WriteFile(d.File, text.Bytes(), 0o600)
}

// Blocks is the file that holds the disk's content: raw for a base disk, qcow2 on top of the parent's for a child.
func (d *Descriptor) Blocks() string { return filepath.Join(filepath.Dir(d.File), d.Extent) }

// Format is what QEMU calls the content's format.
func (d *Descriptor) Format() string {
	if d.Parent != "" {
		return "qcow2"
	}
	return "raw"
}

func randomCID() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])&0xfe
}

// newDiskUUID has VMware's prefix, which guests see in the disk's serial number.
func newDiskUUID() string {
	b := []byte{0x60, 0x00, 0xC2, 0x9A, 15: 0}
	_, _ = rand.Read(b[4:])
	return dashed(strings.ToUpper(hex.EncodeToString(b)))
}

// dashed is how the API writes a disk's UUID: 6000C29a-1b2c-….
func dashed(text string) string {
	digits := strings.ToLower(strings.NewReplacer(" ", "", "-", "").Replace(text))
	if len(digits) != 32 {
		return text
	}
	digits = strings.Replace(digits, "6000c29", "6000C29", 1)
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
}

// spaced is how a descriptor writes it: "60 00 C2 9a 1b 2c 3d 4e-5f 60 …".
func spaced(uuid string) string {
	digits := strings.ReplaceAll(uuid, "-", "")
	if len(digits) != 32 {
		return uuid
	}
	var pairs []string
	for i := 0; i < 32; i += 2 {
		pairs = append(pairs, digits[i:i+2])
	}
	return strings.Join(pairs[:8], " ") + "-" + strings.Join(pairs[8:], " ")
}

// serial is what a guest reads from the disk when its machine has disk.EnableUUID.
func serial(uuid string) string { return strings.ToLower(strings.ReplaceAll(uuid, "-", "")) }
