#!/bin/sh
# Starts db-1 (rehearsal). It keeps the terminal until the machine is off;
# its console is in serial.log, events are in events.log. failback writes this file anew.
cd "$(dirname "$0")" || exit 1
exec /usr/bin/qemu-system-x86_64 \
    -name guest=db-1 \
    -uuid 6f8e3b52-0f0e-5c3c-9a53-6d1b0c6f9a11 \
    -nodefaults -no-user-config \
    -pidfile pid \
    -machine q35,pflash0=code,pflash1=variables,smm=on \
    -accel kvm \
    -cpu host \
    -smp cpus=2,sockets=1,cores=2,threads=1 \
    -m size=1025M \
    -rtc base=utc \
    -global driver=cfi.pflash01,property=secure,value=on \
    -blockdev driver=raw,node-name=code,file.driver=file,file.filename=/fw/CODE.fd,read-only=on \
    -blockdev driver=raw,node-name=variables,file.driver=file,file.filename=nvram.fd \
    -boot strict=on \
    -blockdev driver=qcow2,node-name=disk0,file.driver=file,file.filename=disk0.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk1,file.driver=file,file.filename=disk1.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk2,file.driver=file,file.filename=disk2.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk3,file.driver=file,file.filename=disk3.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk4,file.driver=file,file.filename=disk4.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk5,file.driver=file,file.filename=disk5.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk6,file.driver=file,file.filename=disk6.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk7,file.driver=file,file.filename=disk7.qcow2,discard=unmap,file.discard=unmap \
    -device ich9-ahci,id=sata0 \
    -device ide-hd,bus=sata0.0,drive=disk0,bootindex=0,werror=stop,rerror=stop \
    -device ide-hd,bus=sata0.1,drive=disk1,bootindex=1,werror=stop,rerror=stop \
    -device ide-hd,bus=sata0.2,drive=disk2,bootindex=2,werror=stop,rerror=stop \
    -device ide-hd,bus=sata0.3,drive=disk3,bootindex=3,werror=stop,rerror=stop \
    -device ide-hd,bus=sata0.4,drive=disk4,bootindex=4,werror=stop,rerror=stop \
    -device ide-hd,bus=sata0.5,drive=disk5,bootindex=5,werror=stop,rerror=stop \
    -device ich9-ahci,id=sata1 \
    -device ide-hd,bus=sata1.0,drive=disk6,bootindex=6,werror=stop,rerror=stop \
    -device ide-hd,bus=sata1.1,drive=disk7,bootindex=7,werror=stop,rerror=stop \
    -vga std \
    -display none \
    -chardev socket,id=serial0,path=serial.sock,server=on,wait=off,logfile=serial.log,logappend=off \
    -serial chardev:serial0 \
    -chardev socket,id=qmp,path=qmp.sock,server=on,wait=off \
    -mon chardev=qmp,mode=control \
    -chardev stdio,id=events,signal=off \
    -mon chardev=events,mode=control \
    -action panic=pause \
    -device pvpanic \
    -device virtio-rng-pci \
    -device virtio-serial-pci \
    -chardev socket,id=agent,path=agent.sock,server=on,wait=off \
    -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 \
    <events.in >>events.log
