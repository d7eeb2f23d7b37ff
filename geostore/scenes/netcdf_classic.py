"""How long a file in netCDF's classic format (netCDF-3) has to be, by its own header.

The library fills what lies beyond a file's end with zeros, and does not say so. Format: "NetCDF
File Format Specifications" in the NetCDF Users' Guide (classic, 64-bit offset, 64-bit data).
"""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

__all__ = ["classic_bytes_min"]

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_COUNT_MAX = 1 << 20
_TEXT_BYTES_MAX = 1 << 28


class _Header:
    """A header, read from front to back."""

    def __init__(self, file: BinaryIO, version: int) -> None:
        self._file = file
        self._count_bytes = 8 if version == 5 else 4
        self._offset_bytes = 4 if version == 1 else 8

    def _number(self, size: int) -> int:
        data = self._file.read(size)
        if len(data) != size:
            raise ValueError("the file ends within its header")
        return int(struct.unpack(">Q" if size == 8 else ">I", data)[0])

    def tag(self) -> int:
        return self._number(4)

    def count(self) -> int:
        return self._number(self._count_bytes)

    def offset(self) -> int:
        return self._number(self._offset_bytes)

    def bounded(self) -> int:
        found = self.count()
        if found > _COUNT_MAX:
            raise ValueError(f"its header states a list of {found} entries")
        return found

    def skip(self, size: int) -> None:
        """Past bytes that are padded to whole words."""
        if size > _TEXT_BYTES_MAX:
            raise ValueError(f"its header states an entry of {size} bytes")
        padded = -(-size // 4) * 4
        if len(self._file.read(padded)) != padded:
            raise ValueError("the file ends within its header")

    def attributes(self) -> None:
        self.tag()
        for _ in range(self.bounded()):
            self.skip(self.count())
            size = self._type_bytes()
            self.skip(size * self.count())

    def _type_bytes(self) -> int:
        kind = self.tag()
        if kind not in _TYPE_BYTES:
            raise ValueError(f"its header states a type {kind}")
        return _TYPE_BYTES[kind]

    def dimensions(self) -> list[int]:
        self.tag()
        sides = []
        for _ in range(self.bounded()):
            self.skip(self.count())
            sides.append(self.count())
        return sides

    def variables(self, sides: list[int]) -> list[tuple[bool, int, int]]:
        """(by records, bytes of one record or of all, offset) of each variable."""
        self.tag()
        found = []
        for _ in range(self.bounded()):
            self.skip(self.count())
            shape = []
            for _ in range(self.bounded()):
                dimension = self.count()
                if dimension >= len(sides):
                    raise ValueError(f"its header states a dimension {dimension}")
                shape.append(sides[dimension])
            self.attributes()
            size = self._type_bytes()
            self.count()  # the bytes it takes, which overflow where they are many
            by_records = bool(shape) and shape[0] == 0
            size *= math.prod(shape[1:] if by_records else shape)
            found.append((by_records, size, self.offset()))
        return found


def classic_bytes_min(file: BinaryIO) -> int | None:
    """The least size of a classic file, read from its start; None: it is no such file.

    Raises:
        ValueError: its header is none.
    """
    magic = file.read(4)
    if magic[:3] != b"CDF" or magic[3:] not in {b"\x01", b"\x02", b"\x05"}:
        return None
    header = _Header(file, magic[3])
    records = header.count()
    sides = header.dimensions()
    header.attributes()
    variables = header.variables(sides)
    record_bytes = [size for by_records, size, _ in variables if by_records]
    # A lone variable's records lie side by side; those of several are padded to whole words.
    step = (
        record_bytes[0]
        if len(record_bytes) == 1
        else sum(-(-size // 4) * 4 for size in record_bytes)
    )
    streaming = records in {0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}  # the count was never written
    ends = [4]
    for by_records, size, offset in variables:
        if not by_records:
            ends.append(offset + size)
        elif records and not streaming:
            ends.append(offset + (records - 1) * step + size)
    return max(ends)
