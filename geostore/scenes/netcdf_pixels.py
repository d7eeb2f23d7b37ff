"""Numbers of a netCDF file, as a child process reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.raster.source import SourceGrid
from geostore.scenes.isolated import IsolatedFile
from geostore.scenes.isolated_pixels import IsolatedPixels, read_array
from geostore.scenes.netcdf_cf import Missing, Variable

__all__ = ["NetcdfPixels", "read_values"]


class NetcdfPixels(IsolatedPixels):
    """Rows and columns of one variable at one step, valid where nothing says missing."""

    def __init__(
        self,
        file: IsolatedFile,
        variable: Variable,
        grid: SourceGrid,
        axes: tuple[int, int],
        at: tuple[int, ...],
        missing: Missing,
    ) -> None:
        super().__init__(
            file,
            {"variable": variable.name},
            grid,
            label=variable.name,
            stored=variable.dtype or "",
            dtype=variable.meant_dtype or "",
            axes=axes,
            at=at,
            nodata=missing.nodata,
        )
        self._missing = missing

    def _valid(self, data: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        return self._missing.valid(data)


def read_values(
    file: IsolatedFile, variable: Variable, start: list[int], count: list[int]
) -> npt.NDArray[Any]:
    """A window of a variable as it is stored, flat."""
    array = {"variable": variable.name}
    return read_array(file, array, variable.name, variable.dtype or "", start, count)
