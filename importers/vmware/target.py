"""The importer `vmware`: `failback import MACHINE --to vmware`.

A place is a machine whose instance UUID is a marker of the place's; the marks on it (`importers.vmware.vm`) say which
recovery point its disks hold. There are two such UUIDs: while a later point is imported as a whole, the machine of the
earlier one stays, and goes when the new one is complete. With a worker in the site the disks are written in place.

What a host of ours notes (the guard, a lease) speeds the next command up or cleans up sooner; the platform alone
decides what is there.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from importers.vmware import bulk, guard, layer, machines, observe, power, preflight
from importers.vmware.connection import Connection
from importers.vmware.inventory import Site, find_site
from importers.vmware.options import VmwareOptions, parse_options
from importers.vmware.vm import Vm, destroy, look, put_marks
from pipeline.catalogue import Point
from pipeline.errors import TargetBusy, TargetError, TargetMismatch, Unsupported
from pipeline.finding import Finding
from pipeline.place import Build, CommandResult, DiskRestored, Endpoint, Observation, Place, Purpose, Stage, State
from pipeline.target import Abilities, Context, Intent, part_of
from pipeline.wanted import Network, Wanted

MACHINE, PLACE, SEQUENCE, STAGING, NAME = "machine", "place", "sequence", "staging", "name"
BUILT, BOOTED, KEPT = "built", "booted", "kept"
