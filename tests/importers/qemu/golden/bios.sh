#!/bin/sh
# Starts 'web-1, again' (production). It keeps the terminal until the machine is off;
# its console is in serial.log, events are in events.log. failback writes this file anew.
cd "$(dirname "$0")" || exit 1
exec /usr/bin/qemu-system-x86_64 \
    -name 'guest=web-1,, again' \
    -uuid 6f8e3b52-0f0e-5c3c-9a53-6d1b0c6f9a11 \
    -nodefaults -no-user-config \
    -pidfile pid \
    -machine q35 \
    -accel tcg,thread=multi \
    -cpu max \
    -smp cpus=2,sockets=1,cores=2,threads=1 \
    -m size=1025M \
    -rtc base=utc \
    -boot strict=on \
    -blockdev driver=qcow2,node-name=disk0,file.driver=file,file.filename=disk0.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk1,file.driver=file,file.filename=disk1.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk2,file.driver=file,file.filename=disk2.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk3,file.driver=file,file.filename=disk3.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk4,file.driver=file,file.filename=disk4.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk5,file.driver=file,file.filename=disk5.qcow2,discard=unmap,file.discard=unmap \
    -device virtio-blk-pci,drive=disk0,bootindex=1,serial=a,,b,logical_block_size=4096,physical_block_size=4096,werror=stop,rerror=stop \
    -device pvscsi,id=pvscsi0 \
    -device scsi-hd,bus=pvscsi0.0,scsi-id=0,lun=0,drive=disk1,bootindex=0,logical_block_size=512,physical_block_size=512,werror=stop,rerror=stop \
    -device scsi-hd,bus=pvscsi0.0,scsi-id=1,lun=0,drive=disk5,bootindex=5,logical_block_size=512,physical_block_size=512,werror=stop,rerror=stop \
    -device mptsas1068,id=lsisas0 \
    -device scsi-hd,bus=lsisas0.0,scsi-id=0,lun=0,drive=disk2,bootindex=2,wwn=0x312dec45d5eee516,logical_block_size=512,physical_block_size=512,werror=stop,rerror=stop \
    -device nvme,drive=disk3,bootindex=3,serial=failback-3,logical_block_size=512,physical_block_size=512 \
    -device virtio-scsi-pci,id=virtio-scsi0 \
    -device scsi-hd,bus=virtio-scsi0.0,scsi-id=0,lun=0,drive=disk4,bootindex=4,serial=ssssssssssssssssssssssssssssssssssss,logical_block_size=512,physical_block_size=512,werror=stop,rerror=stop \
    -netdev bridge,id=net0,br=br0 \
    -device vmxnet3,netdev=net0,mac=52:54:00:00:00:01,romfile= \
    -netdev user,id=net1,restrict=off,net=192.168.7.0/24,host=192.168.7.2,dns=192.168.7.3,dhcpstart=192.168.7.1,hostfwd=tcp:127.0.0.1:2222-192.168.7.1:22,hostfwd=tcp:127.0.0.1:8080-192.168.7.1:80 \
    -device virtio-net-pci,netdev=net1,mac=52:54:00:00:00:02,romfile= \
    -netdev user,id=net2,restrict=on \
    -device e1000e,netdev=net2,mac=52:54:00:00:00:03,romfile= \
    -vga std \
    -display vnc=unix:vnc.sock \
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
    -device usb-tablet \
    <events.in >>events.log
