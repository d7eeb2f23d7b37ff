"""The least size of classic netCDF files, against files that the library wrote."""

from __future__ import annotations

import io
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from geostore.scenes.netcdf_classic import classic_bytes_min

FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]
LAYOUTS = {
    "nothing": [],
    "one": [("i2", ("y", "x"))],
    "bytes and odd sizes": [("i1", ("x",)), ("f8", ("y",)), ("i2", ("x",)), ("S1", ("y", "x"))],
    "records of one variable": [("i2", ("t", "x"))],
    "records of several": [("i2", ("t", "x")), ("f4", ("t",)), ("i1", ("t", "y", "x"))],
    "both": [("f8", ("y", "x")), ("i1", ("t", "x")), ("i4", ("t",))],
    "scalars": [("i4", ()), ("f4", ())],
}


def written(path: Path, format: str, layout: list[tuple[str, tuple[str, ...]]]) -> bytes:
    with netCDF4.Dataset(path, "w", format=format) as target:
        target.title = "odd"
        target.numbers = np.array([1, 2, 3], "i2")
        for name, side in (("t", None), ("y", 3), ("x", 5)):
            target.createDimension(name, side)
        for number, (dtype, dimensions) in enumerate(layout):
            variable = target.createVariable(f"v{number}", dtype, dimensions)
            variable.units = "m" * number
            shape = tuple({"t": 7, "y": 3, "x": 5}[one] for one in dimensions)
            variable[...] = np.full(shape, b"a" if dtype == "S1" else 1)
    return path.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_files_are_as_long_as_their_header_says(tmp_path: Path, name: str, format: str) -> None:
    content = written(tmp_path / "a.nc", format, LAYOUTS[name])
    wanted = classic_bytes_min(io.BytesIO(content))
    assert wanted is not None
    # Padded to whole words at the end; without variables only the magic is sure.
    assert len(content) - 3 <= wanted <= len(content) or not LAYOUTS[name]


def test_headers_that_are_cut_off(tmp_path: Path) -> None:
    content = written(tmp_path / "a.nc", "NETCDF3_CLASSIC", LAYOUTS["both"])
    for size in range(5, 200, 13):
        with pytest.raises(ValueError, match="ends within its header"):
            classic_bytes_min(io.BytesIO(content[:size]))


def test_other_files_have_no_such_size() -> None:
    assert classic_bytes_min(io.BytesIO(b"\x89HDF\r\n\x1a\n")) is None
    assert classic_bytes_min(io.BytesIO(b"")) is None
    assert classic_bytes_min(io.BytesIO(b"CDF\x09")) is None
