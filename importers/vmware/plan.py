"""What is to be made of one machine, and where: everything that is decided before the first change."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.datastores import Datastore, all_datastores, find_datastore
from importers.vmware.environment import look_around
from importers.vmware.folders import folders_needed, make_folders
from importers.vmware.hardware import Choice, choose_hardware
from importers.vmware.inventory import Entity, Site, check_usable, find_folder, find_site
from importers.vmware.networks import all_networks
from importers.vmware.options import VmwareOptions
from importers.vmware.placing import fitting_hosts, place_disks
from importers.vmware.policies import find_policy
from importers.vmware.properties import values_of
from importers.vmware.spec import NewDisk, home_of, machine_spec
from manifests.manifest import Disk, Manifest
from pipeline.errors import TargetError
from pipeline.target import Journal
from pipeline.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Plan:
    """`home`: the datastore of the machine's own files. `disks` in the order of their numbers."""

    options: VmwareOptions
    site: Site
    folder: Entity
    host: Any
    """Where it is made; None: vCenter chooses."""
    choice: Choice
    home: Datastore
    disks: tuple[NewDisk, ...]
    stores: tuple[Datastore, ...]
    """Of the disks."""
    machine: str
    """Its name at the source."""

    def make_folders(self, connection: Connection, name: str, marker: uuid.UUID, journal: Journal) -> None:
        """Those that disks beside the machine's home need, before `spec` is given."""
        paths = folders_needed(self.disks, self.home.name, home_of(name, marker))
        make_folders(connection, self.site, self.stores, paths, journal)

    def spec(
        self, name: str, marker: uuid.UUID, place: uuid.UUID, settings: Mapping[str, str], *, meanwhile: str = ""
    ) -> Any:
        """Of the machine that holds the stage: with its disks, and no adapter yet. `marker` is its own; its files are
        named by `name` also when it has another one `meanwhile`."""
        spec = machine_spec(
            name,
            replace(self.choice, cards=()),
            self.options,
            marker,
            place=place,
            machine=self.machine,
            datastore=self.home.name,
            disks=self.disks,
            settings=settings,
        )
        spec.name = meanwhile or name
        return spec


def choose(connection: Connection, site: Site, disks: Sequence[Disk], wanted: Wanted, options: VmwareOptions) -> Choice:
    """The hardware that the site's hosts can give. Raises TargetError for what they cannot."""
    choice = choose_hardware(disks, wanted, options, look_around(connection, site, options.version))
    for finding in choice.findings:
        if finding.severity == "error":
            raise TargetError(f"{finding.subject}: {finding.message}", remedy=finding.remedy)
    return choice


def plan_machine(connection: Connection, manifest: Manifest, wanted: Wanted, options: VmwareOptions) -> Plan:
    """Raises NoChoice and TargetError for what cannot be decided or is not there."""
    site = find_site(connection, options)
    check_usable(site)
    choice = choose(connection, site, manifest.disks, wanted, options)
    placements, findings = place_disks(all_datastores(connection, site), site, manifest.disks, wanted, options)
    for finding in findings:
        if finding.severity == "error":
            raise TargetError(f"{finding.subject}: {finding.message}", remedy=finding.remedy)
    profile = ""
    if options.policy:
        profile = find_policy(connection, options.policy).id
    slots = {slot.number: slot for slot in choice.slots}
    disks = tuple(
        NewDisk(slots[placed.number], placed.size, placed.datastore.name, placed.format, profile)
        for placed in sorted(placements, key=lambda placed: placed.number)
    )
    home = placements[0].datastore if placements else find_datastore(connection, site, options.datastore)
    stores = tuple({placed.datastore.id: placed.datastore for placed in placements}.values())
    return Plan(
        options=options,
        site=site,
        folder=find_folder(connection, site, wanted.folder),
        host=host_of(connection, site, stores, [card.network for card in choice.cards if card.network]),
        choice=choice,
        home=home,
        disks=disks,
        stores=stores,
        machine=manifest.machine.name,
    )


def host_of(connection: Connection, site: Site, stores: Sequence[Datastore], networks: Sequence[str]) -> Any:
    """A cluster that balances its load chooses by itself; any other wants to be told. Raises NoChoice when none of
    its hosts has what the machine needs."""
    if site.named_host is not None:
        return site.named_host.object
    if not isinstance(site.compute.object, vim.ClusterComputeResource):
        return None
    path = "configurationEx.drsConfig.enabled"
    if values_of(connection, site.compute.object, path).get(path):
        return None
    there = [network for network in all_networks(connection, site) if network.name in networks] if networks else []
    return fitting_hosts(site, stores, there)[0].object
