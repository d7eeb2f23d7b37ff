"""Selections as xarray: a cube of time, y and x for each band, read at once or when computed."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyproj

from geostore.errors import InvalidInputError
from geostore.tensors.memory import check_memory
from geostore.tensors.optional import require
from geostore.tensors.slots import GroupBy, Slot, group_rows
from geostore.types import TileRow
from geostore.types.geo import us_from_datetime
from geostore.wrangle import (
    CellReader,
    Extent,
    Fetched,
    Layer,
    Radiometry,
    in_threads,
    read_ahead,
)
from geostore.wrangle.mosaic import common_group, layers_of, one_lattice

if TYPE_CHECKING:
    import xarray as xr

    from geostore.backends import Backend

__all__ = ["Chunks", "to_xarray"]

Chunks = Mapping[str, int]
"""Pixels (and time steps) a chunk by dimension; a dimension left out: one time step, one cell."""

_Array = npt.NDArray[Any]
_Mask = npt.NDArray[np.bool_]
_DIMENSIONS = ("time", "y", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cube:
    """What is to be read: the axes, and the tiles of each (time step, cell)."""

    slots: tuple[Slot, ...]
    extent: Extent
    reader: CellReader

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self.slots), *self.extent.shape)

    def cells(self) -> Iterator[tuple[int, int, int, list[TileRow]]]:
        """(time step, first pixel row, first pixel column, tiles of that cell)."""
        for step, slot in enumerate(self.slots):
            by_cell: dict[str, list[TileRow]] = {}
            for row in slot.rows:
                by_cell.setdefault(row.geocode, []).append(row)
            for geocode, rows in by_cell.items():
                place = self.extent.window(geocode)
                yield step, place.row, place.column, rows


def _new_array(shape: tuple[int, ...], layer: Layer) -> _Array:
    if layer.fill == 0:  # pages that no tile touches are never made
        return np.zeros(shape, layer.dtype)
    return np.full(shape, layer.fill, layer.dtype)


def _read_now(cube: _Cube, *, with_masks: bool, workers: int | None) -> list[list[_Array]]:
    """All layers' arrays (and, after them, their masks), each tile decoded into its place."""
    group = cube.extent.group
    layers = cube.reader.layers
    arrays = [_new_array(cube.shape, layer) for layer in layers]
    masks = [np.zeros(cube.shape, np.bool_) for _ in layers] if with_masks else []

    def read(fetched: tuple[tuple[int, int, int, list[TileRow]], Fetched]) -> None:
        (step, row, column, tiles), first = fetched
        here = (step, slice(row, row + group.height), slice(column, column + group.width))
        scratch = np.empty((0 if masks else len(layers), group.height, group.width), np.bool_)
        known = [mask[here] for mask in masks] if masks else list(scratch)
        cube.reader.read(tiles, [array[here] for array in arrays], known, first=first)

    cells = read_ahead(
        cube.reader.backend,
        cube.cells(),
        lambda cell: (cell[3][0], cube.reader.plans(cell[3][0])),
        cloud_mask=cube.reader.cloud_mask,
    )
    for _ in in_threads(read, cells, workers=workers):
        pass
    return [arrays, masks] if with_masks else [arrays]


@dataclass(frozen=True, slots=True)
class _Reference:
    """A backend that can be sent to another process: opened there again, to read."""

    backend: Backend = field(compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        name = self.backend.name
        if "://" not in name:  # a relative directory means nothing elsewhere
            name = str(Path(name).resolve())
        return _Reference.reopen, (name,)

    @staticmethod
    def reopen(target: str) -> _Reference:
        return _Reference(_open_again(target))


@lru_cache(maxsize=4)
def _open_again(target: str) -> Backend:
    from geostore.backends import open_embedded

    return open_embedded(target, mode="r")


@dataclass(frozen=True, slots=True)
class _Piece:
    """One cell's part in a chunk; offsets in pixels, negative where the cell begins before."""

    step: int
    row: int
    column: int
    rows: tuple[TileRow, ...]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """All that a worker needs to make one chunk of one layer."""

    store: _Reference
    reader: CellReader
    """Of the one layer, without its backend."""
    mask: bool
    shape: tuple[int, ...]
    pieces: tuple[_Piece, ...]

    def load(self) -> _Array:
        """The chunk's pixels, or its mask."""
        layer, group = self.reader.layers[0], self.reader.group
        reader = CellReader(
            backend=self.store.backend,
            layers=self.reader.layers,
            group=group,
            radiometry=self.reader.radiometry,
            cloud_mask=self.reader.cloud_mask,
        )
        data = _new_array(self.shape, layer)
        known = np.zeros(self.shape, np.bool_)
        for piece in self.pieces:
            top, left = max(piece.row, 0), max(piece.column, 0)
            bottom = min(piece.row + group.height, self.shape[1])
            right = min(piece.column + group.width, self.shape[2])
            here = (piece.step, slice(top, bottom), slice(left, right))
            if (bottom - top, right - left) == (group.height, group.width):
                reader.read(piece.rows, [data[here]], [known[here]])
                continue
            cell = np.empty((group.height, group.width), layer.dtype)
            valid = np.empty(cell.shape, np.bool_)
            reader.read(piece.rows, [cell], [valid])
            there = (
                slice(top - piece.row, bottom - piece.row),
                slice(left - piece.column, right - piece.column),
            )
            data[here] = cell[there]
            known[here] = valid[there]
        return known if self.mask else data


def _load(chunk: _Chunk) -> _Array:
    return chunk.load()


def _is_no_size(size: object) -> bool:
    return isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1)


def _chunk_sizes(cube: _Cube, chunks: Chunks) -> tuple[tuple[int, ...], ...]:
    """Sizes of the chunks along time, y, x.

    Raises:
        InvalidInputError: an unknown dimension or a size that is not a positive number.
    """
    group = cube.extent.group
    default = {"time": 1, "y": group.height, "x": group.width}
    for name, size in chunks.items():
        if name not in default:
            raise InvalidInputError(f"chunks: {name!r} is none of time, y, x")
        if _is_no_size(size):
            raise InvalidInputError(f"chunks: {name} is {size!r}, expected pixels, or -1 for all")
    sizes = []
    for name, length in zip(_DIMENSIONS, cube.shape, strict=True):
        size = chunks.get(name, default[name])
        size = length if size == -1 else min(size, length)
        whole, rest = divmod(length, size)
        sizes.append((size,) * whole + ((rest,) if rest else ()))
    return tuple(sizes)


def _pieces(
    cube: _Cube, sizes: tuple[tuple[int, ...], ...]
) -> dict[tuple[int, int, int], list[_Piece]]:
    """For each chunk (by its index along time, y, x) the cells that reach into it."""
    starts = [list(accumulate(axis, initial=0))[:-1] for axis in sizes]
    group = cube.extent.group
    found: dict[tuple[int, int, int], list[_Piece]] = {}
    for step, row, column, rows in cube.cells():
        t = bisect_right(starts[0], step) - 1
        first_y = bisect_right(starts[1], row) - 1
        last_y = bisect_right(starts[1], row + group.height - 1) - 1
        first_x = bisect_right(starts[2], column) - 1
        last_x = bisect_right(starts[2], column + group.width - 1) - 1
        for y in range(first_y, last_y + 1):
            for x in range(first_x, last_x + 1):
                found.setdefault((t, y, x), []).append(
                    _Piece(
                        step - starts[0][t],
                        row - starts[1][y],
                        column - starts[2][x],
                        tuple(rows),
                    )
                )
    return found


def _read_later(cube: _Cube, chunks: Chunks, *, with_masks: bool) -> list[list[Any]]:
    """The arrays as dask's instead of `_read_now`'s: one task a chunk, which reads its tiles."""
    da = require("dask.array", needed_for="to_xarray(chunks=...)", extra="xarray")
    sizes = _chunk_sizes(cube, chunks)
    pieces = _pieces(cube, sizes)
    store = _Reference(cube.reader.backend)
    token = uuid.uuid4().hex[:12]

    def lazy(layer: Layer, *, mask: bool) -> Any:
        reader = CellReader(
            backend=cast("Backend", None),  # `store` brings it: a backend cannot be pickled
            layers=(layer,),
            group=cube.reader.group,
            radiometry=cube.reader.radiometry,
            cloud_mask=cube.reader.cloud_mask,
        )
        name = f"geostore-{'valid-' if mask else ''}{layer.name}-{token}"
        graph = {}
        for index in np.ndindex(*(len(axis) for axis in sizes)):
            shape = tuple(axis[i] for axis, i in zip(sizes, index, strict=True))
            here = tuple(pieces.get(cast("tuple[int, int, int]", index), ()))
            graph[name, *index] = (_load, _Chunk(store, reader, mask, shape, here))
        dtype = np.dtype(np.bool_) if mask else layer.dtype
        return da.Array(graph, name, sizes, dtype=dtype)

    layers = cube.reader.layers
    arrays = [[lazy(layer, mask=False) for layer in layers]]
    if with_masks:
        arrays.append([lazy(layer, mask=True) for layer in layers])
    return arrays


def _time_coordinate(slots: Sequence[Slot]) -> npt.NDArray[np.datetime64]:
    """Naive UTC, as xarray keeps time; NaT where unknown."""
    moments = [
        np.datetime64("NaT")
        if slot.time is None
        else np.datetime64(us_from_datetime(slot.time), "us")
        for slot in slots
    ]
    return np.array(moments, dtype="datetime64[us]").astype("datetime64[ns]")


def _spatial_ref(extent: Extent) -> dict[str, Any]:
    """Attributes of the grid mapping, as CF, GDAL, rioxarray and odc-geo look for them."""
    crs = pyproj.CRS.from_user_input(extent.crs)
    wkt = crs.to_wkt()
    attributes = dict(crs.to_cf())
    attributes["crs_wkt"] = attributes["spatial_ref"] = wkt
    attributes["GeoTransform"] = " ".join(repr(float(v)) for v in extent.transform.to_gdal())
    return attributes


def _axis_attributes(extent: Extent) -> dict[str, dict[str, str]]:
    if extent.scheme == "geohash":
        return {
            "y": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
            "x": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
        }
    return {
        "y": {"standard_name": "projection_y_coordinate", "units": "metre", "axis": "Y"},
        "x": {"standard_name": "projection_x_coordinate", "units": "metre", "axis": "X"},
    }


def _layer_attributes(layer: Layer, radiometry: Radiometry) -> dict[str, Any]:
    """A variable's attributes.

    `scale` and `offset`, not CF's `scale_factor` and `add_offset`: xarray and GDAL apply
    those by themselves, and nothing may become float64 by itself.
    """
    info = layer.info
    attributes: dict[str, Any] = {
        "long_name": info.description,
        "units": info.unit,
        "band": info.name,
        "common_name": info.common_name,
    }
    scale, offset = radiometry.meaning(info)
    if (scale, offset) != (1.0, 0.0):
        attributes |= {"scale": scale, "offset": offset}
    if layer.nodata is not None:
        value = layer.dtype.type(layer.nodata)
        attributes |= {"nodata": value, "_FillValue": value}
    return {name: value for name, value in attributes.items() if value is not None}


def to_xarray(
    backend: Backend,
    rows: Sequence[TileRow],
    *,
    bands: tuple[str, ...] | None,
    resolution: float | None,
    groupby: GroupBy,
    chunks: Chunks | None,
    radiometry: Radiometry,
    cloud_mask: bool,
    masks: bool,
    memory_limit: int | None,
    workers: int | None = None,
) -> xr.Dataset:
    """The selection's tiles on one lattice; what `Selection.to_xarray` does.

    Raises:
        InvalidInputError: an empty selection, tiles on different lattices, bands whose
            numbers differ in meaning, or, without `chunks`, more than `memory_limit` bytes.
        NotFoundError: an unknown band.
        MissingDependencyError: xarray (with `chunks`: dask) is not installed.
    """
    xarray = require("xarray", needed_for="to_xarray", extra="xarray")
    _register_accessors()
    one_lattice(rows)
    layers = layers_of(rows, bands, radiometry)
    group = common_group(backend, rows, layers, resolution)
    schema = rows[0].schema
    cube = _Cube(
        slots=tuple(group_rows(rows, groupby)),
        extent=Extent.of_cells(schema.scheme, schema.length, group, (row.geocode for row in rows)),
        reader=CellReader(
            backend=backend,
            layers=layers,
            group=group,
            radiometry=radiometry,
            cloud_mask=cloud_mask,
        ),
    )
    if chunks is None:
        pixels = int(np.prod(cube.shape, dtype=np.int64))
        needed = pixels * sum(layer.dtype.itemsize + int(masks) for layer in layers)
        shape = " x ".join(str(size) for size in cube.shape)
        check_memory(
            needed,
            memory_limit,
            f"a cube of {len(layers)} bands of {shape} pixels (time, y, x)",
            "pass chunks={} to read it piece by piece, ask for fewer tiles or bands or a"
            " coarser resolution, or raise memory_limit= (bytes)",
        )
        read = _read_now(cube, with_masks=masks, workers=workers)
    else:
        read = _read_later(cube, chunks, with_masks=masks)
    return _assemble(xarray, cube, read, radiometry, groupby)


def _register_accessors() -> None:
    """Makes `.rio` and `.odc` work on what is returned, where those packages are installed."""
    for module in ("rioxarray", "odc.geo.xr"):
        with suppress(ImportError):
            import_module(module)


def _assemble(
    xarray: Any, cube: _Cube, read: list[list[Any]], radiometry: Radiometry, groupby: GroupBy
) -> xr.Dataset:
    x, y = cube.extent.coordinates()
    axes = _axis_attributes(cube.extent)
    coordinates: dict[str, Any] = {
        "time": ("time", _time_coordinate(cube.slots)),
        "y": ("y", y, axes["y"]),
        "x": ("x", x, axes["x"]),
        "spatial_ref": ((), np.int32(cube.extent.crs.split(":")[1]), _spatial_ref(cube.extent)),
    }
    if groupby == "scene":
        coordinates["scene"] = ("time", np.array([slot.label for slot in cube.slots]))
    variables: dict[str, Any] = {}
    for layer, array in zip(cube.reader.layers, read[0], strict=True):
        variables[layer.name] = (_DIMENSIONS, array, _layer_attributes(layer, radiometry))
    if len(read) > 1:
        for layer, array in zip(cube.reader.layers, read[1], strict=True):
            attributes = {"long_name": f"validity of {layer.name}, true where valid"}
            variables[f"{layer.name}_valid"] = (_DIMENSIONS, array, attributes)
    dataset = xarray.Dataset(variables, coordinates)
    for name in variables:
        dataset[name].encoding["grid_mapping"] = "spatial_ref"
    return cast("xr.Dataset", dataset)
