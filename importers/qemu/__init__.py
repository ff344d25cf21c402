"""Machines on this host, by QEMU."""
