"""From an address to its store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.store.adaptive import AdaptiveStore
from pipeline.store.address import Address, DirectoryAddress, MemoryAddress, S3Address, parse_address
from pipeline.store.base import Store
from pipeline.store.directory import DirectoryStore
from pipeline.store.limit import LimitStore
from pipeline.store.memory import MemoryStore
from pipeline.store.retry import Backoff, RetryStore
from pipeline.store.trace import Tally, TraceStore

if TYPE_CHECKING:
    from pipeline.config import Settings


def open_store(
    address: Address | str,
    settings: Settings | None = None,
    *,
    create: bool = False,
    tally: Tally | None = None,
    log: Callable[[str], object] | None = None,
    tell: Callable[[str], object] = lambda _text: None,
) -> Store:
    """The store at `address`, wrapped as retry(limit(adaptive(trace(backend)))). `tell` hears of long silence.

    So a request that waits for its next attempt holds no slot, and `tally` counts every attempt. With `create`, a
    directory that does not exist is made (buckets are not).
    """
    from pipeline.config import Settings

    settings = settings or Settings()
    address = parse_address(address) if isinstance(address, str) else address
    traced = TraceStore(_open_backend(address, settings, create=create), tally or Tally(), log=log)
    limited = LimitStore(
        AdaptiveStore(traced, most=settings.parallel),
        parallel=settings.parallel,
        upload=settings.upload_limit,
        download=settings.download_limit,
        requests=settings.request_limit,
    )
    return RetryStore(limited, Backoff(deadline=settings.retry_deadline), tell=tell)


def _open_backend(address: Address, settings: Settings, *, create: bool) -> Store:
    match address:
        case DirectoryAddress(path):
            return DirectoryStore(path, create=create)
        case MemoryAddress(name):
            return _shared_memory(name)
        case S3Address():
            from pipeline.store.s3 import S3Store, Timeouts

            timeouts = Timeouts(settings.connect_timeout, settings.request_timeout, settings.stall_timeout)
            return S3Store(address, timeouts=timeouts)


_memory: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def _shared_memory(name: str) -> MemoryStore:
    """The one piece of process-wide state: two openers of one memory:// address must meet."""
    with _memory_lock:
        return _memory.setdefault(name, MemoryStore(f"memory://{name}"))
