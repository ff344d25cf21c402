package main

import (
	"encoding/json"
	"net"
	"net/http"
)

// startControl listens on the loopback for tests. Every address is a verb of README.md.
func (w *World) startControl() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /report", func(answer http.ResponseWriter, _ *http.Request) { say(answer, w.report()) })
	mux.HandleFunc("GET /machines/{name}", func(answer http.ResponseWriter, request *http.Request) {
		if vm := w.byName(request.PathValue("name")); vm != nil {
			say(answer, w.machineState(vm))
			return
		}
		http.Error(answer, "there is no such machine", http.StatusNotFound)
	})
	mux.HandleFunc("DELETE /report", func(answer http.ResponseWriter, _ *http.Request) { w.tally.reset(); say(answer, nil) })
	mux.HandleFunc("GET /rules", func(answer http.ResponseWriter, _ *http.Request) { say(answer, w.rules.copies()) })
	mux.HandleFunc("DELETE /rules", func(answer http.ResponseWriter, _ *http.Request) { w.rules.clear(); say(answer, nil) })
	mux.HandleFunc("POST /rules", hear(func(_ *http.Request, rule *Rule) error { return w.rules.add(rule) }))
	mux.HandleFunc("POST /host", hear(func(_ *http.Request, wish *struct {
		Reachable *bool  `json:"reachable"`
		Rate      *int64 `json:"rate"`
	}) error {
		if wish.Rate != nil {
			w.host.rate.set(*wish.Rate)
		}
		if wish.Reachable != nil {
			return w.host.reach(*wish.Reachable)
		}
		return nil
	}))
	mux.HandleFunc("POST /datastores/{name}", hear(func(request *http.Request, wish *struct {
		Size int64 `json:"size"`
	}) error {
		if w.datastore(request.PathValue("name")) == nil {
			return &refusal{http.StatusNotFound, "there is no such datastore"}
		}
		w.space.resize(request.PathValue("name"), wish.Size)
		return nil
	}))
	mux.HandleFunc("POST /machines/{name}/guest", hear(func(request *http.Request, guest *GuestState) error {
		return w.setGuest(request.PathValue("name"), guest)
	}))
	mux.HandleFunc("POST /machines/{name}/question", hear(func(request *http.Request, question *Question) error {
		return w.ask(request.PathValue("name"), question)
	}))
	mux.HandleFunc("POST /machines/{name}/forward", tell(func(request *http.Request, wish *Forward) (any, error) {
		return w.forward(request.PathValue("name"), wish)
	}))
	mux.HandleFunc("POST /users", hear(func(_ *http.Request, user *User) error { return w.access.addUser(user) }))
	mux.HandleFunc("POST /license", hear(func(_ *http.Request, wish *struct {
		Restricted bool `json:"restricted"`
	}) error {
		w.access.restrict(wish.Restricted)
		w.showLicence(wish.Restricted)
		return nil
	}))
	mux.HandleFunc("DELETE /sessions", func(answer http.ResponseWriter, _ *http.Request) { w.endSessions(); say(answer, nil) })
	go func() { _ = http.Serve(listener, mux) }()
	return "http://" + listener.Addr().String(), nil
}

// hear reads a JSON body. What it has too much is an error: a misspelt switch would go unnoticed.
func hear[T any](do func(*http.Request, *T) error) http.HandlerFunc {
	return tell(func(request *http.Request, wish *T) (any, error) { return nil, do(request, wish) })
}

// tell is hear with an answer.
func tell[T any](do func(*http.Request, *T) (any, error)) http.HandlerFunc {
	return func(answer http.ResponseWriter, request *http.Request) {
		wish := new(T)
		decoder := json.NewDecoder(request.Body)
		decoder.DisallowUnknownFields()
		err := decoder.Decode(wish)
		if err == nil {
			var said any
			if said, err = do(request, wish); err == nil {
				say(answer, said)
				return
			}
		}
		status := http.StatusBadRequest
		if known, ok := err.(*refusal); ok {
			status = known.status
		}
		http.Error(answer, err.Error(), status)
	}
}

func say(answer http.ResponseWriter, value any) {
	answer.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(answer).Encode(value)
}
