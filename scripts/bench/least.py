"""The least that a restore takes, part by part."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Parts:
    """The least CPU seconds of each part of a restore, chunks being compressed in this way. Sizes in bytes: of the
    chunks in the bucket, and of what is not zeros on the disk."""

    way: str
    stored: int
    written: int
    serve: float
    receive: float
    open: float
    decode: float
    hash: float
    write: float

    @property
    def whole(self) -> float:
        return self.trusting + self.hash

    @property
    def trusting(self) -> float:
        """Where what a cipher authenticates is not hashed."""
        return self.bare + self.open

    @property
    def bare(self) -> float:
        """Neither encrypted nor hashed: bytes are moved, and nothing proves them."""
        return self.serve + self.receive + self.decode + self.write
