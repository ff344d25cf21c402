package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// The sparse VMDK header: VMware's "Virtual Disk Format 5.0", as written by open-vmdk.
const (
	magic           = 0x564d444b // "KDMV"
	flagNewlines    = 0x1
	flagCompressed  = 0x10000
	flagMarkers     = 0x20000
	grainSectors    = 128
	directoryAtEnd  = ^uint64(0)
	headerSize      = 512
	streamVersion   = 3
	deflate         = 1
	footerFromEnd   = 2 * headerSize
	newlineSequence = "\n \r\n"
)

type sparseHeader struct {
	version, flags                              uint32
	capacity, grain, descriptor, descriptorSize uint64
	tableEntries                                uint32
	directory                                   uint64
	newlines                                    string
	compression                                 uint16
}

func parseHeader(b []byte) (*sparseHeader, error) {
	if len(b) < headerSize || binary.LittleEndian.Uint32(b) != magic {
		return nil, fmt.Errorf("this is no sparse VMDK")
	}
	u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	return &sparseHeader{
		version: u32(b[4:]), flags: u32(b[8:]), capacity: u64(b[12:]), grain: u64(b[20:]),
		descriptor: u64(b[28:]), descriptorSize: u64(b[36:]), tableEntries: u32(b[44:]), directory: u64(b[56:]),
		newlines: string(b[73:77]), compression: binary.LittleEndian.Uint16(b[77:]),
	}, nil
}

// checkHeader refuses what hosts refuse: streams of QEMU before 2.5.1 ("too old"), sparse files that are not streamed.
// That a host compares the capacity with the machine's specification is unverified; with another one the disk would be
// another.
func checkHeader(b []byte, capacity int64) error {
	h, err := parseHeader(b)
	switch {
	case err != nil:
		return err
	case h.version != streamVersion:
		return fmt.Errorf("version %d of the format is too old, %d is wanted", h.version, streamVersion)
	case h.flags&flagCompressed == 0 || h.flags&flagMarkers == 0 || h.compression != deflate:
		return fmt.Errorf("the VMDK is not streamOptimized (flags 0x%x, compression %d)", h.flags, h.compression)
	case h.flags&flagNewlines != 0 && h.newlines != newlineSequence:
		return fmt.Errorf("the VMDK was damaged by a transfer as text")
	case h.grain != grainSectors:
		return fmt.Errorf("grains have %d sectors, %d are wanted", h.grain, grainSectors)
	case h.capacity*sectorSize != uint64(capacity):
		return fmt.Errorf("the VMDK has %d bytes, the disk of the machine %d", h.capacity*sectorSize, capacity)
	}
	return nil
}

// checkFile looks at the whole stream's frame: descriptor, footer. What is inside the grains qemu-img reads.
func checkFile(file *os.File, length int64) error {
	var begin, end [headerSize]byte
	if _, err := file.ReadAt(begin[:], 0); err != nil {
		return err
	}
	h, err := parseHeader(begin[:])
	if err != nil {
		return err
	}
	if h.descriptor == 0 || h.descriptorSize == 0 || h.descriptorSize > 2048 {
		return fmt.Errorf("there is no descriptor in the VMDK")
	}
	text := make([]byte, h.descriptorSize*sectorSize)
	if _, err := io.ReadFull(io.NewSectionReader(file, int64(h.descriptor)*sectorSize, int64(len(text))), text); err != nil {
		return fmt.Errorf("the descriptor of the VMDK is cut off")
	}
	if kind := valueOf(text, "createType"); kind != "streamOptimized" {
		return fmt.Errorf("the VMDK's createType is %q, not streamOptimized", kind)
	}
	if h.directory != directoryAtEnd {
		return nil
	}
	if _, err := file.ReadAt(end[:], length-footerFromEnd); err != nil {
		return fmt.Errorf("the VMDK has no footer")
	}
	footer, err := parseHeader(end[:])
	if err != nil || footer.directory == directoryAtEnd || footer.capacity != h.capacity {
		return fmt.Errorf("the VMDK has no footer with its directory")
	}
	return nil
}

func valueOf(text []byte, key string) string {
	for _, pair := range valueLine.FindAllSubmatch(text, -1) {
		if string(pair[1]) == key {
			return string(pair[2])
		}
	}
	return ""
}
