"""How a hook gets to a TCP port of the guest."""

from __future__ import annotations

from pipeline.target import Endpoint
from pipeline.verify.hook import Outcome, failed, not_applicable
from pipeline.verify.subject import Subject


def endpoint_of(subject: Subject, port: int) -> Endpoint | Outcome:
    """Where the port is reached, or what it means that it is not (now, or ever)."""
    endpoint = subject.reach(port)
    if endpoint is not None:
        return endpoint
    if not subject.networks:
        return not_applicable("the machine has no network adapter: no port of it can be reached")
    if subject.isolated and not subject.abilities.forward:
        return not_applicable("the network is isolated, and this platform forwards no ports")
    if subject.isolated:
        return failed(f"port {port} is not forwarded")
    return failed(f"no way to port {port}: no address of the machine is known")


def at(endpoint: Endpoint, port: int) -> str:
    """`127.0.0.1:40022 (port 22)`."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}" + (f" (port {port})" if endpoint.port != port else "")


def what_failed(error: OSError) -> str:
    """In a word or two: `connection refused`, `timed out`, ..."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    return error.strerror or str(error) or type(error).__name__
