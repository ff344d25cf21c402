package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
)

// Manifest is the part of a recovery point that a restore needs.
type Manifest struct {
	Format   int    `json:"format"`
	Sequence uint64 `json:"sequence"`
	Disks    []Disk `json:"disks"`
}

// Disk of a recovery point.
type Disk struct {
	Number    int    `json:"number"`
	Lineage   Hex    `json:"lineage"`
	Size      uint64 `json:"size"`
	ChunkSize uint64 `json:"chunk_size"`
	Digest    Hex    `json:"digest"`
	Index     struct {
		Pages Hex    `json:"pages"`
		Tiers []Tier `json:"tiers"`
	} `json:"index"`
	Packs []Hex `json:"packs"`
}

// Tier of a disk's index.
type Tier struct {
	Segments []Segment `json:"segments"`
	Table    *Hex      `json:"table"`
}

// Segment of a tier.
type Segment struct {
	ID    Hex    `json:"id"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Count int    `json:"count"`
}

// Report says what was read.
type Report struct {
	Digest string `json:"digest"`
	Chunks int    `json:"chunks"`
	Packs  int    `json:"packs"`
	Tiers  int    `json:"tiers"`
}

func (r *Repository) restore(machine string, sequence uint64, number int, out string) Report {
	key := fmt.Sprintf("manifests/%s/%010d", machine, sequence)
	var manifest Manifest
	check(json.Unmarshal(r.byPlace(key, typeManifest), &manifest))
	require(manifest.Format == 1 && manifest.Sequence == sequence, "%s is of another point", key)
	for _, disk := range manifest.Disks {
		if disk.Number == number {
			return r.restoreDisk(disk, out)
		}
	}
	refuse("%s has no disk %d", key, number)
	return Report{}
}

func (r *Repository) restoreDisk(disk Disk, out string) Report {
	found := r.index(disk)
	report := Report{Tiers: len(disk.Index.Tiers)}
	level := make([]byte, 0, 32*len(found))
	byPack := map[string][]int{}
	live := map[string]int64{}
	for position, e := range found {
		level = append(level, e.id...)
		if e.pack != nil {
			byPack[string(e.pack)] = append(byPack[string(e.pack)], position)
			live[string(e.pack)] += int64(e.length)
			report.Chunks++
		}
	}
	report.Packs = len(byPack)
	digest := derive("failback 2026 disk digest v1", merkle(level),
		binary.LittleEndian.AppendUint64(nil, disk.Size), binary.LittleEndian.AppendUint32(nil, uint32(disk.ChunkSize)))
	require(bytes.Equal(digest, disk.Digest), "the index does not give the digest")
	report.Digest = hex.EncodeToString(digest)
	lists := r.packs(disk)
	for pack := range byPack {
		_, ok := lists[pack]
		require(ok, "a pack is in no list")
	}
	for pack, use := range lists {
		require(use.live == live[pack], "pack %x has %d live bytes, not %d", pack, live[pack], use.live)
	}
	file, err := os.Create(out)
	check(err)
	check(file.Truncate(int64(disk.Size)))
	for pack, positions := range byPack {
		r.restorePack([]byte(pack), lists[pack].stored, disk, found, positions, file)
	}
	check(file.Close())
	return report
}

func merkle(level []byte) []byte {
	if len(level) == 0 {
		return make([]byte, 32)
	}
	for height := 0; height < 2 || len(level) > 32; height++ {
		var above []byte
		for at := 0; at < len(level); at += 64 * 32 {
			above = append(above, hash(level[at:min(at+64*32, len(level))])...)
		}
		level = above
	}
	return level
}

func (r *Repository) restorePack(id []byte, stored uint32, disk Disk, found []Entry, positions []int, file *os.File) {
	digits := hex.EncodeToString(id)
	key := "packs/" + digits[:2] + "/" + digits
	data := r.read(key)
	require(bytes.Equal(hash(data), id), "%s does not have its id", key)
	require(uint32(len(data)) == stored, "%s has %d bytes, its list says %d", key, len(data), stored)
	require(r.header(data, key, false) == typePack, "%s is no pack", key)
	aead := r.sealedKey(data, true)
	table := r.table(data, key)
	require(uint64(table.chunkSize) == disk.ChunkSize, "%s has other chunks", key)
	for _, position := range positions {
		e := found[position]
		require(int(e.slot) < len(table.ids) && bytes.Equal(table.ids[e.slot], e.id) &&
			table.offsets[e.slot] == e.offset && table.lengths[e.slot] == e.length,
			"%s: table and index differ at slot %d", key, e.slot)
		name := fmt.Sprintf("%s, slot %d", key, e.slot)
		plain := unseal(aead, data, uint32(e.slot), data[e.offset:e.offset+e.length], e.id, make([]byte, 16), "", name)
		if e.flags&1 == 0 {
			plain = unzstd(plain, int(disk.ChunkSize), name)
		}
		require(uint64(len(plain)) == disk.ChunkSize && bytes.Equal(r.chunkID(plain), e.id), "%s has another chunk", name)
		at := uint64(position) * disk.ChunkSize
		rest := min(disk.ChunkSize, disk.Size-at)
		require(zero(plain[rest:]), "%s is not padded with zeros", name)
		_, err := file.WriteAt(plain[:rest], int64(at))
		check(err)
	}
}

// Table is what a pack says of itself.
type Table struct {
	chunkSize        uint32
	ids              [][]byte
	offsets, lengths []uint32
}

func (r *Repository) table(data []byte, key string) Table {
	require(len(data) >= headerSize+32, "%s is cut short", key)
	footer := &columns{data[len(data)-32:], key}
	start, length, slots, chunkSize := footer.u32(), footer.u32(), footer.u32(), footer.u32()
	require(footer.u64() == 0 && string(footer.rest) == "kcabliaf", "%s has a damaged footer", key)
	require(uint64(start)+uint64(length)+32 == uint64(len(data)), "%s: the table is elsewhere", key)
	plain := body(data[start:start+length], r.sealedKey(data, true), data, "", key)
	c := &columns{plain, key}
	c.take(16)
	n := int(c.u32())
	found := Table{chunkSize: c.u32(), offsets: make([]uint32, n), lengths: make([]uint32, n)}
	require(uint32(n) == slots && found.chunkSize == chunkSize, "%s: table and footer differ", key)
	found.ids = c.ids(n)
	c.take(8 * n)
	for i := range found.offsets {
		found.offsets[i] = c.u32()
	}
	next := uint32(headerSize)
	for i := range found.lengths {
		found.lengths[i] = c.u32()
		require(found.offsets[i] == next, "%s: chunks do not stand side by side", key)
		next += found.lengths[i]
	}
	require(next == start, "%s: the table is not behind the chunks", key)
	c.take(2 * n)
	c.end()
	return found
}
