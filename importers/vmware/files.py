"""Small files of a datastore, over the host's or vCenter's /folder: pictures and serial logs, never disks.

`/folder/PATH?dcPath=DATACENTER&dsName=DATASTORE` answers GET and DELETE to whoever shows the session's cookie (vSphere
Web Services SDK Programming Guide, "Datastore Access"). An ampersand in the datacenter's name has to be quoted twice
there.
"""

from __future__ import annotations

import http.client
import re
from urllib.parse import quote, urlencode

from importers.vmware.connection import Connection
from pipeline.errors import TargetError, TargetMismatch, TargetUnavailable

SECONDS = 30.0
MOST = 16 << 20
"""Bytes of one file that are read at most."""


def split_path(path: str) -> tuple[str, str]:
    """(datastore, file) of `[datastore] folder/file`."""
    found = re.fullmatch(r"\[([^\]]+)\] ?(.+)", path)
    if found is None:
        raise TargetMismatch(f"{path!r} is no path of a datastore", remedy="look at the machine in the vSphere client")
    return found[1], found[2]


def fetch(connection: Connection, datacenter: str, path: str, *, tail: int = 0) -> bytes | None:
    """The file, or its last `tail` bytes; None: it is not there. Raises TargetUnavailable and TargetError."""
    headers = {"Range": f"bytes=-{tail}"} if tail else {}
    status, data = _request(connection, "GET", datacenter, path, headers)
    if status == 404:
        return None
    if status == 416:  # an empty file has no last bytes
        return b""
    if status not in (200, 206):
        raise _refused(connection, "read", path, status)
    return data[-tail:] if tail else data


def delete(connection: Connection, datacenter: str, path: str) -> None:
    """One that is gone already is gone."""
    status, _data = _request(connection, "DELETE", datacenter, path, {})
    if status not in (200, 202, 204, 404):
        raise _refused(connection, "delete", path, status)


def _request(
    connection: Connection, method: str, datacenter: str, path: str, headers: dict[str, str]
) -> tuple[int, bytes]:
    datastore, file = split_path(path)
    cookie = connection.cookie()  # logs in, and tells where to
    proxy = connection.proxy
    if proxy.serves(connection.host):
        line = http.client.HTTPSConnection(proxy.host, proxy.port, timeout=SECONDS, context=connection.context)
        line.set_tunnel(connection.host, connection.port)
    else:
        line = http.client.HTTPSConnection(
            connection.host, connection.port, timeout=SECONDS, context=connection.context
        )
    where = urlencode({"dcPath": datacenter.replace("&", "%26"), "dsName": datastore})
    try:
        line.request(method, f"/folder/{quote(file)}?{where}", headers={**headers, "Cookie": cookie})
        answer = line.getresponse()
        return answer.status, answer.read(MOST)
    except (OSError, http.client.HTTPException) as error:
        raise TargetUnavailable(
            f"cannot reach {path} through {connection.name}: {error}", remedy="check the network, and try again"
        ) from error
    finally:
        line.close()


def _refused(connection: Connection, verb: str, path: str, status: int) -> TargetError:
    return TargetError(
        f"{connection.name} does not let us {verb} {path}: HTTP {status}",
        remedy="give the user Datastore.Browse and Datastore.FileManagement on that datastore",
    )
