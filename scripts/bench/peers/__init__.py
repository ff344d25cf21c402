"""Peers: the programs that take part, each behind the same few verbs."""

from scripts.bench.peers.base import Peer, Site
from scripts.bench.peers.borg import Borg
from scripts.bench.peers.failback import Failback, FailbackPlain
from scripts.bench.peers.kopia import Kopia, KopiaSparse
from scripts.bench.peers.qemu import QemuImg
from scripts.bench.peers.restic import Restic, ResticSparse
from scripts.bench.peers.zstd import Zstd

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Failback, FailbackPlain, Restic, ResticSparse, Kopia, KopiaSparse, Borg, QemuImg, Zstd)
}

__all__ = ["PEERS", "Peer", "Site"]
