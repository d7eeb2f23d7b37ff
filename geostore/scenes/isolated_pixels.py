"""Numbers of an array in a file that only a child process opens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import UnreadableSourceError
from geostore.raster.source import SourceGrid
from geostore.scenes.isolated import IsolatedFile

__all__ = ["IsolatedPixels", "read_array"]


def read_array(
    file: IsolatedFile,
    array: Mapping[str, Any],
    name: str,
    dtype: str,
    start: list[int],
    count: list[int],
) -> npt.NDArray[Any]:
    """A window of an array as it is stored, flat; read-only.

    Args:
        array: how the request names it to the child.
        name: how messages do.
        start, count: one number a dimension.

    Raises:
        UnreadableSourceError: the child failed, or gave something else than was asked for.
    """
    kind = np.dtype(dtype)
    size = int(np.prod(count, dtype=np.int64)) * kind.itemsize
    answer = file.ask(
        {"do": "read", **array, "start": start, "count": count}, payload_bytes_max=size
    )
    if answer.value.get("dtype") != kind.name or len(answer.payload) != size:
        raise UnreadableSourceError(
            f"{file.name}: {name}: {len(answer.payload)} bytes of"
            f" {answer.value.get('dtype')!r} were read, expected {size} of {kind.name}"
        )
    return np.frombuffer(answer.payload, kind)


class IsolatedPixels(ABC):
    """Rows and columns of an array at one place of its other dimensions; a `PixelSource`.

    One of the file's users until it is closed. Subclasses say what is valid.

    Args:
        array, label, stored: as `read_array`'s array, name and dtype.
        dtype: what the stored numbers mean; of the same size.
        axes: which dimensions are rows and columns.
        at: where in each of the others; 0 for rows and columns.
    """

    def __init__(
        self,
        file: IsolatedFile,
        array: Mapping[str, Any],
        grid: SourceGrid,
        *,
        label: str,
        stored: str,
        dtype: str,
        axes: tuple[int, int],
        at: tuple[int, ...],
        nodata: float | int | None,
    ) -> None:
        file.retain()
        self._file = file
        self._array = array
        self._label = label
        self._stored = stored
        self._axes = axes
        self._at = at
        self._is_closed = False
        self.grid = grid
        self.dtype = dtype
        self.nodata = nodata

    @property
    def name(self) -> str:
        """The file as the user knows it."""
        return self._file.name

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Pixels of a window, and which of them are measurements; see `PixelSource`."""
        self.grid.check_window(self.name, row, column, height, width)
        y, x = self._axes
        start, count = list(self._at), [1] * len(self._at)
        start[y], start[x], count[y], count[x] = row, column, height, width
        flat = read_array(self._file, self._array, self._label, self._stored, start, count)
        data: npt.NDArray[Any] = flat.reshape((height, width) if y < x else (width, height))
        data = np.ascontiguousarray(data if y < x else data.T).view(self.dtype)
        return data, self._valid(data)

    @abstractmethod
    def _valid(self, data: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Where pixels are measurements; None: all are."""

    def close(self) -> None:
        """Give the file back; calling twice is harmless."""
        if not self._is_closed:
            self._is_closed = True
            self._file.close()
