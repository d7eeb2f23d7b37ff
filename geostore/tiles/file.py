"""Tile files on disk, read without a catalog: to rebuild one, to check, to copy.

The bytes, in file order (all of it inside an uncompressed zip archive whose CRCs hold):

1. the head: the Zarr version 2 JSON of every array (`geostore.tiles.hierarchy`), first of all
   the root's attributes with the TileMeta, then the block table, and the pixel centres;
2. group by group, band by band, the bands' blocks, row-major, then the group's masks: bands
   that are read together lie together, with only zip's local headers (some 50 bytes) between;
3. the zip directory, and as its comment the trailer (`geostore.tiles.trailer`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.errors import CorruptDataError, NotFoundError, UnavailableError
from geostore.tiles.decode import decode_into
from geostore.tiles.parse import check_head_span, parse_head
from geostore.tiles.trailer import FORMAT_VERSION, TRAILER_BYTES, Trailer
from geostore.types import TileMeta

__all__ = ["FORMAT_VERSION", "TileFile"]

_TAIL_BYTES = 1024
_PIECE_BYTES = 1 << 20


class TileFile:
    """One open tile file. Reads with `pread`, so threads may share it; a context manager.

    `open` checks trailer, head and block table; `verify` checks every byte.
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        size: int,
        trailer: Trailer,
        meta: TileMeta,
        blocks: npt.NDArray[np.void],
    ) -> None:
        self.path = path
        self.size = size
        self.meta = meta
        self.blocks = blocks
        self._descriptor = descriptor
        self._trailer = trailer

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens a tile file and reads its metadata and block table, no pixels.

        Raises:
            NotFoundError: no such file.
            CorruptDataError: damaged, cut short, or no tile file.
            StoreFormatError: written by a newer geostore.
            UnavailableError: the system cannot open or read it now.
        """
        path = Path(path)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise CorruptDataError(f"{path}: not a regular file, expected a tile file")
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            raise NotFoundError(f"{path}: no such tile file") from None
        except OSError as error:
            raise UnavailableError(f"{path}: cannot open the tile file: {error}") from error
        try:
            size = os.fstat(descriptor).st_size
            tail_bytes = min(size, _TAIL_BYTES)
            tail = _pread(descriptor, size - tail_bytes, tail_bytes, path)
            trailer = Trailer.parse(tail, str(path))
            head = _read_head(descriptor, size, trailer, path)
            meta, blocks = parse_head(head, size, trailer, str(path))
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, size, trailer, meta, blocks)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def checksum(self) -> str:
        """XXH3-128 of the whole file, hex, as `EncodedTile.checksum`. Reads all of it."""
        body, tail = self._sum_body()
        body.update(tail)
        return body.hexdigest()

    def verify(self) -> None:
        """Reads the whole file and checks every byte of it.

        Raises:
            CorruptDataError: a byte differs from what was written; names the block, where it
                lies in one.
        """
        body, _ = self._sum_body()
        if body.intdigest() == self._trailer.body_checksum:
            return
        for group_index, layout in enumerate(self.meta.schema.groups):
            for band_index, band in enumerate(layout.bands):
                for mask in (False, True):
                    rows = self.meta.schema.block_range(group_index, band_index, mask=mask)
                    self._check_blocks(rows, f"{'mask ' * mask}{layout.name}/{band.name}")
        raise CorruptDataError(f"{self.path}: its bytes fail their XXH3-128 checksum")

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        """The compressed blocks at these rows of the block table, None where not stored."""
        return [
            _pread(self._descriptor, int(row["offset"]), int(row["length"]), self.path)
            if row["length"]
            else None
            for row in (self.blocks[index] for index in indices)
        ]

    def read_band(
        self, group_index: int, band_index: int, *, mask: bool = False
    ) -> npt.NDArray[Any]:
        """One band's pixels (or validity mask) as a new array (height, width).

        Raises:
            CorruptDataError: a block fails its checksum or cannot be decoded.
        """
        layout = self.meta.schema.groups[group_index]
        dtype = np.dtype(np.bool_) if mask else np.dtype(layout.bands[band_index].dtype)
        rows = self.meta.schema.block_range(group_index, band_index, mask=mask)
        blocks = self.read_blocks(rows)
        out = np.empty((layout.height, layout.width), dtype)
        decode_into(
            self.meta.schema,
            group_index,
            band_index,
            blocks,
            self.blocks[rows.start : rows.stop],
            out,
            mask=mask,
            source=str(self.path),
        )
        return out

    def _check_blocks(self, rows: range, what: str) -> None:
        for index, block in enumerate(self.read_blocks(rows)):
            checksum = int(self.blocks[rows[index]]["checksum"])
            if block is not None and xxhash.xxh3_64_intdigest(block) != checksum:
                raise CorruptDataError(
                    f"{self.path}: {what} block {index} fails its XXH3-64 checksum"
                )

    def _sum_body(self) -> tuple[xxhash.xxh3_128, bytes]:
        """The running sum of all bytes before the trailer, and the trailer."""
        body = xxhash.xxh3_128()
        end = self.size - TRAILER_BYTES
        for offset in range(0, end, _PIECE_BYTES):
            length = min(_PIECE_BYTES, end - offset)
            body.update(_pread(self._descriptor, offset, length, self.path))
        return body, _pread(self._descriptor, end, TRAILER_BYTES, self.path)


def _pread(descriptor: int, offset: int, length: int, path: Path) -> bytes:
    """Exactly `length` bytes at `offset`.

    Raises:
        CorruptDataError: the file ends before that, or the medium cannot be read.
        UnavailableError: any other error of the system's.
    """
    pieces = []
    while length > 0:
        try:
            piece = os.pread(descriptor, length, offset)
        except OSError as error:
            kind = CorruptDataError if error.errno == errno.EIO else UnavailableError
            raise kind(f"{path}: cannot read {length} bytes at {offset}: {error}") from error
        if not piece:
            raise CorruptDataError(f"{path}: ends at {offset}, {length} more bytes expected")
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_head(descriptor: int, size: int, trailer: Trailer, path: Path) -> bytes:
    check_head_span(size, trailer, str(path))
    return _pread(descriptor, 0, trailer.head_bytes, path)
