package main

import (
	"encoding/hex"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Upload is one file that a lease waits for.
type Upload struct {
	lease  *Lease
	key    string
	disk   string // datastore path
	file   string // of what is no disk: a local path
	guard  sync.Mutex
	taken  bool // the last transfer was whole
	sha1   []byte
	strong bool // SHA-256 is asked for too
	sha256 []byte
	size   int64
}

// lastTwo are the parts of an address that name an upload.
func lastTwo(url string) []string {
	parts := strings.Split(url, "/")
	return parts[len(parts)-2:]
}

// upload finds what an address of a lease stands for, nil for an address that is not valid (any more).
func (w *World) upload(ticket, name string) *Upload {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, lease := range w.leases {
		if upload := lease.uploads[ticket+"/"+name]; upload != nil && lease.isOpen() {
			return upload
		}
	}
	return nil
}

// HttpNfcLeaseGetManifest tells the digests of what arrived.
func (l *Lease) HttpNfcLeaseGetManifest(*simulator.Context, *types.HttpNfcLeaseGetManifest) soap.HasFault {
	var entries []types.HttpNfcLeaseManifestEntry
	for _, upload := range l.uploads {
		upload.guard.Lock()
		if upload.taken {
			entry := types.HttpNfcLeaseManifestEntry{
				Key: upload.key, Sha1: hex.EncodeToString(upload.sha1), Size: upload.size, Disk: upload.disk != "",
			}
			if upload.sha256 != nil {
				entry.Checksum, entry.ChecksumType = hex.EncodeToString(upload.sha256), "sha256"
			}
			if disk, err := l.world.openDisk(upload.disk); err == nil {
				entry.Capacity, entry.PopulatedSize = disk.Capacity, allocated(disk.Blocks())
			}
			entries = append(entries, entry)
		}
		upload.guard.Unlock()
	}
	return &methods.HttpNfcLeaseGetManifestBody{Res: &types.HttpNfcLeaseGetManifestResponse{Returnval: entries}}
}

// HttpNfcLeaseSetManifestChecksumType asks for SHA-256 beside SHA-1, by the keys of the device URLs (unverified).
func (l *Lease) HttpNfcLeaseSetManifestChecksumType(
	_ *simulator.Context, request *types.HttpNfcLeaseSetManifestChecksumType,
) soap.HasFault {
	for _, wish := range request.DeviceUrlsToChecksumTypes {
		for _, upload := range l.uploads {
			if upload.key == wish.Key {
				upload.guard.Lock()
				upload.strong = strings.EqualFold(wish.Value, "sha256")
				upload.guard.Unlock()
			}
		}
	}
	return &methods.HttpNfcLeaseSetManifestChecksumTypeBody{Res: &types.HttpNfcLeaseSetManifestChecksumTypeResponse{}}
}
