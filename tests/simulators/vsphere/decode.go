package main

import (
	"bufio"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	grainBytes   = grainSectors * sectorSize
	grainLimit   = 2 * grainBytes // compressed; more than deflate can make of it
	markerEnd    = 0
	markerFooter = 3
	frontLimit   = 256 << 20 // header, descriptor and all tables of a disk of many TiB
)

// decode writes a stream to the disk as it comes, as a host does. It is for measurements: `qemu-img`, which needs the whole
// stream first, is the independent reader. The header has been checked.
func decode(stream io.Reader, disk *Descriptor) error {
	if err := os.Truncate(disk.Blocks(), 0); err != nil {
		return err
	}
	if err := os.Truncate(disk.Blocks(), disk.Capacity); err != nil {
		return err
	}
	file, err := os.OpenFile(disk.Blocks(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	d := &decoder{source: bufio.NewReaderSize(stream, 1<<20), into: file, capacity: disk.Capacity}
	return firstError(d.run(), file.Close())
}

type decoder struct {
	source   *bufio.Reader
	into     *os.File
	capacity int64
	inflate  io.ReadCloser
	grain    [grainBytes]byte
	place    int64 // in the stream
	grains   int
}

func (d *decoder) run() error {
	head := make([]byte, headerSize)
	if err := d.read(head); err != nil {
		return err
	}
	overhead := int64(binary.LittleEndian.Uint64(head[64:])) * sectorSize
	atEnd := binary.LittleEndian.Uint64(head[56:]) == directoryAtEnd
	if overhead < headerSize || overhead > frontLimit {
		return fmt.Errorf("the first grain cannot be at %d", overhead)
	}
	front := append(head, make([]byte, overhead-headerSize)...)
	if err := d.read(front[headerSize:]); err != nil {
		return fmt.Errorf("the stream ends before its first grain: %w", err)
	}
	footer := false
	for {
		var marker [12]byte
		err := d.read(marker[:])
		if errors.Is(err, io.EOF) && !atEnd {
			// With the directory in front there need not be an end marker; it tells how many grains there are.
			if wanted := announced(front, d.capacity); d.grains != wanted {
				return fmt.Errorf("the stream has %d grains, its tables %d", d.grains, wanted)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("the stream ends without an end marker: %w", err)
		}
		number, size := binary.LittleEndian.Uint64(marker[:]), binary.LittleEndian.Uint32(marker[8:])
		if size > 0 {
			if err := d.writeGrain(int64(number)*sectorSize, int64(size)); err != nil {
				return err
			}
			continue
		}
		var kind [4]byte
		if err := d.read(kind[:]); err != nil {
			return err
		}
		if err := d.skip(sectorSize - 16); err != nil {
			return err
		}
		switch binary.LittleEndian.Uint32(kind[:]) {
		case markerEnd:
			if atEnd && !footer {
				return errors.New("the stream has no footer")
			}
			_, err := io.Copy(io.Discard, d.source)
			return err
		case markerFooter:
			footer = true
		}
		if err := d.skip(int64(number) * sectorSize); err != nil {
			return err
		}
	}
}

// announced counts the grains in tables that come before the grains.
func announced(front []byte, capacity int64) int {
	u32 := binary.LittleEndian.Uint32
	entries := int64(u32(front[44:]))
	if entries == 0 {
		return -1
	}
	count := 0
	directory := int64(binary.LittleEndian.Uint64(front[56:])) * sectorSize
	tables := (capacity + entries*grainBytes - 1) / (entries * grainBytes)
	for i := range tables {
		if directory+4*i+4 > int64(len(front)) {
			return -1
		}
		table := int64(u32(front[directory+4*i:])) * sectorSize
		for j := int64(0); table > 0 && j < entries && table+4*j+4 <= int64(len(front)); j++ {
			if u32(front[table+4*j:]) > 1 { // 1: a grain of zeros
				count++
			}
		}
	}
	return count
}

func (d *decoder) read(into []byte) error {
	n, err := io.ReadFull(d.source, into)
	d.place += int64(n)
	return err
}

func (d *decoder) skip(bytes int64) error {
	n, err := io.CopyN(io.Discard, d.source, bytes)
	d.place += n
	return err
}

func (d *decoder) writeGrain(at, size int64) error {
	if size > grainLimit || at >= d.capacity || at%grainBytes != 0 {
		return fmt.Errorf("no grain can have %d bytes at %d", size, at)
	}
	packed := make([]byte, size)
	if err := d.read(packed); err != nil {
		return fmt.Errorf("the stream ends in a grain: %w", err)
	}
	if err := d.skip((sectorSize - d.place%sectorSize) % sectorSize); err != nil {
		return err
	}
	wanted := min(int64(grainBytes), d.capacity-at)
	n, err := d.unpack(packed)
	if err != nil || int64(n) < wanted {
		return fmt.Errorf("the grain at %d has %d of %d bytes: %w", at, n, wanted, err)
	}
	d.grains++
	_, err = d.into.WriteAt(d.grain[:wanted], at)
	return err
}

func (d *decoder) unpack(packed []byte) (int, error) {
	source := &chunk{packed}
	var err error
	if d.inflate == nil {
		d.inflate, err = zlib.NewReader(source)
	} else {
		err = d.inflate.(zlib.Resetter).Reset(source, nil)
	}
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(d.inflate, d.grain[:])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// chunk reads from a slice, a byte at a time too, so that zlib puts no buffer before it.
type chunk struct{ left []byte }

func (c *chunk) Read(into []byte) (int, error) {
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	n := copy(into, c.left)
	c.left = c.left[n:]
	return n, nil
}

func (c *chunk) ReadByte() (byte, error) {
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	b := c.left[0]
	c.left = c.left[1:]
	return b, nil
}
