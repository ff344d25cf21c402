package main

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const vmdkType = "application/x-vnd.vmware-streamVmdk"

// refusal is an HTTP answer.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

// serveNFC takes uploads. The address itself is the ticket: no cookie is asked for. Which status a real host answers a
// bad upload with is unverified, but for 400 to streams of an old version.
func (w *World) serveNFC(answer http.ResponseWriter, request *http.Request) {
	w.tally.call("NFC " + request.Method)
	ticket, name := request.PathValue("ticket"), request.PathValue("file")
	body, lose, done := w.rules.disturbUpload(answer, request)
	if done {
		return
	}
	upload := w.upload(ticket, name)
	if upload == nil {
		w.refuse(answer, request, &refusal{http.StatusNotFound, "there is no such lease, or it has ended"})
		return
	}
	if err := w.accept(upload, request); err != nil {
		w.refuse(answer, request, err)
		return
	}
	switch err := w.receive(upload, body, request.ContentLength); {
	case errors.Is(err, errCut):
		return
	case errors.Is(err, errEnded):
		hangUp(answer)
		return
	case err != nil:
		w.refuse(answer, request, err)
		return
	case lose:
		hangUp(answer)
		return
	}
	answer.WriteHeader(http.StatusCreated)
}

// refuse answers an upload that is not taken.
func (w *World) refuse(answer http.ResponseWriter, request *http.Request, err error) {
	status := http.StatusInternalServerError
	if known, ok := err.(*refusal); ok {
		status = known.status
	}
	turnAway(answer, request, status, err.Error())
}

// turnAway answers and hangs up. Some of the body is read before, or the client would see a broken connection and no
// answer; a client with much to send sees just that.
func turnAway(answer http.ResponseWriter, request *http.Request, status int, reason string) {
	_, _ = io.CopyN(io.Discard, request.Body, 16<<20)
	answer.Header().Set("Connection", "close")
	http.Error(answer, reason, status)
}

// accept looks at the request before its body.
func (w *World) accept(upload *Upload, request *http.Request) error {
	if upload.disk == "" {
		if request.Method != http.MethodPut {
			return &refusal{http.StatusMethodNotAllowed, "files are PUT"}
		}
		return nil
	}
	switch kind := request.Header.Get("Content-Type"); {
	case request.Method != http.MethodPost && request.Method != http.MethodPut:
		return &refusal{http.StatusMethodNotAllowed, "disks are POSTed"}
	case kind != vmdkType:
		return &refusal{http.StatusUnsupportedMediaType, fmt.Sprintf("a disk is %s, not %q", vmdkType, kind)}
	case request.ContentLength < 0 && !w.settings.Chunked:
		return &refusal{http.StatusLengthRequired, "a Content-Length is needed"}
	}
	return nil
}

// receive keeps the body and makes the disk of it. `length` is negative when it is not known.
func (w *World) receive(upload *Upload, body io.Reader, length int64) error {
	if !upload.guard.TryLock() {
		return &refusal{http.StatusConflict, "this disk is being uploaded already"}
	}
	defer upload.guard.Unlock()
	upload.taken = false
	digest, more := sha1.New(), io.Discard
	var strong hash.Hash
	if upload.strong {
		strong = sha256.New()
		more = strong
	}
	source := io.TeeReader(&held{&limited{body, w.host.rate}, upload.lease}, io.MultiWriter(digest, more))
	defer func() {
		if upload.sha256 = nil; strong != nil {
			upload.sha256 = strong.Sum(nil)
		}
	}()
	if upload.disk == "" {
		size, err := keepFile(upload.file, source)
		upload.taken, upload.sha1, upload.size = err == nil, digest.Sum(nil), size
		return err
	}
	disk, err := w.openDisk(upload.disk)
	if err != nil {
		return err
	}
	w.tally.uploadBegan(upload.disk, length)
	var header [headerSize]byte
	if _, err := io.ReadFull(source, header[:]); errors.Is(err, errCut) || errors.Is(err, errEnded) {
		return err
	} else if err != nil {
		return &refusal{http.StatusBadRequest, "the stream ends in its header"}
	}
	if err := checkHeader(header[:], disk.Capacity); err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	whole := &counter{source: io.MultiReader(bytes.NewReader(header[:]), source), tally: w.tally, disk: upload.disk}
	if w.settings.Direct {
		err = decode(whole, disk)
	} else {
		err = w.spool(whole, disk)
	}
	switch {
	case errors.Is(err, errCut), errors.Is(err, errEnded):
		return err
	case err != nil:
		return &refusal{http.StatusBadRequest, err.Error()}
	case length >= 0 && whole.bytes != length:
		return &refusal{http.StatusBadRequest, "the stream was cut off"}
	}
	if failure := w.overfull(upload.disk); failure != nil {
		go upload.lease.fail(failure)
		return &refusal{http.StatusInternalServerError, failure.Text}
	}
	if !upload.lease.isOpen() {
		return errEnded
	}
	upload.taken, upload.sha1, upload.size = true, digest.Sum(nil), whole.bytes
	w.tally.uploadDone(upload.disk, allocated(disk.Blocks()))
	return nil
}

// spool keeps the stream until it is whole and has qemu-img read it.
func (w *World) spool(stream io.Reader, disk *Descriptor) error {
	file, err := os.CreateTemp(w.settings.Home, "nfc-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	size, err := io.Copy(file, stream)
	if err != nil {
		return err
	}
	if err := checkFile(file, size); err != nil {
		return err
	}
	return convert(file.Name(), disk)
}

// errEnded is what the body of an upload reads as when its lease is over: a host hangs up then.
var errEnded = errors.New("the lease has ended meanwhile")

// held is a body that is read as long as its lease is open.
type held struct {
	source io.Reader
	lease  *Lease
}

func (h *held) Read(into []byte) (int, error) {
	if !h.lease.isOpen() {
		return 0, errEnded
	}
	return h.source.Read(into)
}

func keepFile(file string, source io.Reader) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return 0, err
	}
	into, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer into.Close()
	return io.Copy(into, source)
}

// convert has qemu-img read the stream: an independent reader, not the writer's own idea of the format.
func convert(stream string, disk *Descriptor) error {
	// Emptied first, so that what qemu-img leaves out reads as zeros.
	if err := os.Truncate(disk.Blocks(), 0); err != nil {
		return err
	}
	if err := os.Truncate(disk.Blocks(), disk.Capacity); err != nil {
		return err
	}
	command := exec.Command("qemu-img", "convert", "-q", "-n", "--target-is-zero", "-t", "writeback",
		"-f", "vmdk", "-O", "raw", stream, disk.Blocks())
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img does not read the stream: %s %w", strings.TrimSpace(string(output)), err)
	}
	return nil
}

// overfull says so when an upload made a datastore hold more than it can.
func (w *World) overfull(disk string) *Failure {
	datastore := w.datastore(strings.TrimPrefix(strings.SplitN(disk, "]", 2)[0], "["))
	if datastore != nil && w.space.used(datastore) > w.space.size(datastore.Name) {
		return noSpace(datastore, disk)
	}
	return nil
}

// counter counts what arrived for a disk.
type counter struct {
	source io.Reader
	tally  *Tally
	disk   string
	bytes  int64
}

func (c *counter) Read(into []byte) (int, error) {
	n, err := c.source.Read(into)
	c.bytes += int64(n)
	c.tally.uploaded(c.disk, int64(n))
	return n, err
}
