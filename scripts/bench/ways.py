"""Ways: how chunks can be compressed, the one of the format and others that decode faster."""

import ctypes
import ctypes.util
from collections.abc import Iterator

import zstandard


class Way:
    """Chunks as they are. `decode` gives what is valid until the next call."""

    name = "not compressed"

    def encode(self, plain: bytes) -> bytes:
        return plain

    def decode(self, packed: bytes) -> bytes | memoryview:
        return packed


class Zstd(Way):
    """Frames of zstd; negative levels are its `--fast`."""

    def __init__(self, level: int) -> None:
        self.name = f"zstd {level}"
        self.encode = zstandard.ZstdCompressor(level=level).compress  # type: ignore[method-assign]
        self.decode = zstandard.ZstdDecompressor().decompress  # type: ignore[method-assign]


class Lz4(Way):
    """Blocks of the system's lz4. Raises OSError where there is none."""

    name = "lz4"

    def __init__(self, chunk_size: int) -> None:
        found = ctypes.util.find_library("lz4")
        if found is None:
            raise OSError("liblz4 is not installed")
        library = ctypes.CDLL(found)
        self._most = library.LZ4_compressBound(chunk_size)
        self._buffer = ctypes.create_string_buffer(self._most)
        self._view = memoryview(self._buffer).cast("B")
        self._compress, self._decompress = library.LZ4_compress_default, library.LZ4_decompress_safe
        for function in (self._compress, self._decompress):
            function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        self._at = ctypes.addressof(self._buffer)

    def encode(self, plain: bytes) -> bytes:
        return bytes(self._view[: self._compress(plain, self._at, len(plain), self._most)])

    def decode(self, packed: bytes) -> bytes | memoryview:
        return self._view[: self._decompress(packed, self._at, len(packed), self._most)]


def other_ways(chunk_size: int) -> Iterator[Way]:
    """All but the format's; says when one is left out."""
    try:
        yield Lz4(chunk_size)
    except OSError as error:
        print(f"left out: lz4: {error}", flush=True)
    yield Zstd(-5)
    yield Way()
