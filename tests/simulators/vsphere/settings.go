package main

import (
	"flag"
	"os"
	"time"
)

// Settings are what can only be said at the start; the rest is said through the control address.
type Settings struct {
	Home           string
	Listen         string
	HostListen     string
	User           string
	Password       string
	ESX            bool
	Stock          bool
	QEMU           bool
	Chunked        bool
	Direct         bool
	DropEmpty      bool
	LeaseTimeout   time.Duration
	SessionTimeout time.Duration
	UploadRate     int64
	DatastoreSize  int64
	Datastores     int
	ClusterHosts   int
	Clusters       int
	Pods           int
}

func parseSettings(arguments []string) (Settings, error) {
	var s Settings
	flags := flag.NewFlagSet("vsphere", flag.ContinueOnError)
	flags.StringVar(&s.Home, "home", os.TempDir(), "folder for the datastores")
	flags.StringVar(&s.Listen, "listen", "127.0.0.1:0", "address of the API")
	flags.StringVar(&s.HostListen, "host-listen", "127.0.0.2:0", "upload address of the ESXi host behind a vCenter")
	flags.StringVar(&s.User, "user", "administrator@vsphere.local", "")
	flags.StringVar(&s.Password, "password", "stand-in", "")
	flags.BoolVar(&s.ESX, "esx", false, "a single ESXi host and no vCenter")
	flags.BoolVar(&s.Stock, "stock", false, "govmomi's simulator as it is, without anything of ours")
	flags.BoolVar(&s.QEMU, "qemu", false, "powering a machine on boots QEMU on its disks")
	flags.BoolVar(&s.Chunked, "chunked", false, "uploads without a content length are taken")
	flags.BoolVar(&s.Direct, "direct", false, "uploads are written as they come, not read by qemu-img afterwards")
	flags.BoolVar(&s.DropEmpty, "drop-empty-controllers", false, "a controller goes with its last disk")
	flags.DurationVar(&s.LeaseTimeout, "lease-timeout", 300*time.Second, "")
	flags.DurationVar(&s.SessionTimeout, "session-timeout", 0, "idle time after which a session ends; 0: never")
	flags.Int64Var(&s.UploadRate, "upload-rate", 0, "bytes a second that the host takes; 0: as fast as it can")
	flags.Int64Var(&s.DatastoreSize, "datastore-size", 1<<40, "bytes of each datastore")
	flags.IntVar(&s.Datastores, "datastores", 2, "")
	flags.IntVar(&s.ClusterHosts, "cluster-hosts", 2, "")
	flags.IntVar(&s.Clusters, "clusters", 1, "")
	flags.IntVar(&s.Pods, "pods", 0, "datastore clusters, without members at first")
	return s, flags.Parse(arguments)
}
