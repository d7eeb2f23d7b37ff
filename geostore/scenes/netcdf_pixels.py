"""Numbers of a netCDF file, as a child process reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError, UnreadableSourceError
from geostore.raster.source import SourceGrid
from geostore.scenes.isolated import IsolatedFile
from geostore.scenes.netcdf_cf import Missing, Variable

__all__ = ["NetcdfPixels", "read_values"]


class NetcdfPixels:
    """Rows and columns of one variable at one step, a `PixelSource`; a user of the file."""

    def __init__(
        self,
        file: IsolatedFile,
        variable: Variable,
        grid: SourceGrid,
        axes: tuple[int, int],
        at: tuple[int, ...],
        missing: Missing,
    ) -> None:
        file.retain()
        self._file = file
        self._variable = variable
        self._axes = axes
        self._at = at
        self._missing = missing
        self._is_closed = False
        self.grid = grid
        self.dtype = variable.meant_dtype or ""
        self.nodata = missing.nodata

    @property
    def name(self) -> str:
        return self._file.name

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Pixels of a window, and which of them are measurements."""
        if (
            min(row, column) < 0
            or min(height, width) < 1
            or row + height > self.grid.height
            or column + width > self.grid.width
        ):
            raise InvalidInputError(
                f"{self.name}: window of {height} x {width} pixels at row {row}, column"
                f" {column} does not lie inside {self.grid.height} x {self.grid.width}"
            )
        y, x = self._axes
        start, count = list(self._at), [1] * len(self._at)
        start[y], start[x], count[y], count[x] = row, column, height, width
        stored = read_values(self._file, self._variable, start, count)
        data: npt.NDArray[Any] = stored.reshape((height, width) if y < x else (width, height))
        data = np.ascontiguousarray(data if y < x else data.T).view(self.dtype)
        return data, self._missing.valid(data)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._file.close()


def read_values(
    file: IsolatedFile, variable: Variable, start: list[int], count: list[int]
) -> npt.NDArray[Any]:
    """A window of a variable as it is stored, flat."""
    kind = np.dtype(variable.dtype)
    size = int(np.prod(count, dtype=np.int64)) * kind.itemsize
    answer = file.ask(
        {"do": "read", "variable": variable.name, "start": start, "count": count},
        payload_bytes_max=size,
    )
    if answer.value.get("dtype") != kind.name or len(answer.payload) != size:
        raise UnreadableSourceError(
            f"{file.name}: {variable.name}: {len(answer.payload)} bytes of"
            f" {answer.value.get('dtype')!r} were read, expected {size} of {kind.name}"
        )
    return np.frombuffer(answer.payload, kind)
