#!/bin/sh
# The programs of a user whose machines are folders: estate.sh VERB FOLDER. The source of kind `command` calls them.
#
#   disk   its disk             on      it runs           locked  it cannot start
#   quiet  services are stopped starts  a line for each start
#   wait   the verb that waits, after it made `waiting`, until `wait` names another one
set -e
folder=$2
if [ "$(cat "$folder/wait" 2>/dev/null)" = "$1" ]; then
    : >"$folder/waiting"
    while [ "$(cat "$folder/wait")" = "$1" ]; do sleep 0.05; done
fi
if [ -e "$folder/silent" ]; then exit 75; fi
case $1 in
observe)
    if [ -e "$folder/on" ]; then power=on; else power=off; fi
    if [ -e "$folder/locked" ]; then lock=locked; else lock=unlocked; fi
    if [ -e "$folder/quiet" ]; then work=quiesced; else work=working; fi
    echo $power $lock $work
    ;;
before_read) echo "{\"disks\": [\"$folder/disk\"]}" ;;
quiesce) : >"$folder/quiet" ;;
unquiesce) rm -f "$folder/quiet" ;;
stop) rm -f "$folder/on" ;;
prove_stopped)
    if [ -e "$folder/on" ]; then exit 1; fi
    echo "the folder says that it is off"
    ;;
lock) : >"$folder/locked" ;;
unlock) rm -f "$folder/locked" ;;
start)
    if [ -e "$folder/locked" ]; then exit 1; fi
    if [ -e "$folder/on" ]; then exit 0; fi
    rm -f "$folder/quiet"
    : >"$folder/on"
    echo "ownership $FAILBACK_EPOCH" >>"$folder/starts"
    ;;
retire) : >"$folder/retired" ;;
*) exit 2 ;;
esac
