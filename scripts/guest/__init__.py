"""A small machine that boots: its disks are made without root, from packages of the distribution.

`build_guest` for tests, `python -m scripts.guest --help` for people. What the guest does is in `files/`: it says
`failback-guest ready: NAME boot N` on screen and serial port when its services (HTTP, SSH, QEMU guest agent) are up,
and keeps writing a journal that proves at the next boot whether its disks are whole and of one moment.
"""

from pipeline.boot.errors import MediumError
from scripts.guest.build import GuestDisks, build_guest

__all__ = ["GuestDisks", "MediumError", "build_guest"]
