package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// HttpNfcLeasePullFromUrlsTask is HttpNfcLeasePullFromUrls_Task: the host itself downloads the disks, from whoever the
// client names, with the TLS pin and the HTTP headers it is given. Which fault a failed download has is unverified.
func (l *Lease) HttpNfcLeasePullFromUrlsTask(
	ctx *simulator.Context, request *types.HttpNfcLeasePullFromUrls_Task,
) soap.HasFault {
	body := &methods.HttpNfcLeasePullFromUrls_TaskBody{}
	if failure := l.ended(); failure != nil {
		body.Fault_ = failure.soap()
		return body
	}
	task := l.world.announce(ctx, l, "HttpNfcLeasePullFromUrls_Task")
	body.Res = &types.HttpNfcLeasePullFromUrls_TaskResponse{Returnval: task.Self}
	go func() {
		for _, file := range request.Files {
			if err := l.pull(&file); err != nil {
				fault := &types.HttpFault{StatusCode: http.StatusBadGateway, StatusMessage: err.Error()}
				l.world.finish(task, nil, &Failure{fault, "Cannot pull " + file.TargetDeviceId + ": " + err.Error()})
				return
			}
		}
		l.world.finish(task, nil, nil)
	}()
	return body
}

// target is the upload that a device id means: the importKey of the lease's information.
func (l *Lease) target(device string) *Upload {
	for _, url := range l.Info.DeviceUrl {
		if url.ImportKey == device {
			return l.uploads[strings.Join(lastTwo(url.Url), "/")]
		}
	}
	return nil
}

func (l *Lease) pull(file *types.HttpNfcLeaseSourceFile) error {
	upload := l.target(file.TargetDeviceId)
	if upload == nil {
		return errors.New("the lease has no such device")
	}
	if file.MemberName != "" {
		return errors.New("the stand-in reads no archives")
	}
	client, err := pinned(file)
	if err != nil {
		return err
	}
	length := file.Size
	if length == 0 {
		// A host asks for the size when it is not told.
		answer, err := ask(client, http.MethodHead, file)
		if err != nil {
			return err
		}
		answer.Body.Close()
		length = answer.ContentLength
	}
	answer, err := ask(client, http.MethodGet, file)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if length >= 0 && answer.ContentLength >= 0 && answer.ContentLength != length {
		return fmt.Errorf("%d bytes were announced, %d come", length, answer.ContentLength)
	}
	return l.world.receive(upload, answer.Body, answer.ContentLength)
}

func ask(client *http.Client, method string, file *types.HttpNfcLeaseSourceFile) (*http.Response, error) {
	request, err := http.NewRequest(method, file.Url, nil)
	if err != nil {
		return nil, err
	}
	for _, header := range file.HttpHeaders {
		request.Header.Add(header.Key, header.Value)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, fmt.Errorf("%s %s", method, answer.Status)
	}
	return answer, nil
}

// pinned is a client that talks only to the holder of the certificate that was named. Without one a certificate must be
// one that the system trusts.
func pinned(file *types.HttpNfcLeaseSourceFile) (*http.Client, error) {
	config := &tls.Config{}
	switch {
	case file.SslCertificate != "":
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(file.SslCertificate)) {
			return nil, errors.New("sslCertificate is no PEM certificate")
		}
	case file.SslThumbprint != "":
		config.InsecureSkipVerify = true
		config.VerifyPeerCertificate = func(certificates [][]byte, _ [][]*x509.Certificate) error {
			short, long := sha1.Sum(certificates[0]), sha256.Sum256(certificates[0])
			for _, print := range []string{colons(short[:]), colons(long[:])} {
				if strings.EqualFold(print, file.SslThumbprint) {
					return nil
				}
			}
			return errors.New("the server's certificate has another thumbprint")
		}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ResponseHeaderTimeout: time.Minute}}, nil
}

// HttpNfcLeaseProbeUrls says which sources the host reaches.
func (l *Lease) HttpNfcLeaseProbeUrls(_ *simulator.Context, request *types.HttpNfcLeaseProbeUrls) soap.HasFault {
	var results []types.HttpNfcLeaseProbeResult
	for _, file := range request.Files {
		client, err := pinned(&file)
		if err == nil {
			if request.Timeout > 0 {
				client.Timeout = time.Duration(request.Timeout) * time.Second
			}
			var answer *http.Response
			if answer, err = ask(client, http.MethodHead, &file); err == nil {
				_, _ = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
		}
		results = append(results, types.HttpNfcLeaseProbeResult{ServerAccessible: err == nil})
	}
	return &methods.HttpNfcLeaseProbeUrlsBody{Res: &types.HttpNfcLeaseProbeUrlsResponse{Returnval: results}}
}
