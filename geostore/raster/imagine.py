"""What an Erdas Imagine file (HFA, `.img`) says that rasterio does not pass on.

That is the names of its classes, and the spill file (`.ige`) in which a large one keeps its
pixels: GDAL opens whatever file the content names, so that the name has to be known, and
judged, before GDAL sees it. Layout after the data dictionary that every such file carries in
itself: a header tag leads to the root of a tree of entries (Ehfa_Entry); layers (Eimg_Layer)
hold ExternalRasterDMS (ImgExternalRaster) and Descriptor_Table (Edsc_Table, Edsc_Column).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["MAGIC", "SPILL_MAGIC", "ImagineStructure", "imagine_structure"]

MAGIC = b"EHFA_HEADER_TAG"
SPILL_MAGIC = b"ERDAS_IMG_EXTERNAL_RASTER"

ENTRIES_MAX = 20_000
"""A layer has about twenty entries; a damaged tree may go in circles."""
CLASSES_MAX = 65_536
TEXT_BYTES_MAX = 1 << 22
CLASS_CHARACTERS_MAX = 200

_HEADER = struct.Struct("<16sI")
_FILE = struct.Struct("<iIIHI")
_ENTRY = struct.Struct("<6I64s32s")
_COLUMN = struct.Struct("<iIHi")
_LAYER = struct.Struct("<iiHHii")
_EXTERNAL = struct.Struct("<QQII")
_TEXT = struct.Struct("<II")
_STRINGS = 3
"""Edsc_Column.dataType: integer, real, complex, string."""
_PIXEL_BITS = (1, 2, 4, 8, 8, 16, 16, 32, 32, 32, 64, 64, 128)
"""Eimg_Layer.pixelType: u1, u2, u4, u8, s8, u16, s16, u32, s32, f32, f64, c64, c128."""


@dataclass(frozen=True, slots=True)
class ImagineStructure:
    """What the tree of entries says; empty where it says nothing."""

    spills: tuple[str, ...] = ()
    """Names of the files that hold the layers' pixels, each once, as they are written there:
    not to be trusted."""
    class_names: tuple[dict[int, str], ...] = ()
    """One a layer, in order: class code to name."""
    spill_bytes: int = 0
    """How long a file that holds the layers' pixels is at least: GDAL reads zeros beyond its
    end, without an error."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    kind: str
    child: int
    after: int
    data: int
    data_bytes: int


def imagine_structure(path: str | os.PathLike[str]) -> ImagineStructure | None:
    """The structure of the file at `path`; None where it is no Imagine file.

    A damaged tree yields what can be read of it: GDAL says what is wrong with such a file.

    Raises:
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - a path as GDAL takes it
        head = file.read(_HEADER.size)
        if not head.startswith(MAGIC) or len(head) < _HEADER.size:
            return None
        return _Tree(file).structure(_HEADER.unpack(head)[1])


class _Tree:
    """The entries of one file, each read once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._seen: set[int] = set()

    def structure(self, header: int) -> ImagineStructure:
        start = self._read(header, _FILE.size)
        if len(start) < _FILE.size:
            return ImagineStructure()
        root = self._entry(_FILE.unpack(start)[2])
        spills: dict[str, None] = {}
        spill_bytes = 0
        names: list[dict[int, str]] = []
        for top in self._chain(root.child if root else 0):
            layer: dict[int, str] = {}
            for entry in self._below(top):
                if entry.kind == "ImgExternalRaster":
                    spills[self._text(entry)] = None
                    spill_bytes = max(spill_bytes, self._spill_bytes(top, entry))
                elif entry.name == "Descriptor_Table" and not layer:
                    layer = self._class_names(entry)
            if top.kind == "Eimg_Layer":
                names.append(layer)
        return ImagineStructure(tuple(spills), tuple(names), spill_bytes)

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def _entry(self, offset: int) -> _Entry | None:
        """The entry at `offset`; None for none, one met before, or one cut off."""
        if offset == 0 or offset in self._seen or len(self._seen) >= ENTRIES_MAX:
            return None
        self._seen.add(offset)
        raw = self._read(offset, _ENTRY.size)
        if len(raw) < _ENTRY.size:
            return None
        after, _, _, child, data, data_bytes, name, kind = _ENTRY.unpack(raw)
        return _Entry(_until_nul(name), _until_nul(kind), child, after, data, data_bytes)

    def _chain(self, offset: int) -> Iterator[_Entry]:
        """The entry at `offset` and those after it on its level."""
        entry = self._entry(offset)
        while entry is not None:
            yield entry
            entry = self._entry(entry.after)

    def _below(self, top: _Entry) -> list[_Entry]:
        """Everything below an entry. A table's columns are left for `_class_names`."""
        found: list[_Entry] = []
        waiting = [top.child]
        while waiting:
            for entry in self._chain(waiting.pop()):
                found.append(entry)
                if entry.kind != "Edsc_Table":
                    waiting.append(entry.child)
        return found

    def _text(self, entry: _Entry) -> str:
        """The text (Emif_String) at the start of an entry's data."""
        raw = self._read(entry.data, _TEXT.size)
        if len(raw) < _TEXT.size:
            return ""
        size = min(_TEXT.unpack(raw)[0], 4096)
        return _until_nul(self._read(entry.data + _TEXT.size, size))

    def _spill_bytes(self, layer: _Entry, external: _Entry) -> int:
        """Where the last block of a layer ends: blocks of all layers of a stack take turns."""
        about = self._read(layer.data, _LAYER.size)
        text = self._read(external.data, _TEXT.size)
        if len(about) < _LAYER.size or len(text) < _TEXT.size:
            return 0
        width, height, _, pixel, block_width, block_height = _LAYER.unpack(about)
        raw = self._read(external.data + _TEXT.size + _TEXT.unpack(text)[0], _EXTERNAL.size)
        if len(raw) < _EXTERNAL.size or pixel >= len(_PIXEL_BITS):
            return 0
        if min(width, height, block_width, block_height) < 1:
            return 0
        _, start, layers, _ = _EXTERNAL.unpack(raw)
        blocks = -(-width // block_width) * -(-height // block_height)
        block_bytes = -(-block_width * block_height * _PIXEL_BITS[pixel] // 8)
        end: int = start + blocks * block_bytes * layers
        return end

    def _class_names(self, table: _Entry) -> dict[int, str]:
        """Row number, which is the class code, to name, from the column that has names."""
        columns = [column for column in self._chain(table.child) if column.kind == "Edsc_Column"]
        columns.sort(key=lambda column: _name_rank(column.name))
        for column in columns:
            if _name_rank(column.name) < _NO_NAMES:
                names = self._strings(column)
                if names:
                    return names
        return {}

    def _strings(self, column: _Entry) -> dict[int, str]:
        raw = self._read(column.data, _COLUMN.size)
        if len(raw) < _COLUMN.size:
            return {}
        rows, start, kind, width = _COLUMN.unpack(raw)
        if kind != _STRINGS or not 0 < rows <= CLASSES_MAX or not 0 < width <= TEXT_BYTES_MAX:
            return {}
        content = self._read(start, min(rows * width, TEXT_BYTES_MAX))
        names = {row: _until_nul(content[row * width : (row + 1) * width]) for row in range(rows)}
        return {
            row: name.strip()[:CLASS_CHARACTERS_MAX] for row, name in names.items() if name.strip()
        }


_NO_NAMES = 3


def _name_rank(column: str) -> int:
    """How likely a column of text names classes: 0 for what Imagine itself calls so."""
    folded = column.lower().replace(" ", "_")
    if folded == "class_names":
        return 0
    if "class" in folded:
        return 1
    return 2 if "name" in folded or "land_cover" in folded else _NO_NAMES


def _until_nul(raw: bytes) -> str:
    text = raw.split(b"\0", 1)[0]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
