package main

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
)

// serveFolder serves the files of datastores: GET, HEAD, PUT and DELETE of /folder/<path>?dcPath=…&dsName=…, as the
// Web Services SDK Programming Guide documents them. A session's cookie is asked for.
func (w *World) serveFolder(mux *http.ServeMux) {
	for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE"} {
		mux.HandleFunc(method+" /folder/", func(answer http.ResponseWriter, request *http.Request) {
			w.tally.call("folder " + request.Method)
			if !w.disturbFolder(answer, request) {
				w.folder(answer, request)
			}
		})
	}
}

// disturbFolder applies a rule and says whether it has answered.
func (w *World) disturbFolder(answer http.ResponseWriter, request *http.Request) bool {
	rule := w.rules.find("folder", path.Base(request.URL.Path), "", func(*Rule) bool { return true })
	if rule == nil {
		return false
	}
	switch rule.Action {
	case actionStatus:
		http.Error(answer, http.StatusText(rule.Status), rule.Status)
	default:
		hangUp(answer)
	}
	return true
}

func (w *World) folder(answer http.ResponseWriter, request *http.Request) {
	if !w.authorized(request) {
		answer.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(answer, "log in first", http.StatusUnauthorized)
		return
	}
	datastore := w.named(request.URL.Query())
	inside := strings.TrimPrefix(request.URL.Path, "/folder/")
	if datastore == nil || !filepath.IsLocal(inside) {
		http.NotFound(answer, request)
		return
	}
	file := filepath.Join(datastore.Summary.Url, inside)
	if w.lockedFile(file) != nil {
		hangUp(answer) // what hosts do when a file is in use
		return
	}
	switch request.Method {
	case http.MethodGet, http.MethodHead:
		info, err := os.Stat(file)
		if err != nil || info.IsDir() {
			http.NotFound(answer, request)
			return
		}
		opened, err := os.Open(file)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		defer opened.Close()
		http.ServeContent(answer, request, "", info.ModTime(), opened)
	case http.MethodDelete:
		if err := os.Remove(file); err != nil {
			http.NotFound(answer, request)
			return
		}
		answer.WriteHeader(http.StatusNoContent)
	default:
		w.put(answer, request, datastore, file)
	}
}

// put replaces the whole file, also when the request has a range: no public client is known that patches by it.
func (w *World) put(answer http.ResponseWriter, request *http.Request, datastore *simulator.Datastore, file string) {
	if request.ContentLength > w.space.free(datastore) {
		http.Error(answer, "no space left on the datastore", http.StatusInsufficientStorage)
		return
	}
	_, err := os.Stat(file)
	status := http.StatusOK
	if err != nil {
		status = http.StatusCreated
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
		http.NotFound(answer, request) // folders are made by FileManager.MakeDirectory
		return
	}
	into, err := os.Create(file)
	if err == nil {
		_, err = io.Copy(into, request.Body)
		err = firstError(err, into.Close())
	}
	if err != nil {
		http.Error(answer, err.Error(), http.StatusInternalServerError)
		return
	}
	answer.WriteHeader(status)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// named is the datastore of a query. dcPath is the datacenter's path from the root; a single host has only one.
func (w *World) named(query url.Values) *simulator.Datastore {
	datastore := w.datastore(query.Get("dsName"))
	if datastore == nil || w.settings.ESX {
		return datastore
	}
	if strings.Trim(query.Get("dcPath"), "/") != w.datacenterPath(datastore) {
		return nil
	}
	return datastore
}

func (w *World) datacenterPath(datastore *simulator.Datastore) string {
	var names []string
	inside := false
	for parent := datastore.Parent; parent != nil; {
		entity, ok := w.model.Map().Get(*parent).(mo.Entity)
		if !ok {
			break
		}
		if parent.Type == "Datacenter" {
			inside = true
		}
		if inside && entity.Entity().Parent != nil {
			names = append([]string{entity.Entity().Name}, names...)
		}
		parent = entity.Entity().Parent
	}
	return strings.Join(names, "/")
}
