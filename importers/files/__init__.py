"""Restore disks to image files or block devices."""
