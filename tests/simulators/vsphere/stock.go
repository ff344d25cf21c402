package main

import (
	"crypto/tls"
	"net/url"

	// The policy service beside vCenter.
	_ "github.com/vmware/govmomi/pbm/simulator"
	"github.com/vmware/govmomi/simulator"
)

// startStock serves govmomi's simulator with none of our changes: a check by others of the shape of our calls.
func startStock(settings Settings) (*Ready, func(), error) {
	model := newModel(settings)
	if err := model.Create(); err != nil {
		return nil, nil, err
	}
	certificate, err := newCertificate("stock simulator", settings.Listen)
	if err != nil {
		return nil, nil, err
	}
	service := model.Service
	service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate.TLS}}
	service.RegisterEndpoints = true
	service.Listen = &url.URL{Host: settings.Listen, User: url.UserPassword(settings.User, settings.Password)}
	server := service.NewServer()
	ready := &Ready{
		Address: server.URL.Hostname(), Port: portOf(server.URL.Host),
		User: settings.User, Password: settings.Password,
		Fingerprint: certificate.SHA256, Certificate: certificate.PEM,
	}
	return ready, server.Close, nil
}

// newModel is the inventory: a standalone host DC0_H0, clusters DC0_C0…, datastores LocalDS_0…, the networks "VM Network"
// and DC0_DVPG0. No machines.
func newModel(settings Settings) *simulator.Model {
	model := simulator.VPX()
	if settings.ESX {
		model = simulator.ESX()
	} else {
		model.Cluster, model.ClusterHost, model.Host = settings.Clusters, settings.ClusterHosts, 1
	}
	model.Machine, model.Autostart = 0, false
	model.Datastore, model.Pod = settings.Datastores, settings.Pods
	// Without it pyvmomi speaks an old version, which knows no pull mode.
	model.ServiceContent.About.ApiVersion, model.ServiceContent.About.Version = "8.0.3.0", "8.0.3"
	return model
}
