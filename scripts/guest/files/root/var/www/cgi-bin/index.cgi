#!/bin/sh
. /etc/guest/common

cat <<EOF
Content-Type: text/plain

failback-guest
name: $name
boot: $(cat $run/boot)
status: $(cat $settings/status)
data disk: $(cat $run/data)
journal at boot: $(cat $run/journal-check)
journal now: $(cat $run/journal 2>/dev/null || echo 0)
EOF
