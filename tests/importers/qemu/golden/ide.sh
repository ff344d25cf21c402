#!/bin/sh
# Starts 'web-1, again' (production). It keeps the terminal until the machine is off;
# its console is in serial.log, events are in events.log. failback writes this file anew.
cd "$(dirname "$0")" || exit 1
exec /usr/bin/qemu-system-x86_64 \
    -name 'guest=web-1,, again' \
    -uuid 6f8e3b52-0f0e-5c3c-9a53-6d1b0c6f9a11 \
    -nodefaults -no-user-config \
    -pidfile pid \
    -machine pc \
    -accel tcg,thread=multi \
    -cpu max \
    -smp cpus=2,sockets=1,cores=2,threads=1 \
    -m size=1025M \
    -rtc base=utc \
    -boot strict=on \
    -blockdev driver=qcow2,node-name=disk0,file.driver=file,file.filename=disk0.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk1,file.driver=file,file.filename=disk1.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=qcow2,node-name=disk2,file.driver=file,file.filename=disk2.qcow2,discard=unmap,file.discard=unmap \
    -blockdev driver=raw,node-name=disk3,file.driver=file,file.filename=../stage/disk3.raw,discard=unmap,file.discard=unmap \
    -device ide-hd,bus=ide.0,unit=0,drive=disk0,bootindex=0,werror=stop,rerror=stop \
    -device ide-hd,bus=ide.0,unit=1,drive=disk1,bootindex=1,werror=stop,rerror=stop \
    -device ide-hd,bus=ide.1,unit=0,drive=disk2,bootindex=2,werror=stop,rerror=stop \
    -device virtio-blk-pci,drive=disk3,bootindex=3,logical_block_size=512,physical_block_size=512,werror=stop,rerror=stop \
    -vga std \
    -display gtk \
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
