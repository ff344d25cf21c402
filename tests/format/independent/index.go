package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
)

const pagePositions = 4096

// Entry says where the chunk of one position is. A zero chunk has no pack.
type Entry struct {
	id, pack       []byte
	offset, length uint32
	slot, flags    uint16
}

// columns takes numbers and byte strings off the front of a plain form.
type columns struct {
	rest []byte
	name string
}

func (c *columns) take(length int) []byte {
	require(length >= 0 && length <= len(c.rest), "%s is cut short", c.name)
	found := c.rest[:length]
	c.rest = c.rest[length:]
	return found
}

func (c *columns) u16() uint16 { return binary.LittleEndian.Uint16(c.take(2)) }
func (c *columns) u32() uint32 { return binary.LittleEndian.Uint32(c.take(4)) }
func (c *columns) u64() uint64 { return binary.LittleEndian.Uint64(c.take(8)) }

func (c *columns) end() { require(len(c.rest) == 0, "%s has %d bytes too many", c.name, len(c.rest)) }

func (c *columns) ids(count int) [][]byte {
	found := make([][]byte, count)
	for i := range found {
		found[i] = c.take(32)
	}
	return found
}

func (c *columns) ascending(count int) [][]byte {
	found := c.ids(count)
	for i := 1; i < count; i++ {
		require(bytes.Compare(found[i-1], found[i]) < 0, "%s: ids do not ascend", c.name)
	}
	return found
}

// entries reads the plain form of a page (dense) or an overlay segment.
func entries(plain []byte, dense bool, name string) ([]uint64, []Entry) {
	c := &columns{plain, name}
	n, m, disk, none, first := int(c.u32()), int(c.u32()), c.u32(), c.u32(), c.u64()
	require(disk == 0 && none == 0, "%s is neither page nor segment", name)
	packs := c.ascending(m)
	positions := make([]uint64, n)
	for i := range positions {
		positions[i] = first + uint64(i)
		if !dense {
			positions[i] = c.u64()
			require(i == 0 && positions[0] == first || i > 0 && positions[i] > positions[i-1],
				"%s: positions do not ascend", name)
		}
	}
	found := make([]Entry, n)
	for i, id := range c.ids(n) {
		found[i].id = id
	}
	numbers := make([]uint32, n)
	for i := range found {
		numbers[i] = c.u32()
	}
	for i := range found {
		found[i].offset = c.u32()
	}
	for i := range found {
		found[i].length = c.u32()
	}
	for i := range found {
		found[i].slot = c.u16()
	}
	used := make([]bool, m)
	for i := range found {
		e := &found[i]
		e.flags = c.u16()
		require(e.flags&^3 == 0, "%s: unknown flags", name)
		if zero(e.id) {
			require(numbers[i] == 0 && e.offset == 0 && e.length == 0 && e.slot == 0 && e.flags&^2 == 0,
				"%s: a zero chunk is somewhere", name)
			continue
		}
		require(int(numbers[i]) < m, "%s: there is no pack %d", name, numbers[i])
		e.pack, used[numbers[i]] = packs[numbers[i]], true
		end := uint64(e.offset) + uint64(e.length)
		require(e.length > 0 && e.offset >= headerSize && end <= 16<<20 && e.slot < 4096, "%s: an impossible entry", name)
	}
	for _, one := range used {
		require(one, "%s lists a pack it does not use", name)
	}
	c.end()
	return positions, found
}

// index gives the entries of all positions of a disk: pages, and over them the tiers, the oldest first.
func (r *Repository) index(disk Disk) []Entry {
	count := (disk.Size + disk.ChunkSize - 1) / disk.ChunkSize
	c := &columns{r.byID(disk.Index.Pages, typeDirectory), "page directory"}
	require(c.u64() == count, "the page directory is of another disk")
	pages := int(c.u32())
	require(c.u32() == 0 && uint64(pages) == (count+pagePositions-1)/pagePositions, "the page directory is damaged")
	found := make([]Entry, count)
	for i := range found {
		found[i].id = make([]byte, 32)
	}
	for number, id := range c.ids(pages) {
		if zero(id) {
			continue
		}
		positions, rows := entries(r.byID(id, typePage), true, "page "+hex.EncodeToString(id))
		want := min(count-uint64(number)*pagePositions, pagePositions)
		require(uint64(len(rows)) == want && positions[0] == uint64(number)*pagePositions, "a page is elsewhere")
		copy(found[positions[0]:], rows)
	}
	c.end()
	for i := len(disk.Index.Tiers) - 1; i >= 0; i-- {
		for _, segment := range r.segments(disk.Index.Tiers[i]) {
			name := "segment " + hex.EncodeToString(segment.ID)
			positions, rows := entries(r.byID(segment.ID, typeSegment), false, name)
			last := len(rows) - 1
			require(last+1 == segment.Count && positions[0] == segment.First && positions[last] == segment.Last,
				"%s is not what names it", name)
			for at, position := range positions {
				require(position < count, "%s is behind the disk's end", name)
				found[position] = rows[at]
			}
		}
	}
	return found
}

func (r *Repository) segments(tier Tier) []Segment {
	if tier.Table == nil {
		return tier.Segments
	}
	c := &columns{r.byID(*tier.Table, typeSegmentTable), "segment table"}
	found := make([]Segment, c.u32())
	require(c.u32() == 0, "the segment table is damaged")
	for i, id := range c.ids(len(found)) {
		found[i].ID = id
	}
	for i := range found {
		found[i].First = c.u64()
	}
	for i := range found {
		found[i].Last = c.u64()
	}
	for i := range found {
		found[i].Count = int(c.u32())
		require(i == 0 || found[i-1].Last < found[i].First, "the segments of a table do not ascend")
	}
	c.end()
	return found
}

// Use is what the pack lists say of one pack.
type Use struct {
	stored uint32
	live   int64
}

// packs adds up the pack lists of a disk.
func (r *Repository) packs(disk Disk) map[string]Use {
	total := map[string]Use{}
	for _, id := range disk.Packs {
		c := &columns{r.byID(id, typePackList), "pack list " + hex.EncodeToString(id)}
		n := int(c.u32())
		require(c.u32() == 0, "%s is damaged", c.name)
		ids := c.ascending(n)
		stored := make([]uint32, n)
		for i := range stored {
			stored[i] = c.u32()
		}
		for i, pack := range ids {
			use := total[string(pack)]
			require(stored[i] == 0 || use.stored == 0 || use.stored == stored[i], "%s: two lengths", c.name)
			use.stored = max(use.stored, stored[i])
			use.live += int64(c.u64())
			total[string(pack)] = use
		}
		c.end()
	}
	return total
}
