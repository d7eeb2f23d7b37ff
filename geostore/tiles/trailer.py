"""The last bytes of a tile file: what it is, where its head lies, and its checksums.

The trailer is the zip archive's comment, so that stock tools pass over it, in ASCII, so that
`unzip -z` shows it, and of fixed length, so that one read from the end finds it (one line):

    geostore-tile/0001 meta=<offset>+<length> table=<offset>+<length>
    head=<length>:<sum> body=<sum> end=<sum>

Numbers are hexadecimal. `head` is the XXH3-64 of the file's first bytes, which hold all
metadata and the block table: opening a file reads no pixel. `body` is the XXH3-128 of
everything before the trailer. `end` is the XXH3-64 of the trailer before it, in this and any
later version: so a newer format is told from a damaged version number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import xxhash

from geostore.errors import CorruptDataError, StoreFormatError

__all__ = ["FORMAT_NAME", "FORMAT_VERSION", "TRAILER_BYTES", "Span", "Trailer"]

FORMAT_NAME = "geostore"
FORMAT_VERSION = 1

_MAGIC = b"geostore-tile/"
_START = re.compile(rb"geostore-tile/(\d{4}) ")
_END = re.compile(rb" end=([0-9a-f]{16})\n\Z")
_WHOLE = re.compile(
    rb"geostore-tile/\d{4} meta=([0-9a-f]{8})\+([0-9a-f]{8}) table=([0-9a-f]{8})\+([0-9a-f]{8})"
    rb" head=([0-9a-f]{8}):([0-9a-f]{16}) body=([0-9a-f]{32}) end=[0-9a-f]{16}\n\Z"
)


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive bytes of a file."""

    offset: int
    length: int

    @property
    def stop(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """What the trailer says; see the module."""

    meta: Span
    """The JSON that holds the TileMeta."""
    table: Span
    """The block table's bytes."""
    head_bytes: int
    head_checksum: int
    body_checksum: int

    def to_bytes(self) -> bytes:
        """TRAILER_BYTES bytes of ASCII."""
        text = (
            f"geostore-tile/{FORMAT_VERSION:04d}"
            f" meta={self.meta.offset:08x}+{self.meta.length:08x}"
            f" table={self.table.offset:08x}+{self.table.length:08x}"
            f" head={self.head_bytes:08x}:{self.head_checksum:016x}"
            f" body={self.body_checksum:032x}"
        ).encode()
        return text + f" end={xxhash.xxh3_64_intdigest(text):016x}\n".encode()

    @classmethod
    def parse(cls, tail: bytes, source: str) -> Self:
        """The trailer at the end of a file whose last bytes (a few hundred) are `tail`.

        Raises:
            CorruptDataError: no whole trailer, or one that fails its checksum.
            StoreFormatError: a newer version's.
        """
        start = tail.rfind(_MAGIC)
        text = tail[start:] if start >= 0 else b""
        version = _START.match(text)
        end = _END.search(text)
        if version is None or end is None:
            raise CorruptDataError(
                f"{source}: does not end in a tile file's trailer (cut short, or no tile file)"
            )
        if xxhash.xxh3_64_intdigest(text[: end.start()]) != int(end[1], 16):
            raise CorruptDataError(f"{source}: its trailer fails its XXH3-64 checksum")
        if int(version[1]) > FORMAT_VERSION:
            raise StoreFormatError(
                f"{source}: tile format version {int(version[1])}, this geostore reads up to"
                f" {FORMAT_VERSION}: use a newer geostore"
            )
        fields = _WHOLE.match(text)
        if fields is None:
            raise CorruptDataError(f"{source}: its trailer is not one of version {version[1]!r}")
        numbers = [int(field, 16) for field in fields.groups()]
        return cls(
            meta=Span(numbers[0], numbers[1]),
            table=Span(numbers[2], numbers[3]),
            head_bytes=numbers[4],
            head_checksum=numbers[5],
            body_checksum=numbers[6],
        )


TRAILER_BYTES = len(
    Trailer(
        meta=Span(0, 0), table=Span(0, 0), head_bytes=0, head_checksum=0, body_checksum=0
    ).to_bytes()
)
