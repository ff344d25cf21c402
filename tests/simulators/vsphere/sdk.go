package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// serveSDK hands calls to the simulator, unless a rule says otherwise.
func (w *World) serveSDK(answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	call := Call{Time: time.Now(), Method: "unreadable"}
	var object types.ManagedObjectReference
	if method, err := simulator.UnmarshalBody(types.TypeFunc(), body); err == nil {
		call.Method, call.Object, object = method.Name, method.This.Value, method.This
	}
	if cookie, err := request.Cookie(soap.SessionCookieName); err == nil {
		call.User = w.userOf(cookie.Value)
	}
	rule := w.rules.match(call.Method, object, w.nameOf(object))
	if rule == nil {
		w.tally.record(call)
		w.service.ServeSDK(answer, request)
		return
	}
	call.Rule = rule.Action
	w.tally.record(call)
	w.disturb(rule, object, answer, request)
}

// disturb does what a rule says with a call.
func (w *World) disturb(rule *Rule, object types.ManagedObjectReference, answer http.ResponseWriter, request *http.Request) {
	switch rule.Action {
	case actionDelay:
		time.Sleep(time.Duration(rule.Milliseconds) * time.Millisecond)
		w.service.ServeSDK(answer, request)
	case actionStatus:
		http.Error(answer, http.StatusText(rule.Status), rule.Status)
	case actionCut:
		hangUp(answer)
	case actionLose:
		// The call takes effect, its answer is lost.
		w.service.ServeSDK(httptest.NewRecorder(), request)
		hangUp(answer)
	case actionFault:
		failure, err := namedFault(rule.Fault, rule.Text, object)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		writeFault(answer, failure)
	}
}

// writeFault is the answer of a call that is refused.
func writeFault(answer http.ResponseWriter, failure *Failure) {
	kind := reflect.TypeOf(failure.Fault).Elem().Name()
	start := xml.StartElement{Name: xml.Name{Local: kind + "Fault"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "urn:vim25"}, {Name: xml.Name{Local: "xsi:type"}, Value: kind},
	}}
	var detail, text bytes.Buffer
	if err := xml.NewEncoder(&detail).EncodeElement(failure.Fault, start); err != nil {
		http.Error(answer, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = xml.EscapeText(&text, []byte(failure.Text))
	answer.Header().Set("Content-Type", "text/xml; charset=utf-8")
	answer.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(answer, `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope `+
		`xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" `+
		`xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">`+
		`<soapenv:Body><soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>%s</faultstring>`+
		`<detail>%s</detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>`, text.String(), detail.String())
}

func hangUp(answer http.ResponseWriter) {
	if connection, _, err := answer.(http.Hijacker).Hijack(); err == nil {
		connection.Close()
	}
}

// nameOf is what people call an object, empty for one without a name.
func (w *World) nameOf(ref types.ManagedObjectReference) string {
	if entity, ok := w.model.Map().Get(ref).(mo.Entity); ok {
		return entity.Entity().Name
	}
	return ""
}

func (w *World) userOf(session string) string {
	for _, known := range w.sessionList() {
		if known.Key == session {
			return known.UserName
		}
	}
	return ""
}

func (w *World) sessionList() []types.UserSession {
	observer := w.background(nil).Session
	manager := observer.Get(w.model.Map().SessionManager().Reference()).(*simulator.SessionManager)
	return manager.SessionList
}

// authorized says whether a request carries the cookie of a session that lives: it is tried with a harmless call, which
// also keeps the session from being idle.
func (w *World) authorized(request *http.Request) bool {
	const body = `<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><CurrentTime xmlns="urn:vim25">` +
		`<_this type="ServiceInstance">ServiceInstance</_this></CurrentTime></Body></Envelope>`
	probe := httptest.NewRequest(http.MethodPost, "/sdk", strings.NewReader(body))
	for _, cookie := range request.Cookies() {
		probe.AddCookie(cookie)
	}
	recorder := httptest.NewRecorder()
	w.service.ServeSDK(recorder, probe)
	return recorder.Code == http.StatusOK
}
