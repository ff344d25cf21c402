#!/bin/sh
# The programs of a user who looks after a machine that is a process: toy.sh VERB FOLDER. The source of kind `command`
# calls them. The machine is toy_machine.py; its folder has
#
#   disk          its disk
#   acknowledged  the last number that a client saw
#   pid           of its process
#   quiet         it is asked to stop its services; quiet.done when it has
#   locked        it cannot be started
#   starts        a line for each start
set -e
folder=$2

runs() {
    number=$(cat "$folder/pid" 2>/dev/null) && grep -qs toy_machine "/proc/$number/cmdline"
}

case $1 in
observe)
    if runs; then power=on; else power=off; fi
    if [ -e "$folder/locked" ]; then lock=locked; else lock=unlocked; fi
    if [ -e "$folder/quiet" ] && [ -e "$folder/quiet.done" ]; then work=quiesced; else work=working; fi
    echo $power $lock $work
    ;;
before_read)
    cp "$folder/disk" "$folder/snapshot"
    echo "a line of its own"
    echo "{\"disks\": [\"$folder/snapshot\"]}"
    ;;
after_read) rm "$folder/snapshot" ;;
quiesce)
    : >"$folder/quiet"
    while [ ! -e "$folder/quiet.done" ]; do sleep 0.01; done
    ;;
unquiesce)
    rm -f "$folder/quiet"
    while [ -e "$folder/quiet.done" ]; do sleep 0.01; done
    ;;
stop)
    if runs; then kill -9 "$number"; fi
    while runs; do sleep 0.01; done
    ;;
prove_stopped)
    if runs; then
        echo "process $number runs" >&2
        exit 1
    fi
    echo "no process runs it"
    ;;
start)
    if [ -e "$folder/locked" ]; then
        echo "it is locked" >&2
        exit 1
    fi
    if runs; then exit 0; fi
    rm -f "$folder/quiet" "$folder/quiet.done"
    echo "ownership $FAILBACK_EPOCH" >>"$folder/starts"
    setsid -f "$3" -I -S "$(dirname "$0")/toy_machine.py" "$folder" </dev/null >/dev/null 2>&1
    while ! runs; do sleep 0.01; done
    ;;
lock) : >"$folder/locked" ;;
unlock) rm -f "$folder/locked" ;;
*) exit 2 ;;
esac
