// A second reader of the repository format, written from manifests/FORMAT.md alone and sharing no code and no library
// with failback. It restores a disk of a recovery point in a directory repository, and refuses whatever is not as the
// format says: what it writes is what FORMAT.md says the disk is.
//
//	independent RING REPOSITORY MACHINE SEQUENCE DISK OUT
//
// RING is a JSON file: {"root": HEX, "ids": HEX, "generations": {"1": {"index": HEX, "data": HEX}}}, or {} for a
// repository that is not encrypted. MACHINE is the encoded name, as it stands in keys. It prints what it read.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Ring holds the keys of a repository; Root is nil when it is not encrypted.
type Ring struct {
	Root        Hex                   `json:"root"`
	IDs         Hex                   `json:"ids"`
	Generations map[uint32]Generation `json:"generations"`
}

// Generation holds the keys that objects of one generation are sealed with.
type Generation struct {
	Index Hex `json:"index"`
	Data  Hex `json:"data"`
}

// Hex is bytes that JSON holds in hexadecimal.
type Hex []byte

// UnmarshalJSON reads a string of hexadecimal digits.
func (h *Hex) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	found, err := hex.DecodeString(text)
	*h = found
	return err
}

// Repository is a folder of objects and what opens them.
type Repository struct {
	folder string
	id     []byte
	ring   Ring
}

func (r *Repository) encrypted() bool { return r.ring.Root != nil }

func (r *Repository) read(key string) []byte {
	data, err := os.ReadFile(filepath.Join(r.folder, filepath.FromSlash(key)))
	check(err)
	return data
}

// refusal is what ends the program: something is not as the format says.
type refusal struct{ text string }

func refuse(format string, values ...any) { panic(refusal{fmt.Sprintf(format, values...)}) }

func check(err error) {
	if err != nil {
		refuse("%v", err)
	}
}

func require(ok bool, format string, values ...any) {
	if !ok {
		refuse(format, values...)
	}
}

func main() {
	defer func() {
		if found, ok := recover().(refusal); ok {
			fmt.Fprintln(os.Stderr, found.text)
			os.Exit(1)
		}
	}()
	require(len(os.Args) == 7, "usage: independent RING REPOSITORY MACHINE SEQUENCE DISK OUT")
	var ring Ring
	text, err := os.ReadFile(os.Args[1])
	check(err)
	check(json.Unmarshal(text, &ring))
	repository := open(os.Args[2], ring)
	sequence, err := strconv.ParseUint(os.Args[4], 10, 64)
	check(err)
	number, err := strconv.Atoi(os.Args[5])
	check(err)
	report := repository.restore(os.Args[3], sequence, number, os.Args[6])
	check(json.NewEncoder(os.Stdout).Encode(report))
}

func open(folder string, ring Ring) *Repository {
	found := &Repository{folder: folder, ring: ring}
	var document struct {
		Format int    `json:"format"`
		ID     string `json:"id"`
	}
	check(json.Unmarshal(found.read("repository.json"), &document))
	require(document.Format == 1, "format %d", document.Format)
	id, err := hex.DecodeString(document.ID)
	check(err)
	require(len(id) == 16, "the repository's id has %d bytes", len(id))
	found.id = id
	return found
}
