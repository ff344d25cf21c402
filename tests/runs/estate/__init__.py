"""An estate that is real: machines in QEMU with a database in one of them, a client of it, and a watcher of beacons."""
