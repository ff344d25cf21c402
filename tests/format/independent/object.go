package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
)

// Types of objects, FORMAT.md section 2.
const (
	typePack         = 1
	typePage         = 2
	typeSegment      = 3
	typePackList     = 4
	typeDirectory    = 5
	typeManifest     = 6
	typeSegmentTable = 14
)

const (
	headerSize  = 128
	tagSize     = 16
	bodySlot    = 1<<32 - 1
	certificate = 136
	maxBody     = 64 << 20
	roleExport  = 1
	roleAdmin   = 8
)

func hash(parts ...[]byte) []byte {
	hasher := blake3.New()
	for _, part := range parts {
		hasher.Write(part)
	}
	return hasher.Sum(nil)
}

func derive(context string, parts ...[]byte) []byte {
	out := make([]byte, 32)
	blake3.DeriveKey(context, bytes.Join(parts, nil), out)
	return out
}

// chunkID is BLAKE3 of a plain chunk, keyed when the repository is encrypted; a chunk of zeros has 32 zero bytes.
func (r *Repository) chunkID(plain []byte) []byte {
	if !r.encrypted() {
		return hash(plain)
	}
	hasher, err := blake3.NewKeyed(r.ring.IDs)
	check(err)
	hasher.Write(plain)
	return hasher.Sum(nil)
}

// header checks the envelope and returns the type.
func (r *Repository) header(data []byte, name string, signed bool) byte {
	require(len(data) >= headerSize, "%s has %d bytes", name, len(data))
	require(string(data[32:40]) == "failback", "%s is no object", name)
	require(data[41] == 1 && data[43] == 0, "%s has version %d", name, data[41])
	flags := byte(0)
	if r.encrypted() {
		flags = 1
		if signed {
			flags = 3
		}
	}
	require(data[42] == flags, "%s has flags %d, not %d", name, data[42], flags)
	require((binary.LittleEndian.Uint32(data[44:]) != 0) == r.encrypted(), "%s has no generation", name)
	require(bytes.Equal(data[48:64], r.id), "%s is of another repository", name)
	return data[40]
}

// sealedKey is the cipher of one object: of its data for packs, else of the index.
func (r *Repository) sealedKey(data []byte, pack bool) cipher.AEAD {
	if !r.encrypted() {
		return nil
	}
	keys, ok := r.ring.Generations[binary.LittleEndian.Uint32(data[44:])]
	require(ok, "there is no key of generation %d", binary.LittleEndian.Uint32(data[44:]))
	key := keys.Index
	if pack {
		key = keys.Data
	}
	block, err := aes.NewCipher(derive("failback 2026 object key v1", key, data[:32]))
	check(err)
	found, err := cipher.NewGCM(block)
	check(err)
	return found
}

// unseal opens one slot. Associated data: bytes 32 to 63 of the envelope, slot, chunk id, 16 bytes, the key in ASCII.
func unseal(aead cipher.AEAD, header []byte, slot uint32, sealed, chunk, before []byte, place, name string) []byte {
	if aead == nil {
		return sealed
	}
	nonce := make([]byte, 12)
	binary.LittleEndian.PutUint32(nonce, slot)
	bound := append([]byte{}, header[32:64]...)
	bound = binary.LittleEndian.AppendUint32(bound, slot)
	bound = append(bound, chunk...)
	bound = append(bound, before...)
	bound = append(bound, place...)
	plain, err := aead.Open(nil, nonce, sealed, bound)
	require(err == nil, "%s does not authenticate", name)
	return plain
}

// body opens a sealed body.
func body(data []byte, aead cipher.AEAD, header []byte, place, name string) []byte {
	require(len(data) >= 16, "%s is cut short", name)
	head, payload := data[:16], data[16:]
	length := binary.LittleEndian.Uint64(head[8:])
	require(head[0] <= 1 && zero(head[1:8]) && length <= maxBody, "%s has a damaged body", name)
	plain := unseal(aead, header, bodySlot, payload, make([]byte, 32), head, place, name)
	if head[0] == 1 {
		plain = unzstd(plain, int(length), name)
	}
	require(uint64(len(plain)) == length, "%s has %d bytes, not %d", name, len(plain), length)
	return plain
}

var decoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBody))

func unzstd(frame []byte, length int, name string) []byte {
	var head zstd.Header
	check(head.Decode(frame))
	require(head.HasFCS && head.FrameContentSize == uint64(length) && head.DictionaryID == 0 && length > 0,
		"%s has another frame", name)
	plain, err := decoder.DecodeAll(frame, make([]byte, 0, length))
	require(err == nil, "%s does not decompress: %v", name, err)
	return plain
}

// byID reads an object under pages/, or its id does not match.
func (r *Repository) byID(id []byte, kind byte) []byte {
	digits := hex.EncodeToString(id)
	key := "pages/" + digits[:2] + "/" + digits
	data := r.read(key)
	require(bytes.Equal(hash(data), id), "%s does not have its id", key)
	require(r.header(data, key, false) == kind, "%s is of another type", key)
	return body(data[headerSize:], r.sealedKey(data, false), data, "", key)
}

// byPlace reads a manifest: checksum, signature, certificate, right, and the body.
func (r *Repository) byPlace(key string, kind byte) []byte {
	data := r.read(key)
	require(len(data) > headerSize+32, "%s is cut short", key)
	end := len(data) - 32
	require(bytes.Equal(hash(data[:end], []byte(key)), data[end:]), "%s does not have its checksum", key)
	data = data[:end]
	require(r.header(data, key, true) == kind, "%s is of another type", key)
	if r.encrypted() {
		r.signature(data, key)
		data = data[:len(data)-certificate]
	}
	return body(data[headerSize:], r.sealedKey(data, false), data, key, key)
}

func (r *Repository) signature(data []byte, key string) {
	require(len(data) >= headerSize+16+tagSize+certificate, "%s has no certificate", key)
	given := data[len(data)-certificate:]
	public, roles, scope := given[:32], given[32], given[40:72]
	require(zero(given[33:40]), "%s has a damaged certificate", key)
	text := append([]byte("failback 2026 writer certificate v1"), r.id...)
	require(ed25519.Verify(ed25519.PublicKey(r.ring.Root), append(text, given[:72]...), given[72:]),
		"%s: the root did not certify its writer", key)
	text = append([]byte("failback 2026 object signature v1"), hash(data[:64], make([]byte, 64), data[headerSize:])...)
	require(ed25519.Verify(ed25519.PublicKey(public), append(text, key...), data[64:headerSize]),
		"%s: its signature does not match", key)
	if roles&roleAdmin == 0 {
		machine := derive("failback 2026 machine scope v1", []byte(strings.Split(key, "/")[1]))
		require(roles&roleExport != 0 && (zero(scope) || bytes.Equal(scope, machine)), "%s: its writer may not", key)
	}
}

func zero(data []byte) bool {
	for _, value := range data {
		if value != 0 {
			return false
		}
	}
	return true
}
