"""What a mapping may say for VMware alone: `options: {vmware: {...}}`.

    options:
      vmware:
        address: vcenter.example.org            # or of a single ESXi host; :PORT when it is not 443
        user: failback@vsphere.local
        password: {file: /etc/failback/vcenter} # or {command: PROGRAM}, {variable: NAME}
        fingerprint: "SHA256:6A:1F:..."         # of its certificate; or ca: FILE; else the system's authorities
        datacenter: Home
        cluster: Production                     # or host: esx1.example.org
        datastore: fast-1                       # or of a datastore cluster: its name; `storage:` of the mapping wins

Keys of `machines.NAME.options.vmware` win for that machine; what concerns the connection is one for all machines.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from importers.vmware.secret import SecretSource
from manifests.machine import Model
from pipeline.errors import UsageError
from pipeline.mapping import Size

PASSWORD = "FAILBACK_VMWARE_PASSWORD"
DiskFormat = Literal["thin", "thick", "eager"]
DISK_FORMATS: tuple[DiskFormat, ...] = ("thin", "thick", "eager")
CONNECTION = ("address", "user", "password", "ticket", "fingerprint", "ca", "proxy", "no_proxy", "hosts", "worker")
"""Keys that are one for all machines."""
_GIB = 1 << 30


def _fingerprint(text: str) -> str:
    """64 lower-case hexadecimal digits."""
    plain = re.sub(r"^sha-?256[:=]", "", text.strip(), flags=re.IGNORECASE).replace(":", "").replace(" ", "").lower()
    if re.fullmatch("[0-9a-f]{40}", plain):
        raise ValueError("this is a SHA-1 fingerprint, which can be forged; give the SHA-256 one, 64 digits")
    if not re.fullmatch("[0-9a-f]{64}", plain):
        raise ValueError("a SHA-256 fingerprint has 64 hexadecimal digits")
    return plain


def _address(text: str) -> str:
    if "://" in text or "/" in text or "@" in text:
        raise ValueError("write HOST or HOST:PORT alone, without a scheme, path or user")
    host, port = split_address(text)
    if not host or not 0 < port < 65536:
        raise ValueError("this is no HOST or HOST:PORT")
    return text


def _proxy(text: str) -> str:
    if not re.fullmatch(r"http://[^/@:]+:\d+/?", text):
        raise ValueError("write http://HOST:PORT; a proxy that wants a password is not supported")
    return text.rstrip("/")


def _interface(text: str) -> str:
    ipaddress.ip_interface(text)
    if "/" not in text:
        raise ValueError("write it with its prefix length: 192.0.2.10/24")
    return text


def _ip(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _version(value: object) -> object:
    return f"vmx-{value}" if isinstance(value, int) and not isinstance(value, bool) else value


def split_address(text: str, port: int = 443) -> tuple[str, int]:
    """(host, port) of `HOST`, `HOST:PORT`, `[IPV6]:PORT` or an IPv6 address; ValueError."""
    found = re.fullmatch(r"\[([0-9A-Fa-f:.%]+)\](?::(\d+))?|([^:\[\]]+)(?::(\d+))?", text)
    if found is None:
        return str(ipaddress.IPv6Address(text)), port
    return found[1] or found[3], int(found[2] or found[4] or port)


Address = Annotated[str, AfterValidator(_address)]
Ip = Annotated[str, AfterValidator(_ip)]


class WorkerOptions(Model):
    """The worker machine of the site, one for each cluster. Empty: as it fits."""

    network: str = ""
    """Port group of its adapter; it must reach the bucket. Empty: there is no worker, disks go the bulk way."""
    address: Annotated[str, AfterValidator(lambda t: t and _interface(t))] = ""
    """Static, with prefix length. Empty: DHCP."""
    gateway: Annotated[str, AfterValidator(lambda t: t and _ip(t))] = ""
    dns: tuple[Ip, ...] = ()
    search: tuple[str, ...] = ()
    """Domains that host names are looked up in."""
    ntp: tuple[str, ...] = ()
    proxy: Annotated[str, AfterValidator(lambda t: t and _proxy(t))] = ""
    ca: str = ""
    """File with the authorities that it trusts beside the usual ones, PEM."""
    machine: str = ""
    """A machine of your own, by name, that an agent runs on; `agent` says which. Nothing is made then."""
    agent: str = ""
    """As `failback agent list` shows it."""
    repository: str = ""
    """Address of the repository as the worker reaches it. Empty: as we do."""
    login: str = "environment"
    """Profile of ~/.aws whose credentials it gets for the bucket; best those of the role agent
    (`failback repository policy`). environment: those of this command. Empty: none, the bucket needs none from it."""
    idle: float = Field(default=10.0, ge=0.5, le=600)
    """Seconds between its looks for orders while none is expected; a look is one request to the bucket."""
    image: str = ""
    """Its disk, raw; empty: one is made when it is needed (`failback worker build`)."""
    memory: Size = 2 * _GIB
    cpus: int = Field(default=2, ge=1, le=64)
    pool: str = ""
    folder: str = ""
    datastore: str = ""
    host: str = ""
    """Where it stays. Empty: a host of the cluster that sees the datastores."""

    @property
    def wanted(self) -> bool:
        """There is to be one."""
        return bool(self.network or self.agent)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.machine) != bool(self.agent):
            raise ValueError("`machine` and `agent` belong together")
        if self.address and not self.dns:
            raise ValueError("a worker with a static address needs `dns`")
        if self.memory < _GIB // 2:
            raise ValueError("a worker needs at least 512MiB")
        return self


class VmwareOptions(Model):
    """Empty: where there is only one, it is taken; where the choice is open, the preflight asks."""

    address: Address | None = None
    """vCenter or a single ESXi host."""
    user: str = ""
    password: SecretSource = SecretSource(variable=PASSWORD)
    ticket: SecretSource | None = None
    """Instead of user and password: a clone ticket, or the key of a session that lives. There is no second login."""
    fingerprint: Annotated[str, AfterValidator(lambda t: t and _fingerprint(t))] = ""
    """SHA-256 of the certificate that `address` must show."""
    ca: str = ""
    """File with the authorities that sign the certificates of vCenter and the hosts, PEM."""
    proxy: Annotated[str, AfterValidator(lambda t: t and _proxy(t))] = ""
    """HTTP proxy on the way to vCenter and the hosts. Proxies of the environment are not used."""
    no_proxy: tuple[str, ...] = ()
    """Hosts, domains (`.example.org`) and networks that are reached without it; uploads go to ESXi hosts directly."""
    hosts: dict[str, Address] = Field(default_factory=dict)
    """ESXi host as vCenter calls it -> address that uploads reach it at."""

    datacenter: str = ""
    cluster: str = ""
    host: str = ""
    """A host, in a cluster or standalone; with `cluster`: the machine is made on this host of it."""
    pool: str = ""
    """Resource pool, by name or path below the cluster's or host's. Empty: that itself."""
    datastore: str = ""
    """Or a datastore cluster, of which the member with most free space is taken. For disks without `storage:`."""
    policy: str = ""
    """Storage policy, by name. Empty: the datastore's default."""
    isolated: str = ""
    """An existing port group that leads nowhere, for rehearsals and networks without a name. Empty: one of our own, on
    a switch without uplinks."""
    format: DiskFormat = "thin"
    """Of disks without `format:`."""
    version: Annotated[str, BeforeValidator(_version), Field(pattern=r"^(vmx-\d+)?$")] = ""
    """Hardware version, vmx-NUMBER. Empty: the newest that all hosts of the cluster have."""
    guest: str = Field(default="", pattern=r"^[A-Za-z0-9_]*$")
    """Guest id, as `ubuntu64Guest`. Empty: found from what was recorded of the machine."""
    cores: int = Field(default=0, ge=0, le=4096)
    """CPUs of a socket. Empty (0): as few sockets as the platform's limits allow."""
    uuid: Literal["keep", "new"] = "keep"
    """SMBIOS UUID, which licences and activations hang on."""
    nvram: Literal["fallback", "fresh"] = "fallback"
    """fallback: the boot loader must lie on the fallback path, as a new machine has no boot entries. fresh: that is
    known to be so, no finding."""
    notes: str = ""
    attributes: dict[str, str] = Field(default_factory=dict)
    """Custom attributes, by name."""
    extra: dict[str, str] = Field(default_factory=dict)
    """More advanced settings of the machine (extraConfig)."""
    reserve: int = Field(default=10, ge=0, le=100)
    """Per cent of the disks' data that must be free on their datastore beside them, for what the machine writes on a
    snapshot while it is tried out."""

    compression: int = Field(default=0, ge=0, le=9)
    """Of uploads, as zlib's levels; 0: stored. 1 is worth it over links of less than about 100 MB/s."""
    serial: Literal["rehearsal", "always", "never"] = "rehearsal"
    """When the machine gets a serial port whose output goes to a file beside it, for checks of its console."""

    worker: WorkerOptions = WorkerOptions()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fingerprint and self.ca:
            raise ValueError("say `fingerprint` or `ca`, not both")
        taken = [k for k in self.extra if k.lower().startswith(("failback.", "guestinfo.failback"))]
        if taken:
            raise ValueError(f"the setting {taken[0]} in `extra` is failback's own")
        return self


def parse_options(values: Mapping[str, Any]) -> VmwareOptions:
    """Raises UsageError, which names the key and what is allowed."""
    try:
        return VmwareOptions.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "they"
        if first["type"] == "extra_forbidden":
            model = WorkerOptions if first["loc"][0] == "worker" else VmwareOptions
            known = ", ".join(
                SecretSource.model_fields if first["loc"][0] in ("password", "ticket") else model.model_fields
            )
            raise UsageError(f"options for vmware: {key} is unknown", remedy=f"known are {known}") from None
        reason = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"options for vmware: {key}: {reason}", remedy="correct the mapping") from None


def connection_differs(common: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Keys of the connection that a machine's own options would change: they cannot be its own."""
    return [key for key in CONNECTION if own.get(key) != common.get(key)]
