"""Upload: one disk of a machine's latest point as a VMDK stream to a sink, in a process that can be measured."""

import argparse
import http.client
import ssl
from contextlib import closing
from pathlib import Path

from manifests.names import PointName
from pipeline.catalogue import resolve
from pipeline.cli.invocation import Common, Invocation
from pipeline.transfer.disk_stream import DiskStream, StreamOptions
from scripts.bench.sink import ADDRESS


def main() -> None:
    """Settings come from the environment, as for every command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.upload", description=__doc__)
    parser.add_argument("machine")
    parser.add_argument("port", type=int)
    parser.add_argument("certificate", type=Path, help="the only one that is trusted")
    parser.add_argument("--level", type=int, default=0)
    arguments = parser.parse_args()

    invocation = Invocation("upload", Common(quiet=True))
    with invocation.stack:
        repository = invocation.open_repository()
        point = resolve(repository, PointName(arguments.machine, None))
        options = StreamOptions(level=arguments.level, announce=True)
        stream = DiskStream(repository, point, point.manifest.disks[0], options)
        context = ssl.create_default_context(cafile=str(arguments.certificate))
        with closing(http.client.HTTPSConnection(ADDRESS, arguments.port, context=context)) as connection:
            headers = {"Content-Type": "application/x-vnd.vmware-streamVmdk"}
            if stream.length is not None:
                headers["Content-Length"] = str(stream.length)
            connection.request("POST", "/disk", body=iter(stream), headers=headers, encode_chunked=True)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the sink answered {answer.status}")


if __name__ == "__main__":
    main()
