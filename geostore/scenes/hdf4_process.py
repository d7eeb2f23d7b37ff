"""What a child process answers about one HDF4 file: its attributes, arrays and pixels.

The one place that imports pyhdf. See `isolated` for why this is a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from geostore.scenes.isolated_process import Handler, serve

__all__ = ["main"]

DATASETS_MAX = 2000
"""Arrays of one file; MODIS products have up to 200."""
VALUES_MAX = 10_000
"""Numbers of one attribute."""
SELECTED_MAX = 64
"""Arrays kept selected: the library goes on inflating where it stopped, row by row."""

_DTYPES = {
    5: "float32",
    6: "float64",
    20: "int8",
    21: "uint8",
    22: "int16",
    23: "uint16",
    24: "int32",
    25: "uint32",
}
_NATIVE_OR_LITTLE = 0x1000 | 0x4000  # flags of a type's number, seen to by the library


class _File:
    """One file and the library; opened at the first request."""

    def __init__(self) -> None:
        import numpy as np
        from pyhdf.SD import SD, SDC

        self._np = np
        self._open: Callable[[str], Any] = partial(SD, mode=SDC.READ)
        self._file: Any = None
        self._selected: dict[int, Any] = {}

    def answer(self, path: str, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        if self._file is None:
            try:
                self._file = self._open(path)
            except Exception as error:
                raise ValueError(f"damaged, or not HDF4: {error}") from error
        if request["do"] == "describe":
            return self._describe(), None
        return self._read(request["index"], request["start"], request["count"])

    def _describe(self) -> dict[str, Any]:
        count, _ = self._file.info()
        if not 0 <= count <= DATASETS_MAX:
            raise ValueError(f"{count} arrays; at most {DATASETS_MAX} are read")
        return {
            "attributes": _plain(self._file.attributes()),
            "datasets": [self._describe_array(index) for index in range(count)],
        }

    def _describe_array(self, index: int) -> dict[str, Any]:
        array = self._file.select(index)
        try:
            name, rank, shape, kind, _ = array.info()
            return {
                "name": name,
                "shape": [shape] if rank == 1 else list(shape),
                "dimensions": [array.dim(axis).info()[0] for axis in range(rank)],
                "dtype": _DTYPES.get(kind & ~_NATIVE_OR_LITTLE),
                "attributes": _plain(array.attributes()),
            }
        finally:
            array.endaccess()

    def _read(self, index: int, start: list[int], count: list[int]) -> tuple[dict[str, Any], Any]:
        array = self._selected.get(index)
        if array is None:
            if len(self._selected) >= SELECTED_MAX:
                self._selected.pop(next(iter(self._selected))).endaccess()
            array = self._selected[index] = self._file.select(index)
        try:
            data = array.get(start=start, count=count)
        except Exception as error:
            name = array.info()[0]
            raise ValueError(f"cannot read {name}, from {start}: {error}") from error
        if data.size != math.prod(count):
            raise ValueError(f"{data.size} pixels were read of {math.prod(count)} asked for")
        return {"dtype": data.dtype.name}, self._np.ascontiguousarray(data)


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them: text, numbers and short lists of numbers."""
    plain: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, str | int | float):
            plain[name] = value
        elif isinstance(value, list) and len(value) <= VALUES_MAX:
            plain[name] = [one for one in value if isinstance(one, int | float)]
    return plain


def _load() -> Handler:
    return _File().answer


def main(memory_bytes_max: int) -> int:
    """The child process."""
    return serve(_load, memory_bytes_max)
